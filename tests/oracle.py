#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An independent fp64 oracle for bsattn_ring, in numpy, straight from the formulas of its specification.

Shares no code with the program. Knows every pattern term whose blocks follow from a formula or a file: dense, local, dilated,
strided, global, sink, hierarchical, blocks; unions with +, branches with | (a key in two branches counts twice), per head with
0-3@...;4-7@.... It does not know dilate(..):, adaptive, random and density=.

As a command it compares output files with its own result and prints one line,

    rows N error_out E error_lse E PASS|FAIL

with exit code 0 or 1 (2: it could not compare). As a module: attention(), block_multiplicity(), read_tensor().
"""

import argparse
import math
import re
import sys

import numpy as np

TOLERANCES = {"f32": (1e-5, 1e-4), "f16": (2e-3, 1e-2), "bf16": (1e-2, 1e-2)}  # of O and of LSE
SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class OracleError(Exception):
    pass


# ---------------------------------------------------------------------------------------------------------------- patterns


def split_outside(text, separator):
    """Split at a separator that is not inside parentheses."""
    parts, depth, start = [], 0, 0
    for at, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [part.strip() for part in parts]


def size_of(text):
    match = re.fullmatch(r"(\d+)([KMG]?)", text.strip().upper())
    if match is None:
        raise OracleError(f"'{text}' is no size")
    return int(match[1]) * SUFFIXES[match[2]]


def parse_term(text):
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", text, re.S)
    if match is None:
        raise OracleError(f"'{text}' is no term of a pattern")
    values = {}
    for item in split_outside(match[2], ",") if match[2] else []:
        key, equals, value = item.partition("=")
        if not equals:
            raise OracleError(f"'{item}' in '{text}' is no key=value")
        values[key.strip()] = value.strip()
    if "density" in values or match[1] in ("dilate", "adaptive", "random"):
        raise OracleError(f"the oracle does not know '{text}'")
    return match[1], values


def parse_branches(text):
    """A pattern as a list of branches, each a list of (name, values)."""
    return [[parse_term(term) for term in split_outside(branch, "+")] for branch in split_outside(text, "|")]


def parse_heads(text, heads):
    """The branches of each query head."""
    if "@" not in text:
        return [parse_branches(text)] * heads
    result = [None] * heads
    for part in split_outside(text, ";"):
        names, at, pattern = part.partition("@")
        if not at:
            raise OracleError(f"'{part}' has no heads before an @")
        branches = parse_branches(pattern)
        for name in names.split(","):
            first, dash, last = name.partition("-")
            for head in range(int(first), int(last if dash else first) + 1):
                if head >= heads or result[head] is not None:
                    raise OracleError(f"head {head} in '{part}' does not exist or has a pattern already")
                result[head] = branches
    if None in result:
        raise OracleError(f"head {result.index(None)} has no pattern")
    return result


def term_active(name, values, i, j, block, head, heads):
    """Which of the block pairs (i, j) a term makes active; i and j are index arrays that broadcast."""
    blocks = j.size
    ceil_blocks = lambda tokens: -(-tokens // block)
    nothing = np.zeros(np.broadcast_shapes(i.shape, j.shape), bool)
    if name == "dense":
        return ~nothing
    if name == "local":
        return abs(i - j) <= size_of(values["window"]) // (2 * block)
    if name == "dilated":
        active = i == j
        for rate in values["rates"].split(":"):
            active |= abs(j - i) == size_of(rate)
        return active
    if name == "strided":
        stride = size_of(values["stride"])
        return j % stride == i % stride
    if name == "global":
        count = ceil_blocks(size_of(values["tokens"]))
        return (i < count) | (j < count)
    if name == "sink":
        return nothing | (j < ceil_blocks(size_of(values["tokens"])))
    if name == "hierarchical":
        orient = values.get("orient", "cols")
        if orient not in ("cols", "rows"):
            raise OracleError(f"orient={orient}")
        active = nothing
        for level in values["levels"].split("/"):
            step, _, window = level.partition(":")
            near = ~nothing if window == "all" else abs(i - j) <= size_of(window) // (2 * block)
            active = active | (near & ((j if orient == "cols" else i) % size_of(step) == 0))
        return active
    if name == "blocks":
        mask = np.load(values["file"])
        if mask.dtype != bool or mask.shape not in ((blocks, blocks), (heads, blocks, blocks)):
            raise OracleError(f"{values['file']}: {mask.dtype} {mask.shape}, {blocks} blocks and {heads} heads")
        return mask if mask.ndim == 2 else mask[head]
    raise OracleError(f"the oracle does not know the term '{name}'")


def block_multiplicity(branches, blocks, block, head=0, heads=1):
    """[blocks, blocks]: in how many branches each block pair is active, before causality."""
    i, j = np.arange(blocks)[:, None], np.arange(blocks)[None, :]
    multiplicity = np.zeros((blocks, blocks), np.int8)
    for branch in branches:
        union = np.zeros((blocks, blocks), bool)
        for name, values in branch:
            try:
                union |= term_active(name, values, i, j, block, head, heads)
            except KeyError as missing:
                raise OracleError(f"{name} needs {missing}") from missing
        multiplicity += union
    return multiplicity


# --------------------------------------------------------------------------------------------------------------- attention


def attend_block(q, k, v, multiplicity, tokens_q, tokens_k, causal, scale):
    """Rows of one query block on its active keys: (o [rows, D], lse [rows]); multiplicity [keys]."""
    weights = np.broadcast_to(multiplicity.astype(np.float64), (len(tokens_q), len(tokens_k)))
    if causal:
        weights = np.where(tokens_k[None, :] <= tokens_q[:, None], weights, 0.0)
    scores = np.where(weights > 0, scale * (q @ k.T), -np.inf)
    largest = scores.max(axis=1, initial=-np.inf)
    some = np.isfinite(largest)
    p = weights * np.exp(scores - np.where(some, largest, 0.0)[:, None])
    total = p.sum(axis=1)
    o = (p @ v) / np.where(some, total, 1.0)[:, None]
    lse = np.where(some, largest + np.log(np.where(some, total, 1.0)), -np.inf)
    return o, lse


def attend_head(q, k, v, multiplicity, block, causal, scale):
    """One head: q, k, v [N, D]; multiplicity [blocks, blocks] -> o [N, D], lse [N]."""
    tokens = np.arange(len(q))
    o, lse = np.zeros(q.shape), np.full(len(q), -np.inf)
    for i in range(len(multiplicity)):
        rows = tokens[i * block : (i + 1) * block]
        per_token = np.repeat(multiplicity[i], block)[: len(tokens)]
        keys = tokens[per_token > 0]
        if causal:
            keys = keys[keys <= rows[-1]]
        if len(keys):
            o[rows], lse[rows] = attend_block(
                q[rows], k[keys], v[keys], per_token[keys], rows, keys, causal, scale
            )
    return o, lse


def attention_heads(q, k, v, block, pattern, causal=False, scale=None):
    """Yields (batch, head, o [N, D], lse [N]) in fp64, for q [b, N, Hq, D] and k, v [b, N, Hk, D]."""
    batch, seq_len, heads, head_dim = q.shape
    group = heads // k.shape[2]
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    blocks = -(-seq_len // block)
    per_head = parse_heads(pattern, heads)
    for h in range(heads):
        multiplicity = block_multiplicity(per_head[h], blocks, block, h, heads)
        for b in range(batch):
            tensors = (tensor.astype(np.float64) for tensor in (q[b, :, h], k[b, :, h // group], v[b, :, h // group]))
            yield b, h, *attend_head(*tensors, multiplicity, block, causal, scale)


def attention(q, k, v, block, pattern, causal=False, scale=None):
    """(o [b, N, Hq, D], lse [b, Hq, N]) in fp64."""
    o = np.zeros(q.shape)
    lse = np.zeros((q.shape[0], q.shape[2], q.shape[1]))
    for b, h, o_head, lse_head in attention_heads(q, k, v, block, pattern, causal, scale):
        o[b, :, h], lse[b, h] = o_head, lse_head
    return o, lse


# ------------------------------------------------------------------------------------------------------------------- files


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values):
    """Round to nearest even; for finite values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def read_tensor(path):
    """(fp32 array [b, N, H, D], the file's type, whether the file has a batch dimension)"""
    array = np.load(path)
    dtype = {"<f4": "f32", "<f2": "f16", "<u2": "bf16", "|V2": "bf16"}.get(array.dtype.str)
    if dtype is None or array.ndim not in (3, 4):
        raise OracleError(f"{path}: {array.dtype.str} {array.shape} is no input of bsattn_ring")
    values = bf16_to_f32(array.view("<u2")) if dtype == "bf16" else array.astype(np.float32)
    return values if array.ndim == 4 else values[None], dtype, array.ndim == 4


