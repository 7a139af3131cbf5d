#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Install what the tests need, build, and run them. The last line is "N passed, N failed, N skipped".
#
#     launch/test.sh [--quick] [CTEST OPTION]..
#
# --quick leaves out lint and the sanitizer builds. CTest's options choose among the rest, e.g. -L mpi or -R npy.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

quick=no
case "${1:-}" in
-h | --help)
    sed -n '3,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
--quick)
    quick=yes
    shift
    ;;
esac

needs=(need_for_build need_for_tests need_for_slurm need_for_cuda)
if [ "$quick" = no ]; then
    needs+=(need_for_lint need_for_sanitizers)
fi
ensure "${needs[@]}"
ensure_cuda

# Once for every GPU that a release is compiled for; the sanitizer builds are C alone.
build release -DBSATTN_TESTS=ON -DBSATTN_WERROR=ON -DBSATTN_CUDA=ON -DBSATTN_NCCL=ON
presets=(release)
if [ "$quick" = no ]; then
    build asan -DBSATTN_TESTS=ON
    build tsan -DBSATTN_TESTS=ON
    presets+=(asan tsan)
fi

cd "$root"
failed=no
reports=()
for preset in "${presets[@]}"; do
    report=build/ctest-$preset.xml
    reports+=("$preset=$report")
    rm -f "$report"
    options=(--preset "$preset" --parallel "$cores" --output-junit "$root/$report")
    if [ "$quick" = yes ]; then
        options+=(--label-exclude lint)
    fi
    say "testing ($preset)"
    ctest "${options[@]}" "$@" || failed=yes
done

python3 launch/test_summary.py "${reports[@]}" || failed=yes
[ "$failed" = no ]
