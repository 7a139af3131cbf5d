#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test_install.sh BUILD CC CXX: install a build into a fresh prefix, look at what is there, move the prefix, and build and run
# an outside program against it: through find_package, through pkg-config as C99, and through pkg-config as C++11. Last, the
# README's program with mpicc.
set -euo pipefail

build=$1 cc=$2 cxx=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say()
{
    printf '%s\n' "-- $*"
}

say "install"
cmake --install "$build" --prefix "$work/first" >"$work/install.txt"
mv "$work/first" "$work/moved"
prefix=$work/moved
pc=$(find "$prefix" -name bsattn_ring.pc)
export PKG_CONFIG_PATH=${pc%/*}

say "what is installed"
for path in bin/bsattn_ring include/bsattn.h share/bsattn_ring/configs/dilated.conf share/doc/bsattn_ring/LICENSE \
    share/doc/bsattn_ring/README.md; do
    [ -f "$prefix/$path" ] || { echo "not installed: $path"; exit 1; }
done
headers=$(find "$prefix" -name '*.h' | wc -l)
[ "$headers" -eq 1 ] || { echo "$headers headers are installed, one is public"; exit 1; }
version=$(pkg-config --modversion bsattn_ring)
"$prefix/bin/bsattn_ring" --version | grep -F "$version"

say "find_package"
cmake -S "$here" -B "$work/cmake" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" --log-level=WARNING
cmake --build "$work/cmake" >"$work/build.txt" || { cat "$work/build.txt"; exit 1; }
export LD_LIBRARY_PATH=${pc%/*/*}
"$work/cmake/consumer"

# Compiler flags are words, so they are not quoted.
# shellcheck disable=SC2046
{
    say "pkg-config, C99"
    "$cc" -std=c99 -Wall -Wextra -pedantic -Werror $(pkg-config --cflags bsattn_ring) "$here/consumer.c" \
        -o "$work/c99" $(pkg-config --libs bsattn_ring)
    "$work/c99"

    if command -v "$cxx" >/dev/null; then
        say "pkg-config, C++11"
        "$cxx" -x c++ -std=c++11 -Wall -Wextra -pedantic -Werror $(pkg-config --cflags bsattn_ring) "$here/consumer.c" \
            -x none -o "$work/cxx11" $(pkg-config --libs bsattn_ring)
        "$work/cxx11"
    fi

    if command -v mpicc >/dev/null; then
        say "the README's program"
        # shellcheck disable=SC2016
        sed -n '/^```c$/,/^```$/{/^```/d;p}' "$here/../../README.md" >"$work/readme.c"
        mpicc -Wall -Werror "$work/readme.c" -o "$work/readme" $(pkg-config --cflags --libs bsattn_ring)
        "$work/readme"
    fi
}
