#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's table of options is what `bsattn_ring help markdown` prints, the table of numbers in BENCHMARKS.md what
`bsattn_ring help columns` does. `test_readme.py --write COMMAND` puts them there."""
import re
import subprocess
import sys
import unittest

from command import SOURCE, CommandTest

README = SOURCE / "README.md"
TABLES = [
    (README, "options", "markdown"),
    (SOURCE / "BENCHMARKS.md", "columns", "columns"),
]


def place(name):
    return re.compile(rf"(?s)(<!-- {name}: begin[^\n]*-->\n).*?(<!-- {name}: end -->)")


class Readme(CommandTest):
    def test_tables(self):
        for path, name, topic in TABLES:
            with self.subTest(path=path.name):
                written = place(name).search(path.read_text())
                self.assertEqual(written.group(), written[1] + self.ring("help", topic).stdout + written[2])

    def test_exit_codes(self):
        readme = README.read_text()
        for code in re.findall(r"(?m)^  (\d+) ", self.ring("--help").stdout.partition("exit codes:")[2]):
            self.assertRegex(readme, rf"(?m)^\| {code} \|")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        for path, name, topic in TABLES:
            table = subprocess.run([sys.argv[2], "help", topic], check=True, capture_output=True, text=True).stdout
            path.write_text(place(name).sub(lambda at: at[1] + table + at[2], path.read_text()))
    else:
        unittest.main()
