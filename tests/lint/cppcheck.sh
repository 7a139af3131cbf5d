#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cppcheck.sh ROOT WORK GENERATED: run cppcheck on src/ and kernels/cpu; 77 where there is none.
set -euo pipefail

root=$1 work=$2 generated=$3
if ! command -v cppcheck >/dev/null; then
    echo "skipped: cppcheck is not installed"
    exit 77
fi
mkdir -p "$work"
cd "$root"
cppcheck --enable=warning,performance,portability --std=c11 --inline-suppr --error-exitcode=1 --quiet \
    --suppress=missingIncludeSystem -j "$(nproc)" --cppcheck-build-dir="$work" \
    -I src -I . -I "$generated" -D__x86_64__ -D__GNUC__ -DBSATTN_VERSION='"0"' -D__AVX2__ -D__FMA__ -D__F16C__ \
    -D__AVX512F__ -D__AVX512BW__ -D__AVX512VL__ -D__AVX512DQ__ -D__AVX512BF16__ -D__AMX_TILE__ -D__AMX_BF16__ \
    -DBSATTN_HAVE_CUDA -DBSATTN_HAVE_NCCL -DBSATTN_HAVE_HWLOC \
    --suppressions-list=.cppcheck-suppressions src kernels/cpu
