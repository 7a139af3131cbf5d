#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Ranks on GPUs: every transport gives what one rank gives, random small problems agree with the fp64 reference, and a job one
# of whose ranks is killed or stopped ends, with exit code 124 if it was stopped.
#
#     test_ranks.sh BSATTN_RING [MPIEXEC [NUMPROC_FLAG]]
#
# Ranks share GPUs where there are fewer of these. NCCL takes part where each rank has a GPU of its own, or
# NCCL_MULTI_RANK_GPU_ENABLE=1 is set; nccl-put is the same transport with BSATTN_NCCL_MODE=put. Closes with "N passed, N failed,
# N skipped"; 77 without a GPU.
set -euo pipefail

ring=$(realpath "$1")
mpiexec=${2:-mpirun}
numproc=${3:--n}
seconds=120      # for one run
tolerance=1e-3   # of the sum of |O|, relative
rank_counts=(1 2 3 4 8)
transports=(loop ipc mpi nccl nccl-put)

# MPI as root with more ranks than cores, for Open MPI 4 and 5; MPICH needs none of it.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1
export PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"

info=$("$ring" info)
gpus=$(awk '$1 == "host.gpus" { print $2 }' <<<"$info")
[ -n "$gpus" ] || { echo "FAILED  info says nothing of host.gpus"; exit 1; }
if [ "$gpus" -lt 1 ]; then
    echo "skipped: $(sed -n 's/^ *auto.backend_reason *//p' <<<"$info" | grep . || echo "no GPU")"
    exit 77
fi
have_mpi=yes
command -v "$mpiexec" >/dev/null || have_mpi=no

work=$(mktemp -d)
job=
passed=0
failed=0
skipped=0

# Process ids below a process, at any depth.
descendants() {
    local child
    for child in $(pgrep -P "$1" || true); do
        echo "$child"
        descendants "$child"
    done
}

cleanup() {
    local pid
    if [ -n "$job" ]; then
        for pid in $(descendants "$job") "$job"; do
            kill -KILL "$pid" 2>/dev/null || true
        done
    fi
    rm -rf "$work"
}
trap cleanup EXIT

pass() {
    passed=$((passed + 1))
    echo "ok      $1"
}

fail() {
    failed=$((failed + 1))
    echo "FAILED  $1"
    if [ -s "$work/told" ]; then
        # mpirun has much to say about a job that failed, and the command's own words come first.
        { grep -m 5 'bsattn_ring' "$work/told" || tail -n 8 "$work/told"; } | sed 's/^/        /'
    fi
}

skip() {
    skipped=$((skipped + 1))
    echo "skipped $1"
}

# The message of the command among what was told.
reason() {
    grep -m 1 'bsattn_ring: error:' "$work/told" | sed 's/^.*bsattn_ring: error: //' || echo "no message"
}

mode_of() {
    if [ "$1" = nccl-put ]; then
        echo put
    else
        echo sendrecv
    fi
}

# launch TRANSPORT RANKS ARGUMENT..: one run; what it says goes to $work/told. Returns its exit code.
launch() {
    local transport=$1 ranks=$2 code=0
    shift 2
    if [ "$transport" = loop ]; then
        timeout -k 5 "$seconds" "$ring" "$@" --backend cuda --transport loop --ranks "$ranks" \
            >"$work/told" 2>&1 </dev/null || code=$?
    else
        BSATTN_NCCL_MODE=$(mode_of "$transport") timeout -k 5 "$seconds" "$mpiexec" "$numproc" "$ranks" "$ring" "$@" \
            --backend cuda --transport "${transport%-put}" >"$work/told" 2>&1 </dev/null || code=$?
    fi
    return "$code"
}

uses_nccl() {
    [ "$1" = nccl ] || [ "$1" = nccl-put ]
}

# Whether the command said that this build or this NCCL cannot do it; any other error is a failure.
lacks_nccl() {
    uses_nccl "$1" && grep -q 'this build has no NCCL\|takes NCCL\|NCCL_MODE=put needs\|cannot map memory between' "$work/told"
}

