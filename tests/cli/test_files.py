#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files in, files out, compared with an independent fp64 computation."""
import resource
import sys
import unittest

from command import FILE, INPUT, RESULT, SOURCE, CommandTest, numpy

sys.path.insert(0, str(SOURCE / "tests"))
import oracle  # noqa: E402

ORACLE = [sys.executable, SOURCE / "tests" / "oracle.py"]

# ranks (0: two virtual ranks), type, shape of q, key heads, block, options
ROUND_TRIPS = [
    (1, "f32", (1, 777, 4, 64), 4, 64, ["--pattern", "local(window=256)"]),
    (3, "f32", (1, 777, 4, 64), 4, 64, ["--pattern", "local(window=256)", "--layout", "contiguous"]),
    (3, "f32", (1, 1024, 2, 64), 1, 32, ["--pattern", "dilated(rates=1:2:4:8)", "--layout", "cyclic:2"]),
    (3, "f32", (2, 500, 4, 40), 2, 16, ["--pattern", "local(window=64)+global(tokens=16)", "--causal", "--layout", "zigzag"]),
    (3, "f16", (1, 640, 4, 64), 2, 64, ["--pattern", "hierarchical(levels=1:256/4:all)", "--causal"]),
    (3, "bf16", (640, 2, 128), 2, 128, ["--pattern", "dense"]),
    (1, "bf16", (300, 2, 16), 1, 16, ["--pattern", "strided(stride=3)", "--causal"]),
    (3, "f32", (300, 4, 32), 4, 32, ["--pattern", "0-1@local(window=64); 2@dense; 3@sink(tokens=32)"]),
    (0, "f32", (1, 600, 2, 64), 2, 64, ["--pattern", "local(window=128) | strided(stride=4)", "--layout", "cyclic"]),
    (3, "f32", (1, 400, 2, 64), 2, 64, ["--pattern", "dense", "--scale", "0.5", "--causal"]),
    (3, "f32", (1, 100, 2, 64), 2, 128, ["--pattern", "dense"]),
    (3, "f32", (1, 512, 2, 32), 2, 32, ["--pattern", "blocks(file=mask.npy)"]),
]


