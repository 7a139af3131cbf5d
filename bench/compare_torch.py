#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Attention on one GPU beside PyTorch's, the same masks, side by side in time.

    compare_torch.py [--groups dense,flex,presets] [--seq 4K,8K] [--attend-gpu build/bench/attend_gpu]

    dense    every key, full and causal, 16 heads, D = 64 and 128: scaled_dot_product_attention, cuDNN and FlashAttention-2
    flex     random 128-blocks, 10, 5, 2 and 1 %: FlexAttention
    presets  local, dilated, ultra_sparse: FlexAttention

For each group attend_gpu runs right before PyTorch and right after; `ours` is the mean of its two medians and `drift` the
later over the earlier. A BlockMask has full blocks alone, made from the very masks of attend_gpu: the pairs they count are
compared, and sampled rows of every result of PyTorch are compared with a plain fp32 softmax under that mask. Random normal
bf16, inputs that would stay in the L2 taking turns, medians over --repeats events. `torch/ours` above 1: ours is faster.
FlexAttention runs as torch.compile leaves it; --tune takes the fastest of several tile shapes instead. --graph replays
PyTorch's calls from a CUDA graph, without Python's time between them.

Exit code 1: a result is off or the masks differ; 77: no PyTorch, no GPU, or no attend_gpu.
"""

import argparse
import contextlib
import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile

SKIPPED = 77
L2_BYTES_TO_FILL = 200e6  # of the inputs and outputs of all sets, as in attend_gpu
SETS_MAX = 16
LEAST_MS = 0.3  # of one sample
ROW_BOUND = 2e-2  # ||O - R|| / ||R|| of a row in bf16
GROUPS = {"dense": "dense", "flex": "sparse", "presets": "presets"}  # ours -> attend_gpu's --cases
SEQS = {"dense": (4096, 8192, 16384, 32768), "flex": (8192, 16384, 32768, 65536), "presets": (16384, 65536)}
PRESETS = {  # block distances that are active
    "local(window=256)": (0, 1, 2),
    "dilated(rates=1:2:4:8)": (0, 1, 2, 4, 8),
    "dilated(rates=1:2:4)": (0, 1, 2, 4),
}
# Queries and keys of a tile, stages, warps; None: PyTorch's own choice, whose tiles are too large for blocks of 64.
FLEX_TILES = {128: (None,), 64: ((64, 64, 3, 4),)}
FLEX_TILES_TUNED = {
    128: (None, (128, 128, 2, 8), (128, 64, 3, 8), (128, 64, 3, 4), (64, 128, 3, 4), (64, 64, 3, 4)),
    64: ((64, 64, 3, 4), (64, 64, 2, 4), (64, 64, 4, 4), (64, 64, 3, 8), (64, 32, 4, 4)),
}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def fail(message):
    sys.exit(f"compare_torch: {message}")


def first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def size(text):
    """16K -> 16384"""
    factor = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:].upper(), 1)
    try:
        value = int(text if factor == 1 else text[:-1]) * factor
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}': a length such as 16384 or 16K is expected")
    return value


def size_list(text):
    return [size(item) for item in text.split(",")]


def group_list(text):
    groups = text.split(",")
    for group in groups:
        if group not in GROUPS:
            raise argparse.ArgumentTypeError(f"'{group}': {', '.join(GROUPS)} are accepted")
    return groups


# ------------------------------------------------------------------------------------------------------------- ours


class Case:
    """A row of attend_gpu's CSV: what was computed, and how long it took."""

    def __init__(self, row):
        self.name = row["name"]
        self.seq = int(row["seq"])
        self.heads = int(row["heads"])
        self.head_dim = int(row["head_dim"])
        self.block = int(row["block"])
        self.causal = int(row["causal"]) != 0
        self.list_blocks = int(row["list_blocks"])
        self.pattern = row["pattern"]
        self.kernel = row["kernel"]
        self.ms = float(row["ms"])
        self.right = int(row["right"]) != 0
        self.tflops = float(row["tflops"])
        if int(row["kv_heads"]) != self.heads or row["dtype"] != "bf16":
            fail(f"attend_gpu: a case that is not compared here: {row}")

    def key(self):
        return (self.name, self.seq, self.heads, self.head_dim, self.block, self.causal)


