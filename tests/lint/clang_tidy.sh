#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang_tidy.sh ROOT BUILD [FILE]: run clang-tidy with .clang-tidy on src/ and kernels/cpu, or on one file: the C files that
# BUILD compiles; 77 where there is no clang-tidy.
set -euo pipefail

root=$1 build=$2
if ! command -v clang-tidy >/dev/null; then
    echo "skipped: clang-tidy is not installed"
    exit 77
fi
cd "$root"

check()
{
    local file=$1 name arguments=(-D_GNU_SOURCE= "-I$root/src" -include tests/lint/analyzer.h)

    for name in bsattn_fail bsattn_job_agree bsattn_context_agree; do
        if grep -q "^bsattn_status_t $name(" "$file"; then
            arguments+=("-DDEFINES_$name")
        fi
    done
    if ! grep -qF "$root/$file\"" "$build/compile_commands.json"; then
        return # for GPUs, in a build that has none
    fi
    clang-tidy --quiet -p "$build" "${arguments[@]/#/--extra-arg-before=}" "$file" 2> >(grep -vE '^[0-9]+ (warning|error)s?' >&2)
}

if [ "${3:-}" ]; then
    check "$3"
else
    find src kernels/cpu -name '*.c' -print0 | xargs -0 -n 1 -P "$(nproc)" bash "$0" "$root" "$build"
fi
