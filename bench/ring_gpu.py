#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the ring costs on GPUs: P ranks beside one that does the same work, over every transport.

    ring_gpu.py [--command build/bsattn_ring] [--mpiexec mpirun] [--cases dense,causal,sparse] [--transports loop,ipc,mpi,nccl]

Virtual ranks of one process (loop) at P = 1, 2, 4, 8, and jobs of P = 2, 4, 8 processes. Where ranks share a GPU, `to one` is
the time beside one rank's, 1.00 being free; where each has its own, `speedup` is one rank's time over theirs. total, attend,
exchange and exposed are the medians of the record; exposed is exchange during which compute stood still.

A transport that cannot run here (exit code 3) is left out, with its reason. Exit code 1: a run failed; 77: no GPU.
"""

import argparse
import csv
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile

SKIPPED = 77
ENVIRONMENT = 3  # the command's exit code where something is missing
CASES = {
    "dense": ["--pattern", "dense"],
    "causal": ["--pattern", "dense", "--causal"],
    "sparse": ["--pattern", "{sparse}"],
}
SPARSE = "random(blocks=16,seed=1)"
TRANSPORTS = ("loop", "ipc", "mpi", "nccl")
COLUMNS = ("case", "seq", "transport", "ranks", "gpus", "layout", "total_ms", "attend_ms", "exchange_ms", "exposed_ms", "to_one",
           "speedup", "tflops", "imbalance", "spread")
# MPI as root with more ranks than cores, for Open MPI 4 and 5; MPICH needs none of it.
MPI_ENVIRONMENT = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
ROOT_ENVIRONMENT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "PRTE_ALLOW_RUN_AS_ROOT",
                    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM")


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def words_of(known):
    def parse(text):
        words = text.split(",")
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"'{word}': {', '.join(known)} are accepted")
        return words

    return parse


def counts(text):
    try:
        values = [int(item) for item in text.split(",")]
    except ValueError:
        values = [0]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': numbers of ranks such as 2,4,8 are expected")
    return values


def environment_of(arguments):
    environment = dict(MPI_ENVIRONMENT)
    if os.geteuid() == 0:
        environment.update(dict.fromkeys(ROOT_ENVIRONMENT, "1"))
    environment.update(os.environ)
    for setting in arguments.env:
        name, equals, value = setting.partition("=")
        if not equals:
            sys.exit(f"ring_gpu: --env {setting}: NAME=VALUE is expected")
        environment[name] = value
    return environment


def told_by(done):
    """The command's own message, else the last line of what was said."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    marked = [line.partition("error: ")[2] for line in lines if "bsattn_ring: error: " in line]
    return (marked or lines[-1:] or ["no message"])[0]


class Ring:
    """Runs of the command."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.environment = environment_of(arguments)

    def start(self, words, timeout):
        try:
            return subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  env=self.environment, timeout=timeout)
        except FileNotFoundError:
            return subprocess.CompletedProcess(words, ENVIRONMENT, "", f"{words[0]} is not there")
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"no end after {timeout} s")

    def gpus(self):
        """How many GPUs the command can use, and the name of the first."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "info.json")
            done = self.start([self.arguments.command, "info", "--json", path], 120)
            if done.returncode != 0:
                skip(f"{self.arguments.command} info: {told_by(done)}")
            with open(path, encoding="utf-8") as file:
                info = json.load(file)
        count = info["host"].get("gpus", 0)
        if count < 1:
            skip(info["auto"].get("backend_reason", "no GPU"))
        return count, info["host"].get("gpu0", "GPU")

    def run(self, case, transport, ranks):
        """(record, None), or (None, why not, exit code)"""
        a = self.arguments
        words = [a.command, "run", "--backend", "cuda", "--transport", transport, "--dtype", a.dtype, "--seq", a.seq]
        words += ["--heads", str(a.heads), "--kv-heads", str(a.kv_heads or a.heads), "--head-dim", str(a.head_dim)]
        words += ["--block", str(a.block), "-n", str(a.iters), "-w", str(a.warmup), "--check=64"]
        words += [word.format(sparse=a.sparse) for word in CASES[case]] + a.options
        if transport == "loop":
            words += ["--ranks", str(ranks)]
        else:
            words = [*shlex.split(a.mpiexec), a.numproc_flag, str(ranks), *words]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "record.json")
            done = self.start([*words, "--json", path], a.timeout)
            if done.returncode != 0:
                return None, told_by(done), done.returncode
            with open(path, encoding="utf-8") as file:
                return json.loads(file.read().splitlines()[-1]), None, 0


def number(value):
    """JSON has null where something is not known."""
    return math.nan if value is None else float(value)