def run_ours(arguments, group, seqs, mask_dir):
    """Cases of one group in attend_gpu's order."""
    path = os.path.join(mask_dir, "ours.csv")
    command = [arguments.attend_gpu, "--cases", GROUPS[group], "--seq", ",".join(map(str, seqs)), "--csv", path]
    command += ["--repeats", str(arguments.repeats), "--mask-dir", mask_dir]
    if arguments.kernel:
        command += ["--kernel", arguments.kernel]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode == SKIPPED:
        skip(f"attend_gpu: {done.stdout.strip()}")
    if done.returncode not in (0, 1):
        fail(f"{' '.join(command)} ended with {done.returncode}")
    with open(path, encoding="utf-8", newline="") as file:
        return [Case(row) for row in csv.DictReader(file)]


# ------------------------------------------------------------------------------------------------------------ masks


def block_mask_of(torch, case, mask_dir):
    """bool [nb, nb]: which key blocks a query block sees; None: all of them."""
    count = case.seq // case.block
    if case.list_blocks > 0:
        path = os.path.join(mask_dir, f"{case.seq}_{case.block}_{case.list_blocks}.npy")
        with open(path, "rb") as file:
            data = bytearray(file.read())
        start = 10 + int.from_bytes(data[8:10], "little")  # behind the header of .npy 1.0
        if b"'|b1'" not in data[:start] or len(data) - start != count**2:
            fail(f"{path}: not a boolean array of {count} x {count}")
        return torch.frombuffer(data, dtype=torch.bool, offset=start).reshape(count, count).cuda()
    if case.pattern == "dense":
        return None
    if case.pattern not in PRESETS:
        fail(f"no mask is known for the pattern {case.pattern}")
    places = torch.arange(count, device="cuda")
    distance = (places[:, None] - places[None, :]).abs()
    return torch.isin(distance, torch.tensor(PRESETS[case.pattern], device="cuda"))


def flops_of(case, mask):
    if mask is None:
        pairs = case.seq * (case.seq + 1) // 2 if case.causal else case.seq**2
    else:
        pairs = int(mask.sum()) * case.block**2
    return 4.0 * case.head_dim * case.heads * pairs


def flex_mask_of(torch, case, mask):
    """A BlockMask of full blocks: no mask is looked at inside a tile."""
    from torch.nn.attention.flex_attention import BlockMask

    counts = mask.sum(-1, dtype=torch.int32)[None, None]
    # Active blocks first, in ascending order.
    order = torch.argsort(mask.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)[None, None]
    none, nowhere = torch.zeros_like(counts), torch.zeros_like(order)
    return BlockMask.from_kv_blocks(none, nowhere, counts, order.contiguous(), BLOCK_SIZE=case.block)


# ------------------------------------------------------------------------------------------------------------ torch


