#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Under a Slurm of its own with two hosts: what srun and mpirun start is one job on both, bad input and too long sequences end it
# with one line and their exit code, a suspended job goes on, and one of whose ranks is killed ends.
#
#     test_slurm.sh BSATTN_RING
#
# The hosts are namespaces of this machine, with a network, a name and an identity of their own; they and all that runs there are
# gone when this script is. That takes root. Closes with "N passed, N failed"; 77 where it cannot be done.
set -euo pipefail

hosts=(one two)
seconds=60 # for one job

if [ "${2:-}" != inside ]; then
    for command in slurmctld slurmd srun ip unshare nsenter; do
        command -v "$command" >/dev/null || { echo "skipped: there is no $command (Slurm, iproute2, util-linux)"; exit 77; }
    done
    if ! unshare --net --mount --uts --pid --fork --mount-proc true 2>/dev/null; then
        echo "skipped: no namespaces for hosts can be made here; it takes root"
        exit 77
    fi
    exec unshare --net --mount --uts --pid --fork --kill-child --mount-proc bash "$0" "$(realpath "$1")" inside
fi

ring=$1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
job=
code=

# --------------------------------------------------------------------------------------------------------------------- the cluster

# on HOST COMMAND..
on() {
    local host=$1
    shift
    nsenter --target "$(cat "$work/$host.pid")" --net --uts --mount "$@"
}

# The network, and a process that keeps the namespaces of each host.
make_hosts() {
    local host address=1

    hostname control
    ip link set lo up
    ip link add bridge type bridge
    ip addr add 10.0.0.254/24 dev bridge
    ip link set bridge up
    printf '127.0.0.1 localhost\n10.0.0.254 control\n' >"$work/hosts"
    for host in "${hosts[@]}"; do
        printf '10.0.0.%d %s\n' "$address" "$host" >>"$work/hosts"
        cat /proc/sys/kernel/random/uuid >"$work/$host.boot"
        mkdir "$work/$host"
        unshare --net --mount --uts bash -c "
            hostname $host
            mount --bind '$work/$host.boot' /proc/sys/kernel/random/boot_id
            echo \$\$ >'$work/$host.pid.new' && mv '$work/$host.pid.new' '$work/$host.pid'
            exec sleep infinity" &
        until [ -e "$work/$host.pid" ]; do
            sleep 0.1
        done
        ip link add "to-$host" type veth peer name eth0 netns "$(cat "$work/$host.pid")"
        ip link set "to-$host" master bridge up
        on "$host" ip addr add "10.0.0.$address/24" dev eth0
        on "$host" ip link set eth0 up
        on "$host" ip link set lo up
        on "$host" mount --bind "$work/hosts" /etc/hosts
        address=$((address + 1))
    done
    mount --bind "$work/hosts" /etc/hosts
}

