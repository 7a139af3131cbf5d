#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare a library's symbols with the public header: symbols.py LIBRARY HEADER

Every function that the header declares is defined, and every external name of the library begins with bsattn_. Besides, an
archive holds what compilers name in their own way: nvcc the contents of a file's unnamed namespace, NVTX the weak functions of
its header.
"""
import pathlib
import re
import subprocess
import sys


ALLOWED = re.compile(r"bsattn_|__asan|__odr_asan|_init|_fini")
ALLOWED_IN_ARCHIVES = re.compile(r"_Z\w*_GLOBAL__N_|nvtx|InitializeInjectionNvtx")


def main(library, header):
    text = re.sub(r"/\*.*?\*/", " ", pathlib.Path(header).read_text(), flags=re.S)
    declared = set(re.findall(r"BSATTN_API\b[^;(]*?\b(bsattn_\w+)\s*\(", text))
    shared = pathlib.Path(library).suffix != ".a"
    output = subprocess.run(["nm", "--extern-only", "--defined-only", "--format=posix"] + ["--dynamic"] * shared + [library],
                            check=True, capture_output=True, text=True).stdout
    defined = {line.split()[0] for line in output.splitlines() if len(line.split()) >= 2}
    problems = [f"declared in the header, not in the library: {name}" for name in sorted(declared - defined)]
    problems += [f"external name without the prefix bsattn_: {name}" for name in sorted(defined)
                 if not ALLOWED.match(name) and (shared or not ALLOWED_IN_ARCHIVES.match(name))]
    if shared:
        problems += [f"exported, not in the header: {name}" for name in sorted(defined - declared)
                     if name.startswith("bsattn_")]
    for problem in problems:
        print(problem)
    print(f"{len(declared)} functions declared, {len(problems)} problems")
    return 1 if problems or not declared else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