# Whether a transport is to be tried with so many ranks; says why not.
offered() {
    local transport=$1 ranks=$2
    if [ "$transport" = loop ]; then
        return 0
    fi
    if [ "$have_mpi" = no ]; then
        echo "$mpiexec is not there"
        return 1
    fi
    if uses_nccl "$transport" && [ "$ranks" -gt "$gpus" ] && [ "${NCCL_MULTI_RANK_GPU_ENABLE:-0}" != 1 ]; then
        echo "$ranks ranks, $gpus GPU(s)"
        return 1
    fi
}

# out_abs_sum of a record
digest() {
    sed -n 's/.*"out_abs_sum": *\([-+.0-9eE]*\).*/\1/p' "$1" | tail -n 1
}

close_enough() {
    awk -v a="$1" -v b="$2" -v bound="$tolerance" \
        'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a != "" && b > 0 && d <= bound * b) }'
}

# compare NAME EXPECTED TRANSPORT RANKS ARGUMENT..: run and compare the digest with that of one rank, unless that is empty.
compare() {
    local name="$1: $3, $4 rank(s)" expected=$2 transport=$3 ranks=$4 code=0 why sum
    shift 4
    if ! why=$(offered "$transport" "$ranks"); then
        skip "$name: $why"
        return
    fi
    rm -f "$work/record.json"
    launch "$transport" "$ranks" run "$@" --json "$work/record.json" || code=$?
    if [ "$code" -eq 3 ] && lacks_nccl "$transport"; then
        skip "$name: $(reason)"
        return
    fi
    if [ "$code" -ne 0 ]; then
        fail "$name: exit code $code"
        return
    fi
    sum=$(digest "$work/record.json")
    if ! grep -q '"passed": *true' "$work/record.json"; then
        fail "$name: the record has no check that passed"
    elif [ "$transport" = nccl-put ] && ! grep -q 'one-sided put' "$work/record.json"; then
        fail "$name: the record names another way than put"
    elif [ -n "$expected" ] && ! close_enough "$sum" "$expected"; then
        fail "$name: out_abs_sum $sum, and $expected on one rank"
    else
        pass "$name"
    fi
}

# pattern NAME ARGUMENT..: one problem at every rank count over every transport.
pattern() {
    local name=$1 expected ranks transport
    shift
    set -- "$@" --dtype bf16 --heads 4 --kv-heads 2 --check=64 -n 2 -w 1
    compare "$name" "" loop 1 "$@"
    expected=$(digest "$work/record.json" 2>/dev/null) || expected=
    if [ -z "$expected" ]; then
        fail "$name: one rank left no digest to compare with"
        return
    fi
    for ranks in "${rank_counts[@]}"; do
        for transport in "${transports[@]}"; do
            if [ "$transport" = loop ] && [ "$ranks" -eq 1 ]; then
                continue
            fi
            compare "$name" "$expected" "$transport" "$ranks" "$@"
        done
    done
}

verify() {
    local transport=$1 ranks=$2 code=0 why
    local name="verify: $transport, $ranks rank(s)"
    if ! why=$(offered "$transport" "$ranks"); then
        skip "$name: $why"
        return
    fi
    launch "$transport" "$ranks" verify -n 20 --seed "$ranks" || code=$?
    if [ "$code" -eq 3 ] && lacks_nccl "$transport"; then
        skip "$name: $(reason)"
    elif [ "$code" -ne 0 ]; then
        fail "$name: exit code $code"
    else
        pass "$name"
    fi
}

