#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Add up CTest's JUnit reports: test_summary.py NAME=FILE..

Prints each failed test, each skipped one with the last line it said, and closes with "N passed, N failed, N skipped".
Exits 1 if a test failed, a report is missing or no test ran.
"""
import sys
import xml.etree.ElementTree


def last_line(case):
    """The last line of a test's output that says something."""
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines()]
    return next((line for line in reversed(lines) if line), "no reason given")


def main(arguments):
    passed, failed, skipped = 0, [], []
    for argument in arguments:
        build, _, path = argument.partition("=")
        try:
            cases = xml.etree.ElementTree.parse(path).getroot().iter("testcase")
        except (OSError, xml.etree.ElementTree.ParseError) as error:
            failed.append(f"{build}: no report: {error}")
            continue
        for case in cases:
            name = f"{build}: {case.get('name')}"
            if case.get("status") == "run":
                passed += 1
            elif case.find("skipped") is not None:
                skipped.append(f"{name}: {last_line(case)}")
            else:
                failed.append(name)
    for title, names in (("failed", failed), ("skipped", skipped)):
        for name in names:
            print(f"{title}  {name}")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