def round_to(values, dtype):
    if dtype == "bf16":
        return bf16_to_f32(f32_to_bf16(values))
    return values.astype(np.float16).astype(np.float32) if dtype == "f16" else values


def read_result(path, shape, what):
    array = np.load(path, mmap_mode="r")
    if array.dtype.str != "<f4" or array.shape != shape:
        raise OracleError(f"{path}: {what} is {array.dtype.str} {array.shape}, <f4 {shape} is expected")
    return array


def lse_error(got, want):
    """Largest difference; equal infinities agree, anything else that is not finite does not."""
    with np.errstate(invalid="ignore"):
        difference = np.where(got == want, 0.0, np.abs(got - want))
    return float(np.where(np.isnan(difference), np.inf, difference).max())


def compare(arguments):
    (q, type_q, batched), (k, type_k, _), (v, type_v, _) = (
        read_tensor(path) for path in (arguments.q, arguments.k, arguments.v)
    )
    dtype = arguments.dtype
    if dtype == "auto":
        dtype = type_q if type_q == type_k == type_v else "f32"
    q, k, v = (round_to(tensor, dtype) for tensor in (q, k, v))
    if k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3] or q.shape[2] % k.shape[2]:
        raise OracleError(f"shapes {q.shape}, {k.shape}, {v.shape} do not fit")
    batch, seq_len, heads, _ = q.shape
    o = read_result(arguments.out, q.shape if batched else q.shape[1:], "O")
    o = o if batched else o[None]
    lse = None
    if arguments.lse:
        lse = read_result(arguments.lse, (batch, heads, seq_len) if batched else (heads, seq_len), "LSE")
        lse = lse if batched else lse[None]

    error, norm, worst_lse = 0.0, 0.0, 0.0
    for b, h, o_want, lse_want in attention_heads(
        q, k, v, arguments.block, arguments.pattern, arguments.causal, arguments.scale
    ):
        error += float(((o[b, :, h].astype(np.float64) - o_want) ** 2).sum())
        norm += float((o_want**2).sum())
        if lse is not None:
            worst_lse = max(worst_lse, lse_error(lse[b, h].astype(np.float64), lse_want))
    # Nothing active anywhere: any output but zero is infinitely wrong, 0 / 0 is right.
    error_out = math.sqrt(error / norm) if norm > 0 else (0.0 if error == 0 else math.inf)
    limit_out, limit_lse = TOLERANCES[dtype]
    passed = error_out <= limit_out and worst_lse <= limit_lse  # NaN compares false
    verdict = "PASS" if passed else "FAIL"
    print(f"rows {batch * seq_len * heads} error_out {error_out:.3e} error_lse {worst_lse:.3e} {verdict}")
    return 0 if passed else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("q", "k", "v", "out"):
        parser.add_argument("--" + name, required=True, metavar="FILE.npy")
    parser.add_argument("--lse", metavar="FILE.npy", help="without it LSE is not compared")
    parser.add_argument("--block", type=int, required=True)
    parser.add_argument("--pattern", required=True)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--scale", type=float)
    parser.add_argument("--dtype", choices=("auto", *TOLERANCES), default="auto", help="of the run: inputs are rounded to it")
    try:
        sys.exit(compare(parser.parse_args()))
    except (OracleError, OSError, ValueError) as error:
        print(f"oracle: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