def row_of(case, record, transport, ranks, gpus, one_ms):
    times = {part: number(record["time_ms"][part]["median"]) for part in ("total", "attend", "exchange", "exposed")}
    total = record["time_ms"]["total"]
    shared = 1 if transport == "loop" else min(ranks, gpus)
    values = (case, record["problem"]["seq_len"], transport, ranks, shared, record["plan"]["layout"], times["total"],
              times["attend"], times["exchange"], times["exposed"], times["total"] / one_ms, one_ms / times["total"],
              number(record["rate"]["tflops"]), number(record["plan"]["imbalance"]), total["p95"] / total["median"])
    return dict(zip(COLUMNS, values))


def print_head():
    print(f"{'# case':8} {'N':>8} {'transport':>9} {'P':>3} {'GPUs':>4} {'layout':>10} {'total ms':>9} {'attend ms':>9} "
          f"{'exch. ms':>9} {'exposed':>8} {'to one':>7} {'speedup':>7} {'TFLOP/s':>8} {'imbal.':>7} {'p95/med':>7}")


def print_row(row):
    print(f"{row['case']:8} {row['seq']:8} {row['transport']:>9} {row['ranks']:3} {row['gpus']:4} {row['layout']:>10} "
          f"{row['total_ms']:9.4f} {row['attend_ms']:9.4f} {row['exchange_ms']:9.4f} {row['exposed_ms']:8.4f} "
          f"{row['to_one']:7.3f} {row['speedup']:7.3f} {row['tflops']:8.1f} {row['imbalance']:7.3f} {row['spread']:7.3f}",
          flush=True)


def measure_one(ring, case):
    """The record of one rank."""
    record, why, code = ring.run(case, "loop", 1)
    if record is None and code == ENVIRONMENT:
        skip(why)
    if record is None:
        sys.exit(f"ring_gpu: {case}, one rank: exit code {code}: {why}")
    return record


def measure_case(ring, case, gpus):
    """(rows, failures). One rank is measured before and after, and the ratios are to the mean: clocks drift."""
    arguments = ring.arguments
    ones = [measure_one(ring, case)]
    records = []
    failures = 0
    for transport in arguments.transports:
        for ranks in arguments.ranks:
            if ranks == 1:
                continue
            record, why, code = ring.run(case, transport, ranks)
            if record is not None:
                records.append((record, transport, ranks))
            elif code == ENVIRONMENT:
                print(f"# {case}: {transport} with {ranks} ranks is left out: {why}", flush=True)
            else:
                failures += 1
                print(f"# {case}: {transport} with {ranks} ranks FAILED, exit code {code}: {why}", flush=True)
    ones.append(measure_one(ring, case))
    one_ms = statistics.mean(record["time_ms"]["total"]["median"] for record in ones)
    rows = [row_of(case, record, "loop", 1, gpus, one_ms) for record in ones]
    rows[1:1] = [row_of(case, *entry, gpus, one_ms) for entry in records]
    return rows, failures


def parse_arguments():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    program = os.path.join(root, "build", "bsattn_ring")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", default=program, metavar="PATH", help=f"bsattn_ring (default: {program})")
    parser.add_argument("--mpiexec", default="mpirun", metavar="CMD", help="starts a job; words are split (default: mpirun)")
    parser.add_argument("--numproc-flag", default="-n", metavar="FLAG", help="its flag for the number of ranks (default: -n)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set in every run; may be repeated")
    parser.add_argument("--cases", type=words_of(CASES), default=list(CASES), help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--transports", type=words_of(TRANSPORTS), default=list(TRANSPORTS),
                        help=f"of {', '.join(TRANSPORTS)} (default: all)")
    parser.add_argument("--ranks", type=counts, default=[2, 4, 8], help="rank counts beside 1 (default: 2,4,8)")
    parser.add_argument("--seq", default="32K", help="N (default: 32K)")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, help="default: as many")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--sparse", default=SPARSE, metavar="PATTERN", help=f"of the case sparse (default: {SPARSE})")
    parser.add_argument("--iters", type=int, default=20, help="timed iterations of a run (default: 20)")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=180, metavar="SECONDS", help="for one run (default: 180)")
    parser.add_argument("--csv", metavar="FILE", help="write the table here too")
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="more options of bsattn_ring, behind --")
    return parser.parse_args()


def main():
    ring = Ring(parse_arguments())
    gpus, name = ring.gpus()
    print(f"# {gpus} GPU(s), {name}; {ring.arguments.iters} iterations")
    rows, failures = [], 0
    print_head()
    for case in ring.arguments.cases:
        case_rows, case_failures = measure_case(ring, case, gpus)
        for row in case_rows:
            print_row(row)
        rows += case_rows
        failures += case_failures
    if ring.arguments.csv:
        with open(ring.arguments.csv, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    print(f"# {len(rows)} runs, {failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