class Files(CommandTest):
    def save(self, name, shape, dtype="f32", seed=0):
        values = numpy.random.default_rng([seed, ord(name)]).standard_normal(shape).astype(numpy.float32)
        array = {"f32": lambda: values, "f16": lambda: values.astype(numpy.float16),
                 "bf16": lambda: oracle.f32_to_bf16(values)}[dtype]()
        numpy.save(self.work / f"{name}.npy", array)

    def save_all(self, shape=(1, 500, 2, 32), kv_heads=None, dtype="f32"):
        kv_shape = (*shape[:-2], kv_heads or shape[-2], shape[-1])
        for name, its in (("q", shape), ("k", kv_shape), ("v", kv_shape)):
            self.save(name, its, dtype)
        return ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy", "-n", "1", "-w", "0"]

    def leftovers(self):
        """Files that no test of this class put there."""
        return sorted(path.name for path in self.work.iterdir() if path.name not in ("q.npy", "k.npy", "v.npy", "mask.npy"))

    def test_round_trips(self):
        numpy.save(self.work / "mask.npy", numpy.random.default_rng(5).random((16, 16)) < 0.3)
        for ranks, dtype, shape, kv_heads, block, options in ROUND_TRIPS:
            with self.subTest(f"{ranks} {dtype} {shape} {' '.join(options)}"):
                files = self.save_all(shape, kv_heads, dtype)
                virtual = [] if ranks else ["--transport", "loop", "--ranks", "2"]
                self.ring("run", *files, "--block", block, *options, *virtual, "-o", "out.npy", "--lse", "lse.npy", ranks=ranks)
                kept = options[: options.index("--layout")] + options[options.index("--layout") + 2:] \
                    if "--layout" in options else options
                verdict = self.launch([*ORACLE, "--q", "q.npy", "--k", "k.npy", "--v", "v.npy", "--out", "out.npy", "--lse",
                                       "lse.npy", "--block", block, *kept])
                self.assertEqual(verdict.returncode, 0, verdict.told)
                self.assertEqual(self.leftovers(), ["lse.npy", "out.npy"])

    def test_mixed_types_are_computed_in_f32(self):
        files = self.save_all()
        self.save("k", (1, 500, 2, 32), "f16")
        self.assertEqual(self.record("run", *files)["problem"]["dtype"], "f32")

    def test_shapes_that_do_not_fit(self):
        files = self.save_all()
        for name, shape, words in [
            ("k", (1, 400, 2, 32), ["k.npy", "400"]),
            ("v", (1, 500, 2, 64), ["v.npy", "64"]),
            ("k", (2, 500, 2, 32), ["k.npy"]),
            ("q", (1, 500, 3, 32), ["k.npy", "divides the 3"]),
            ("q", (500, 32), ["q.npy"]),
        ]:
            with self.subTest(f"{name} {shape}"):
                self.save_all()
                self.save(name, shape)
                self.refuse(INPUT, words, "run", *files, "-o", "out.npy", ranks=2)
                self.assertEqual(self.leftovers(), [])

    def test_shape_options_that_contradict_the_files(self):
        self.refuse(INPUT, ["600", "500"], "run", *self.save_all(), "--seq", "600")

    def test_not_all_three(self):
        self.save_all()
        self.refuse(INPUT, ["k is missing"], "run", "--q", "q.npy")

    def test_wrong_type(self):
        files = self.save_all()
        numpy.save(self.work / "v.npy", numpy.zeros((1, 500, 2, 32)))
        self.refuse(INPUT, ["v.npy", "f8"], "run", *files)

    def test_fortran_order(self):
        files = self.save_all()
        numpy.save(self.work / "q.npy", numpy.asfortranarray(numpy.zeros((1, 500, 2, 32), numpy.float32)))
        self.refuse(INPUT, ["q.npy"], "run", *files)

    def test_missing_file(self):
        files = self.save_all()
        (self.work / "k.npy").unlink()
        for ranks in (0, 3):
            self.refuse(FILE, ["k.npy"], "run", *files, ranks=ranks)

    def test_truncated_file(self):
        files = self.save_all()
        whole = (self.work / "v.npy").read_bytes()
        for length in (0, 5, 60, len(whole) // 2, len(whole) - 1):
            with self.subTest(length):
                (self.work / "v.npy").write_bytes(whole[:length])
                self.refuse(FILE, ["v.npy"], "run", *files, "-o", "out.npy", ranks=2)
                self.assertEqual(self.leftovers(), [])

    def test_no_npy_file(self):
        files = self.save_all()
        (self.work / "k.npy").write_bytes(b"not an array" * 1000)
        self.assertIn("k.npy", self.launch([self_command(), "run", *files]).stderr)

    def test_output_that_cannot_be_written(self):
        (self.work / "folder").mkdir()
        for name in ("nowhere/out.npy", "folder"):
            for option in ("-o", "--lse"):
                with self.subTest(f"{option} {name}"):
                    self.refuse(FILE, [name], "run", "--seq", "500", "--heads", "2", option, name, ranks=2)
        self.assertEqual(self.leftovers(), ["folder"])
        self.assertEqual(list((self.work / "folder").iterdir()), [])

    def test_no_file_is_written_over_another(self):
        files = self.save_all()
        before = (self.work / "q.npy").read_bytes()
        for words, options in ((["out and lse"], ["--out", "x.npy", "--lse", "./x.npy"]),
                               (["out and json"], ["--out", "x.npy", "--json", f"../{self.work.name}/x.npy"]),
                               (["out and q"], ["--out", "./q.npy"]), (["json and k"], ["--json", "k.npy"])):
            with self.subTest(options=options):
                self.refuse(INPUT, words, "run", *files, *options)
        self.assertEqual((self.work / "q.npy").read_bytes(), before)
        self.assertEqual(self.leftovers(), [])

    def test_nan_never_passes(self):
        files = self.save_all()
        values = numpy.load(self.work / "q.npy")
        values[0, 3, 1, 2] = numpy.nan
        numpy.save(self.work / "q.npy", values)
        for check in ("--check=on", "--check=1", "--check=all"):
            with self.subTest(check=check):
                done = self.ring("run", *files, "--pattern", "dense", check, "--json", "r.json", expect=RESULT)
                self.assertIn("not finite", done.stderr, done.told)
                self.assertIn('"passed":false', (self.work / "r.json").read_text().replace(" ", ""))

    def test_output_that_does_not_fit(self):
        """A file system that refuses the second half of the file, by way of the limit on a file's size."""
        (self.work / "out.npy").write_text("what was there before")
        limit = 8 << 20
        done = self.ring("run", "--seq", "32K", "--heads", "2", "-n", "1", "-w", "0", "-o", "out.npy", expect=FILE,
                         restore_signals=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        self.assertIn("out.npy", done.stderr)
        self.assertEqual(self.leftovers(), ["out.npy"])
        self.assertEqual((self.work / "out.npy").read_text(), "what was there before")

    def test_synthetic_input_does_not_depend_on_the_ranks(self):
        for ranks in (1, 3):
            self.ring("run", "--seq", "777", "--heads", "2", "-n", "1", "-w", "0", "-o", f"out{ranks}.npy", ranks=ranks)
        one, three = (numpy.load(self.work / f"out{ranks}.npy") for ranks in (1, 3))
        self.assertEqual(one.shape, (1, 777, 2, 64))
        self.assertLess(abs(one - three).max(), 1e-5)


def self_command():
    """The command, for runs whose exit code is not fixed."""
    from command import COMMAND
    return COMMAND


if __name__ == "__main__":
    unittest.main()
