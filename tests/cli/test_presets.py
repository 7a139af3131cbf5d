#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every preset and every example of the help."""
import re
import shlex
import unittest

from command import COMMAND, INPUT, SOURCE, CommandTest, launcher, numpy

# Presets whose terms this version cannot compute yet: refused, never replaced by something else.
NOT_YET = {"adaptive_standard", "longnet"}


class Presets(CommandTest):
    small = ["--seq", "5000", "--heads", "2", "-n", "1", "-w", "0", "--transport", "loop", "--ranks", "2"]

    def test_each(self):
        files = sorted((SOURCE / "configs").glob("*.conf"))
        self.assertGreaterEqual(len(files), 10)
        for path in files:
            for choice in (["--preset", path.stem], ["--config", path]):
                with self.subTest(" ".join(map(str, choice))):
                    if path.stem in NOT_YET:
                        self.refuse(INPUT, ["position", "not"], "run", *self.small, *choice)
                    else:
                        record = self.record("run", *self.small, *choice)
                        self.assertIs(record["check"]["passed"], True)


class Examples(CommandTest):
    def test_each(self):
        text = self.ring("--help").stdout
        examples = re.findall(r"(?m)^  (\S.*?)\s+# ", text[text.index("\nexamples:"):])
        self.assertGreaterEqual(len(examples), 8)
        for name in "qkv":
            shape = (1, 1024, 2, 32)
            numpy.save(self.work / f"{name}.npy", numpy.random.default_rng(ord(name)).standard_normal(shape, numpy.float32))
        for example in examples:
            with self.subTest(example):
                words = shlex.split(example)
                if words[0] == "mpirun":
                    self.assertEqual((words[1], words[3]), ("-np", "bsattn_ring"))
                    words = launcher(int(words[2])) + words[4:]
                else:
                    words[0] = COMMAND
                done = self.launch(words, timeout=300)
                self.assertEqual(done.returncode, 0, done.told)


if __name__ == "__main__":
    unittest.main()
