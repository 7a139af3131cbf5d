#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# From a clone to a first result: install what is missing, build, run four ranks, show the report and the mask.
#
#     launch/quickstart.sh [OPTION of `bsattn_ring run`]..      e.g. launch/quickstart.sh --seq 64K --causal
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

ranks=4

case "${1:-}" in
-h | --help)
    sed -n '3,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

ensure need_for_build
build release

cd "$root"
mpi_environment "$ranks"
say "mpirun -np $ranks build/bsattn_ring --json build/quickstart.json${*:+ $*}"
mpirun -np "$ranks" build/bsattn_ring --json build/quickstart.json "$@"

say "the mask, drawn for 4096 tokens"
build/bsattn_ring mask --seq 4K --svg build/quickstart.svg
say "record: build/quickstart.json; the mask as a picture: build/quickstart.svg"