class Torch:
    """PyTorch, its inputs and its clock."""

    def __init__(self, torch, arguments):
        self.torch = torch
        self.arguments = arguments
        self.shape = None
        self.sets = []
        self.unable = 0  # ways that PyTorch refused

    def inputs(self, case):
        """Sets of Q, K, V: [1, H, N, D], that take turns."""
        shape = (1, case.heads, case.seq, case.head_dim)
        if shape != self.shape:
            self.sets = []
            self.torch.cuda.empty_cache()
            count = math.ceil(L2_BYTES_TO_FILL / (4 * 2 * math.prod(shape)))
            make = lambda: self.torch.randn(shape, device="cuda", dtype=self.torch.bfloat16)
            self.sets = [tuple(make() for _ in range(3)) for _ in range(max(1, min(SETS_MAX, count)))]
            self.shape = shape
        return self.sets

    def clock(self, work):
        """ms of work() between two events"""
        begin, done = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        done.record()
        done.synchronize()
        return begin.elapsed_time(done)

    def time_ms(self, case, call):
        """The median over samples of LEAST_MS or more, of which each starts where the last one left off in the sets."""
        sets = self.inputs(case)
        turn = 0

        def batch(count):
            nonlocal turn
            for _ in range(count):
                call(*sets[turn])
                turn = (turn + 1) % len(sets)

        batch(3)
        inner = max(1, math.ceil(LEAST_MS / max(1e-3, self.clock(lambda: batch(3)) / 3)))
        work = lambda: batch(inner)
        if self.arguments.graph:
            inner = math.ceil(inner / len(sets)) * len(sets)
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph):
                batch(inner)
            work = graph.replay
        self.clock(work)
        return statistics.median(self.clock(work) / inner for _ in range(self.arguments.repeats))

    def row_error(self, case, mask, call):
        """Largest ||O - R|| / ||R|| of sampled rows, R by a plain softmax in fp32 under the token mask."""
        torch = self.torch
        q, k, v = self.inputs(case)[0]
        out = call(q, k, v)
        keys = torch.arange(case.seq, device="cuda")
        worst = 0.0
        for sample in range(6):
            row = (case.seq - 1) * sample // 5 if sample % 2 == 0 else (case.seq * sample // 5 + 37) % case.seq
            head = (sample * 5) % case.heads
            seen = (keys <= row) if case.causal else torch.ones_like(keys, dtype=torch.bool)
            if mask is not None:
                seen = seen & mask[row // case.block].repeat_interleave(case.block)
            scores = k[0, head].float() @ q[0, head, row].float() / math.sqrt(case.head_dim)
            weights = torch.softmax(scores.masked_fill(~seen, -math.inf), 0)
            expected = weights @ v[0, head].float()
            error = float((out[0, head, row].float() - expected).norm() / expected.norm())
            worst = max(worst, error if math.isfinite(error) else math.inf)
        return worst

    def dense_calls(self, case):
        """(name, call, context) of each backend of scaled_dot_product_attention."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        attend = self.torch.nn.functional.scaled_dot_product_attention
        call = lambda q, k, v: attend(q, k, v, is_causal=case.causal)
        backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION}
        return [(name, call, sdpa_kernel(backend)) for name, backend in backends.items()]

    def flex_calls(self, case, mask):
        """(name, call, context) of FlexAttention, one for each choice of tiles."""
        from torch.nn.attention.flex_attention import flex_attention

        # Past a limit of variants of one function PyTorch runs it uncompiled without saying so.
        self.torch._dynamo.reset()
        compiled = self.torch.compile(flex_attention, dynamic=False, fullgraph=True)
        blocks = flex_mask_of(self.torch, case, mask)

        def call_of(tiles):
            options = None if tiles is None else dict(zip(("BLOCK_M", "BLOCK_N", "num_stages", "num_warps"), tiles))
            return lambda q, k, v: compiled(q, k, v, block_mask=blocks, kernel_options=options)

        tiles = (FLEX_TILES_TUNED if self.arguments.tune else FLEX_TILES)[case.block]
        name_of = lambda choice: "flex" if choice is None else "flex " + "/".join(map(str, choice))
        return [(name_of(choice), call_of(choice), contextlib.nullcontext()) for choice in tiles]

    def fastest(self, case, calls):
        """The call that takes least time; a tile shape that does not fit is left out."""
        if len(calls) == 1:
            return calls
        timed = []
        for way in calls:
            try:
                timed.append((self.time_ms(case, way[1]), way))
            except Exception as error:  # PyTorch raises many types, its own and Triton's
                print(f"# {way[0]}: {case.key()}: {first_line(error)}", file=sys.stderr)
        if not timed:
            fail(f"FlexAttention can run no tiles for {case.key()}")
        return [min(timed, key=lambda entry: entry[0])[1]]

    def measure(self, case, mask):
        """(name, ms, error) of each way of PyTorch that can do this"""
        calls = self.dense_calls(case) if mask is None else self.fastest(case, self.flex_calls(case, mask))
        results = []
        for name, call, context in calls:
            try:
                with context:
                    error = self.row_error(case, mask, call)
                    results.append((name, self.time_ms(case, call), error))
            except RuntimeError as problem:
                print(f"# {name}: {case.key()}: {first_line(problem)}", file=sys.stderr)
                self.unable += 1
        return results


# ------------------------------------------------------------------------------------------------------------ table

COLUMNS = ("group", "case", "seq", "heads", "head_dim", "block", "causal", "torch", "ours_ms", "torch_ms", "torch_over_ours",
           "ours_tflops", "torch_tflops", "drift", "torch_error", "right")


def print_head():
    print(f"{'# group':8} {'case':14} {'N':>6} {'H':>3} {'D':>4} {'B':>4} {'c':>2} {'torch':17} {'ours ms':>9} {'torch ms':>9} "
          f"{'torch/ours':>10} {'ours TF/s':>9} {'torch TF/s':>10} {'drift':>6} {'error':>8}")


def print_row(row):
    print(f"{row['group']:8} {row['case'].replace(' ', '_'):14} {row['seq']:>6} {row['heads']:>3} {row['head_dim']:>4} "
          f"{row['block']:>4} {'c' if row['causal'] else '-':>2} {row['torch'].replace(' ', '_'):17} {row['ours_ms']:9.4f} "
          f"{row['torch_ms']:9.4f} {row['torch_over_ours']:10.2f} {row['ours_tflops']:9.1f} {row['torch_tflops']:10.1f} "
          f"{row['drift']:6.3f} {row['torch_error']:8.1e}{'' if row['right'] else ' WRONG'}", flush=True)


def compare_group(side, group, seqs, mask_dir):
    """@return rows of the table"""
    arguments = side.arguments
    before = run_ours(arguments, group, seqs, mask_dir)
    measured = []
    for case in before:
        mask = block_mask_of(side.torch, case, mask_dir)
        flops = flops_of(case, mask)
        # attend_gpu counted its own pairs; the rate it writes has two decimals.
        theirs = case.tflops * case.ms * 1e9
        if abs(theirs / flops - 1) > 1e-3 + 0.01 / max(case.tflops, 0.01):
            fail(f"{case.key()}: attend_gpu counts {theirs:.6g} operations and the mask here {flops:.6g}: they differ")
        measured.append((flops, side.measure(case, mask)))
    # What PyTorch holds may be what attend_gpu needs.
    side.shape, side.sets = None, []
    side.torch.cuda.empty_cache()
    after = {case.key(): case for case in run_ours(arguments, group, seqs, mask_dir)}
    rows = []
    for case, (flops, results) in zip(before, measured):
        again = after[case.key()]
        ours_ms = (case.ms + again.ms) / 2
        for name, torch_ms, error in results:
            rows.append(dict(zip(COLUMNS, (
                group, case.name, case.seq, case.heads, case.head_dim, case.block, int(case.causal), name, ours_ms, torch_ms,
                torch_ms / ours_ms, flops / ours_ms * 1e-9, flops / torch_ms * 1e-9, again.ms / case.ms, error,
                int(case.right and again.right and error <= ROW_BOUND)))))
    return rows


def report(rows, path):
    for way in sorted({(row["group"], row["torch"].split()[0]) for row in rows}):
        ratios = [row["torch_over_ours"] for row in rows if (row["group"], row["torch"].split()[0]) == way]
        print(f"# {way[0]} {way[1]}: torch/ours {min(ratios):.2f} to {max(ratios):.2f}, "
              f"geometric mean {statistics.geometric_mean(ratios):.2f} of {len(ratios)}")
    if path:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def parse_arguments():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    program = os.path.join(root, "build", "bench", "attend_gpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=group_list, default=list(GROUPS), help="of dense, flex, presets (default: all)")
    parser.add_argument("--seq", type=size_list, help="lengths, of those that a group has (default: all of these)")
    parser.add_argument("--attend-gpu", default=program, metavar="PATH", help=f"the benchmark (default: {program})")
    parser.add_argument("--kernel", help="our kernel, as attend_gpu names it (default: the fastest)")
    parser.add_argument("--repeats", type=int, default=25, help="samples, 20 or more (default: 25)")
    parser.add_argument("--tune", action="store_true", help="FlexAttention: the fastest of several tile shapes; takes longer")
    parser.add_argument("--graph", action="store_true", help="replay PyTorch's calls from a CUDA graph")
    parser.add_argument("--csv", metavar="FILE", help="write the table here too")
    arguments = parser.parse_args()
    if arguments.repeats < 20:
        parser.error(f"--repeats {arguments.repeats}: 20 or more are expected")
    return arguments


def main():
    arguments = parse_arguments()
    try:
        import torch
    except ImportError as error:
        skip(f"PyTorch cannot be imported: {error}")
    if not torch.cuda.is_available():
        skip("PyTorch finds no GPU")
    if not os.access(arguments.attend_gpu, os.X_OK):
        skip(f"{arguments.attend_gpu} is not there: build it, or say where it is with --attend-gpu")
    torch.manual_seed(1)
    print(f"# {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, "
          f"bf16, {arguments.repeats} repeats")
    side = Torch(torch, arguments)
    rows = []
    empty = False
    print_head()
    for group in arguments.groups:
        seqs = [seq for seq in SEQS[group] if arguments.seq is None or seq in arguments.seq]
        if not seqs:
            print(f"# {group}: no case of these lengths")
            continue
        with tempfile.TemporaryDirectory() as mask_dir, torch.no_grad():
            group_rows = compare_group(side, group, seqs, mask_dir)
        for row in group_rows:
            print_row(row)
        rows += group_rows
        empty = empty or not group_rows
    if rows:
        report(rows, arguments.csv)
    wrong = sum(not row["right"] for row in rows)
    print(f"# {len(rows)} comparisons, {wrong} wrong, {side.unable} that PyTorch could not run")
    sys.exit(1 if wrong or empty else 0)


if __name__ == "__main__":
    main()
