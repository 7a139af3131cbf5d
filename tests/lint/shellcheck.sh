#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: shellcheck.sh ROOT. Checks every shell script of the repository; 77 where there is no shellcheck.
set -euo pipefail

cd "$1"
if ! command -v shellcheck >/dev/null; then
    echo "skipped: shellcheck is not installed"
    exit 77
fi
find launch tests bench .ci -type f \( -name '*.sh' -o -name '*.sbatch' -o -path .ci/run \) -print0 |
    xargs -0 shellcheck --external-sources