# Ids of the ranks below the launcher: processes whose program is the command.
ranks_below() {
    local pid
    for pid in $(descendants "$1"); do
        if [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$ring" ]; then
            echo "$pid"
        fi
    done
}

wait_for_ranks() {
    local want=$1 i
    for ((i = 0; i < 300; ++i)); do
        if [ "$(ranks_below "$job" | wc -l)" -ge "$want" ]; then
            return 0
        fi
        if ! kill -0 "$job" 2>/dev/null; then
            return 1
        fi
        sleep 0.1
    done
    return 1
}

# Still running, not merely unreaped.
alive() {
    local state
    state=$(sed -n 's/^.*) \([A-Z]\) .*/\1/p' "/proc/$1/stat" 2>/dev/null) || return 1
    [ -n "$state" ] && [ "$state" != Z ] && [ "$state" != X ]
}

# CUDA's multi-process service takes a while to forget a process that was killed.
wait_for_gpu() {
    local i
    for i in $(seq 20); do
        "$ring" run --backend cuda --seq 1K --check=off -w 0 -n 1 >/dev/null 2>&1 </dev/null && return
        sleep 0.5
    done
}

# broken_rank SIGNAL TRANSPORT: send it to a rank in the midst of its iterations.
broken_rank() {
    local signal=$1 transport=$2 ranks=3 code=0 name why pid left i began
    local -a pids
    if uses_nccl "$transport" && [ "$gpus" -eq 2 ] && [ "${NCCL_MULTI_RANK_GPU_ENABLE:-0}" != 1 ]; then
        ranks=2
    fi
    name="rank with SIG$signal: $transport, $ranks ranks"
    if ! why=$(offered "$transport" "$ranks"); then
        skip "$name: $why"
        return
    fi
    wait_for_gpu
    BSATTN_NCCL_MODE=$(mode_of "$transport") "$mpiexec" "$numproc" "$ranks" "$ring" run --backend cuda \
        --transport "${transport%-put}" --seq 8K --heads 4 --timeout 5 --check=off -w 0 -n 1000000 >"$work/told" 2>&1 </dev/null &
    job=$!
    if ! wait_for_ranks "$ranks"; then
        wait "$job" || code=$?
        job=
        if [ "$code" -eq 3 ] && lacks_nccl "$transport"; then
            skip "$name: $(reason)"
        else
            fail "$name: the ranks did not start, exit code $code"
        fi
        return
    fi
    # Contexts, memory and the plan take their time; the kill is to meet the iterations.
    sleep 8
    mapfile -t pids < <(ranks_below "$job")
    if [ "${#pids[@]}" -ne "$ranks" ]; then
        fail "$name: ${#pids[@]} ranks were left before the kill"
        cleanup_job
        return
    fi
    kill -"$signal" "${pids[1]}"
    began=$SECONDS
    for ((i = 0; i < 350; ++i)); do
        alive "$job" || break
        sleep 0.1
    done
    if alive "$job"; then
        fail "$name: still there after $((SECONDS - began)) s"
        cleanup_job
        return
    fi
    wait "$job" || code=$?
    job=
    sleep 1
    left=
    for pid in "${pids[@]}"; do
        if alive "$pid"; then
            left="$left $pid"
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
    if [ "$code" -eq 0 ]; then
        fail "$name: exit code 0"
    elif [ "$signal" = STOP ] && [ "$code" -ne 124 ]; then
        fail "$name: exit code $code, not 124"
    elif [ -n "$left" ]; then
        fail "$name: processes left:$left"
    else
        pass "$name: exit code $code after $((SECONDS - began)) s"
    fi
}

cleanup_job() {
    local pid
    for pid in $(descendants "$job") "$job"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait "$job" 2>/dev/null || true
    job=
}

# A last block that is ragged, and rows whose keys lie on few other ranks; all of the keys, so that every rank's chunk goes round,
# and causal work dealt out in zigzag, enough for a GPU that leaves some multiprocessors to NCCL; heads that see different keys.
pattern "ragged window" --seq 5003 --head-dim 64 --block 64 --pattern 'local(window=512)+global(tokens=64)' --exchange ring
pattern "causal zigzag" --seq 16K --head-dim 128 --block 128 --pattern dense --causal --layout zigzag
for exchange in ring direct; do
    pattern "per head, $exchange" --seq 4500 --head-dim 64 --block 64 --layout cyclic:2 --exchange "$exchange" \
        --pattern '0-1@dilated(rates=1:2:4);2-3@random(blocks=6,seed=3)+sink(tokens=64)'
done

# More steps than are enqueued ahead of the GPU, once after another execution.
many=(--seq 20K --head-dim 64 --block 64 --pattern 'local(window=512)' --exchange ring --dtype bf16 --heads 4 --check=64 -n 1 -w 1)
compare "many steps" "" loop 1 "${many[@]}"
compare "many steps" "$(digest "$work/record.json")" loop 80 "${many[@]}"

# Messages of several pieces.
rank_counts=(2 3)
for exchange in ring direct; do
    pattern "long messages, $exchange" --seq 200K --head-dim 128 --block 128 --pattern dense --exchange "$exchange"
done

for ranks in 1 2 3 4; do
    for transport in "${transports[@]}"; do
        verify "$transport" "$ranks"
    done
done

for transport in ipc mpi nccl nccl-put; do
    broken_rank KILL "$transport"
    broken_rank STOP "$transport"
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
