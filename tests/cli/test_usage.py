#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the command says to a wrong command line, and its help."""
import unittest

from command import INPUT, SMALL, CommandTest

# What is given, and words of the answer; the first word stands on the one line of the message.
REFUSED = [
    (["--sec", "4K"], ["--sec", "--seq"]),
    (["run", "--heds=4"], ["--heds", "--heads"]),
    (["rnu"], ["rnu", "run"]),
    (["run", "-Z"], ["-Z"]),
    (["run", "extra"], ["extra"]),
    (["run", "--seq"], ["--seq", "value"]),
    (["run", "--seq", "0"], ["seq", "0", "from 1 to"]),
    (["run", "--seq", "-5"], ["seq", "-5"]),
    (["run", "--seq", "12Q"], ["seq", "12Q"]),
    (["run", "--seq", "99999999999999999999"], ["seq", "99999999999999999999"]),
    (["run", "--head-dim", "20"], ["20", "multiple of 8"]),
    (["run", "--head-dim", "264"], ["264", "256"]),
    (["run", "--heads", "6", "--kv-heads", "4"], ["4", "6", "divi"]),
    (["run", "--dtype", "f64"], ["f64", "bf16"]),
    (["run", "--block", "48"], ["48", "64"]),
    (["run", "--preset", "lokal"], ["lokal", "local"]),
    (["run", "--layout", "cyclic:0"], ["cyclic:0"]),
    (["run", "--layout", "zickzack"], ["zickzack", "zigzag"]),
    (["run", "--exchange", "rings"], ["rings", "auto, ring, direct"]),
    (["run", "--transport", "tcp"], ["tcp", "loop"]),
    (["run", "--backend", "tpu"], ["tpu", "cpu"]),
    (["run", "--bind", "of"], ["bind", "of", "auto, off"]),
    (["run", "--causal=maybe"], ["maybe", "on"]),
    (["run", "--check=-1"], ["-1"]),
    (["run", "--timeout", "nan"], ["nan"]),
    (["run", "--scale", "inf"], ["inf"]),
    (["run", "--scale", "1e39"], ["scale 1e+39", "fp32"]),
    (["run", "-n", "0"], ["iters", "0", "1 to 1000000"]),
    (["run", "-n", "2000000"], ["iters", "2000000", "1 to 1000000"]),
    (["plan", "--out", "x.npy"], ["--out", "plan", "run"]),
    (["run", "--pattern", ""], ["pattern"]),
]

# A pattern, and the place (counted from 1) that the answer names.
PATTERNS = [
    ("locl(window=256)", 1),
    ("local(windw=256)", 7),
    ("local(window=abc)", 14),
    ("local(window=256", 17),
    ("local(window=256)+", 19),
    ("local(window=256)++global(tokens=64)", 19),
    ("dense extra", 7),
    ("dense |", 8),
]


class Refusals(CommandTest):
    def test_bad_options(self):
        for arguments, words in REFUSED:
            with self.subTest(" ".join(arguments)):
                self.refuse(INPUT, words, *arguments)

    def test_bad_patterns_name_the_position(self):
        for pattern, position in PATTERNS:
            with self.subTest(pattern):
                self.refuse(INPUT, [f"position {position}"], "run", *SMALL, "--pattern", pattern)

    def test_unknown_variable(self):
        self.refuse(INPUT, ["BSATTN_SEK", "BSATTN_SEQ"], "run", env={"BSATTN_SEK": "4K"})

    def test_bad_variable_names_its_origin(self):
        self.refuse(INPUT, ["BSATTN_SEQ", "12Q"], "run", env={"BSATTN_SEQ": "12Q"})

    def test_ranks_that_contradict_the_launch(self):
        self.refuse(INPUT, ["ranks"], "run", *SMALL, "--transport", "mpi", "--ranks", "5", ranks=2)

    def test_one_process_speaks_whatever_its_launcher_called_it(self):
        task = {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "SLURM_STEP_ID": "0"}
        record = self.record("run", *SMALL, "--transport", "loop", "--ranks", "2", env=task)
        self.assertEqual(record["status"], "ok")
        done = self.ring("run", "--seq", "0", expect=INPUT, env={"PMIX_RANK": "1"})
        self.assertIn("seq", done.stderr, done.told)

    def test_one_message_from_all_ranks(self):
        done = self.refuse(INPUT, ["head-dim"], "run", "--head-dim", "20", ranks=3)
        self.assertEqual(done.stderr.count("head-dim"), 1, done.told)


class Help(CommandTest):
    def test_version(self):
        self.assertRegex(self.ring("--version").stdout, r"\d+\.\d+\.\d+")
        self.assertEqual(self.ring("-V").stdout, self.ring("--version").stdout)

    def test_help_of_everything(self):
        whole = self.ring("--help").stdout
        for verb in ("run", "plan", "verify", "mask", "info"):
            self.assertRegex(whole, rf"(?m)^  {verb}\b")
            for one in (self.ring(verb, "--help"), self.ring("help", verb)):
                self.assertIn(f"usage: bsattn_ring {verb}", one.stdout)
        self.assertEqual(self.ring("--help", "-v").stdout, whole)
        for code in ("0", "1", "2", "3", "4", "5", "124"):
            self.assertRegex(whole, rf"(?m)^  {code} ")
        self.assertLessEqual(max(map(len, whole.splitlines())), 132)

    def test_markdown_and_man(self):
        for line in self.ring("help", "markdown").stdout.splitlines():
            if line:
                self.assertEqual(line.replace("\\|", "").count("|"), 5, line)
        self.assertTrue(self.ring("help", "man").stdout.startswith(".TH BSATTN_RING 1"))

    def test_unknown_topic(self):
        self.refuse(INPUT, ["rnu", "run"], "help", "rnu")


if __name__ == "__main__":
    unittest.main()
