#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's table of options is what `bsattn_ring help markdown` prints. `test_readme.py --write COMMAND` puts it there."""
import re
import subprocess
import sys
import unittest

from command import SOURCE, CommandTest

README = SOURCE / "README.md"
PLACE = re.compile(r"(?s)(<!-- options: begin[^\n]*-->\n).*?(<!-- options: end -->)")


class Readme(CommandTest):
    def test_options(self):
        written = PLACE.search(README.read_text())
        self.assertEqual(written.group(), written[1] + self.ring("help", "markdown").stdout + written[2])

    def test_exit_codes(self):
        readme = README.read_text()
        for code in re.findall(r"(?m)^  (\d+) ", self.ring("--help").stdout.partition("exit codes:")[2]):
            self.assertRegex(readme, rf"(?m)^\| {code} \|")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        table = subprocess.run([sys.argv[2], "help", "markdown"], check=True, capture_output=True, text=True).stdout
        README.write_text(PLACE.sub(lambda at: at[1] + table + at[2], README.read_text()))
    else:
        unittest.main()