start_slurm() {
    local host

    cat >"$work/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=control(10.0.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
DebugFlags=NO_CONF_HASH
ReturnToService=2
KillWait=5
StateSaveLocation=$work/state
SlurmctldPidFile=$work/slurmctld.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdSpoolDir=$work/%n/spool
SlurmdPidFile=$work/%n/slurmd.pid
SlurmdLogFile=$work/%n/slurmd.log
NodeName=${hosts[0]} NodeAddr=10.0.0.1 CPUs=4
NodeName=${hosts[1]} NodeAddr=10.0.0.2 CPUs=4
PartitionName=test Nodes=ALL Default=YES
CONF
    echo "CgroupPlugin=cgroup/v1" >"$work/cgroup.conf"
    export SLURM_CONF=$work/slurm.conf
    mkdir "$work/state"
    slurmctld -D >"$work/slurmctld.out" 2>&1 &
    for host in "${hosts[@]}"; do
        # PMIx keeps its files in TmpFS, by the job's number alone.
        mkdir "$work/$host/spool" "$work/$host/tmp"
        sed "\$aTmpFS=$work/$host/tmp" "$work/slurm.conf" >"$work/$host/slurm.conf"
        cp "$work/cgroup.conf" "$work/$host"
        on "$host" slurmd -D -N "$host" -f "$work/$host/slurm.conf" >"$work/$host/slurmd.out" 2>&1 &
    done
    for _ in $(seq 150); do
        if [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = "${#hosts[@]}" ]; then
            return
        fi
        sleep 0.2
    done
    echo "Slurm did not start:"
    tail -n 5 "$work"/slurmctld.out "$work"/*/slurmd.out
    exit 1
}

# ---------------------------------------------------------------------------------------------------------------------- the tests

# expect WHAT CODE COMMAND..: run it; its words are in $work/out and $work/err.
expect() {
    local what=$1 wanted=$2 code=0

    shift 2
    timeout "$seconds" "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
    verdict "$what: exit code $code, not $wanted" test "$code" = "$wanted"
}

# verdict WHAT TEST..
verdict() {
    local what=$1

    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $what"
        sed 's/^/  | /' "$work/out" "$work/err"
    fi
}

# How many lines of the command's own are on standard error.
lines_of_ring() {
    grep -c '^bsattn_ring:' "$work/err" || true
}

# value_of FILE PYTHON-EXPRESSION of its record r
value_of() {
    python3 -c 'import json, sys; r = json.loads(open(sys.argv[1]).read()); print(eval(sys.argv[2]))' "$work/$1" "$2"
}

processes() {
    pgrep -x "$(basename "$ring" | cut -c -15)" || true
}

# Wait until no rank is left.
until_gone() {
    for _ in $(seq 100); do
        [ -n "$(processes)" ] || return 0
        sleep 0.1
    done
    return 1
}

test_launch() {
    local small=(run --seq 2000 --heads 2 -n 2 --check=all)

    expect "one rank" 0 "$ring" "${small[@]}" --transport loop --ranks 1 --json "$work/alone.json"
    expect "srun" 0 srun --mpi=pmix -N 2 -n 4 "$ring" "${small[@]}" --json "$work/srun.json"
    expect "mpirun" 0 salloc -N 2 -n 3 mpirun "$ring" "${small[@]}" --json "$work/mpirun.json"
    verdict "srun: the job" test "$(value_of srun.json \
        "[r['job'][key] for key in ('ranks', 'hosts', 'launcher', 'transport')]")" = "[4, 2, 'srun', 'mpi']"
    verdict "mpirun: the job" test "$(value_of mpirun.json "[r['job'][key] for key in ('ranks', 'hosts')]")" = "[3, 2]"
    verdict "srun: the hosts" test "$(value_of srun.json \
        "sorted({p['host'] for p in r['placement']}), len({p['rank'] for p in r['placement']})")" = "(['one', 'two'], 4)"
    for name in srun mpirun; do
        verdict "$name: the result" test "$(python3 - "$work/alone.json" "$work/$name.json" <<'COMPARE'
import json, sys
a, b = (json.loads(open(path).read())["digest"]["out_abs_sum"] for path in sys.argv[1:])
print(abs(a - b) <= 1e-6 * abs(a))
COMPARE
)" = True
    done
}

test_refusals() {
    expect "a bad value" 2 srun --mpi=pmix -N 2 -n 4 "$ring" run --block 48
    verdict "a bad value: one line" test "$(lines_of_ring)" = 1
    expect "too long" 4 srun --mpi=pmix -N 2 -n 4 "$ring" run --seq 64G
    verdict "too long: one line" test "$(lines_of_ring)" = 1
    verdict "too long: of one host's ranks" grep -q "ranks on host" "$work/err"
}

# Start an endless job with a deadline of some seconds, and wait until all of it is under way.
start_endless() {
    srun --mpi=pmix -N 2 -n 4 "$ring" run --seq 4K --heads 2 -n 1000000 -w 0 "$@" >"$work/out" 2>"$work/err" </dev/null &
    job=$!
    for _ in $(seq 100); do
        [ "$(processes | wc -l)" = 4 ] && break
        sleep 0.1
    done
    sleep 2
}

# Wait for its end; sets code.
end_job() {
    code=0
    wait "$job" || code=$?
}

test_suspended() {
    local number

    start_endless --timeout 2
    number=$(squeue -h -o %i)
    scontrol suspend "$number"
    sleep 5
    scontrol resume "$number"
    sleep 5
    verdict "suspended: it goes on" test "$(processes | wc -l)" = 4
    scancel "$number"
    end_job
    verdict "suspended: nothing is told" test "$(lines_of_ring)" = 0
    verdict "cancelled: nothing is left" until_gone
}

# The last rank is on the second host, alone.
test_killed() {
    local pid

    start_endless --timeout 3 --json "$work/killed.json"
    for pid in $(processes); do
        if tr '\0' '\n' <"/proc/$pid/environ" | grep -qx SLURM_PROCID=3; then
            kill -KILL "$pid"
        fi
    done
    end_job
    verdict "killed: exit code $code" test "$code" != 0
    verdict "killed: nothing is left" until_gone
    verdict "killed: no record" test ! -e "$work/killed.json"
}

test_stopped() {
    local pid

    start_endless --timeout 3
    for pid in $(processes); do
        if tr '\0' '\n' <"/proc/$pid/environ" | grep -qx SLURM_PROCID=3; then
            kill -STOP "$pid"
        fi
    done
    end_job
    verdict "stopped: exit code $code, not 124" test "$code" = 124
    verdict "stopped: one line" test "$(lines_of_ring)" = 1
    verdict "stopped: who" grep -q "no word from rank 3" "$work/err"
    verdict "stopped: nothing is left" until_gone
}

make_hosts
start_slurm
if ! srun --mpi=list 2>&1 | grep -q pmix; then
    echo "skipped: this Slurm knows no PMIx"
    exit 77
fi
test_launch
test_refusals
test_suspended
test_killed
test_stopped
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
