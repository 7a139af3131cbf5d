#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where values come from: command line, environment, file, default."""
import re
import unittest

from command import FILE, INPUT, SMALL, CommandTest


class Precedence(CommandTest):
    def config(self, text, name="x.conf"):
        path = self.work / name
        path.write_text(text)
        return path

    def shown(self, *arguments, **options):
        """--show-config as name -> (value, the rest of the line)."""
        stdout = self.ring("run", "--show-config", *arguments, **options).stdout
        found = {}
        for line in stdout.splitlines():
            match = re.match(r"\s*([a-z-]+)\s*=?\s+(\S+)\s*(.*)$", line)
            if match:
                found[match[1]] = (match[2], match[3])
        return found

    def test_each_origin(self):
        path = self.config("[problem]\nseq = 3K\nheads = 3\nbatch = 3\n")
        shown = self.shown("--config", path, "--seq", "1K", env={"BSATTN_SEQ": "2K", "BSATTN_HEADS": "2"})
        self.assertEqual(shown["seq"][0], "1K", shown)
        self.assertEqual(shown["heads"][0], "2", shown)
        self.assertEqual(shown["batch"][0], "3", shown)
        self.assertEqual(shown["head-dim"][0], "64", shown)
        self.assertIn("BSATTN_HEADS", shown["heads"][1])
        self.assertIn("x.conf:4", shown["batch"][1])
        self.assertIn("default", shown["head-dim"][1])
        self.assertRegex(shown["seq"][1], "--seq|command line")

    def test_the_value_that_won_is_used(self):
        path = self.config("[problem]\nseq = 3K\nhead-dim = 32\n")
        record = self.record("run", "--config", path, *SMALL[2:4], "--seq", "500", "-n", "1", "-w", "0",
                             env={"BSATTN_SEQ": "2K", "BSATTN_BLOCK": "32"})
        self.assertEqual(record["problem"]["seq_len"], 500)
        self.assertEqual(record["problem"]["block"], 32)
        self.assertEqual(record["problem"]["head_dim"], 32)

    def test_config_from_the_environment(self):
        path = self.config("[problem]\nseq = 3K\n")
        self.assertEqual(self.shown(env={"BSATTN_CONFIG": str(path)})["seq"][0], "3K")

    def test_a_pattern_on_the_command_line_beats_a_preset_in_the_file(self):
        path = self.config("[problem]\npreset = dense\n")
        record = self.record("run", *SMALL, "--config", path, "--pattern", "local(window=128)")
        self.assertEqual(record["problem"]["pattern"], "local(window=128)")

    def test_bad_files(self):
        for text, words in [
            ("[problem]\nsek = 3K\n", ["x.conf:2", "sek", "seq"]),
            ("[problm]\nseq = 3K\n", ["x.conf:2", "problm"]),
            ("[ring]\nseq = 3K\n", ["x.conf:2", "problem"]),
            ("[problem]\nseq = 3K\nseq = 4K\n", ["x.conf:3", "seq"]),
            ("[problem]\nseq 3K\n", ["x.conf:2"]),
            ("[problem]\nseq = many\n", ["x.conf:2", "many"]),
        ]:
            with self.subTest(text):
                self.refuse(INPUT, words, "run", "--config", self.config(text))

    def test_missing_file(self):
        self.refuse(FILE, ["nowhere.conf"], "run", "--config", "nowhere.conf")


if __name__ == "__main__":
    unittest.main()
