#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks on the text of the sources: sources.py includes|banned|licence ROOT

includes  who may know whom: each part of src/ includes only the parts below it, and a foreign library's header appears only
          in the files whose name says so
banned    no unbounded or unchecked string functions
licence   every source names its licence
"""
import pathlib
import re
import sys

# Part -> the parts whose headers it may include, besides its own and bsattn.h.
MAY_INCLUDE = {
    "base": set(),
    "problem": {"base", "kernels/attend.h"},
    "kernels": {"base"},
    "backend": {"base", "problem", "kernels/attend.h", "kernels/attend_cuda.h"},
    "transport": {"base"},
    "place": {"base"},
    "io": {"base", "transport/mpi_job.h", "transport/mpi_rows.h"},  # ranks that share a file agree on what became of it
    "report": {"base", "problem"},
    "ring": {"base", "problem", "backend", "transport", "place", "kernels/attend.h", "kernels/reference.h"},
    "cli": {"base", "problem", "backend", "transport", "ring", "place", "io", "report"},
    "main.c": {"base", "cli"},
}

# Header of another part -> which files may include it besides, by their path: a transport between GPUs works on the streams
# of its rank's backend and moves rows with a kernel.
GPU_TRANSPORT = r"/transport/[^/]*(cuda|nccl)[^/]*$"
ALSO = {
    "backend/queue_cuda.h": GPU_TRANSPORT,
    "kernels/attend_cuda.h": GPU_TRANSPORT,
}

# Foreign header -> what the path of a file that includes it must match.
GPU = r"(cuda[^/]*|\.cuh?|/kernels/cuda/[^/]*)$"
FOREIGN = {
    "mpi.h": r"(^|[/_])mpi[^/]*$",
    "mpi-ext.h": r"(^|[/_])mpi[^/]*$",
    "cuda.h": GPU,
    "cuda_runtime.h": GPU,
    "cuda_runtime_api.h": GPU,
    "cuda_bf16.h": GPU,
    "cuda_fp16.h": GPU,
    "nvtx3/nvToolsExt.h": GPU,
    "nccl.h": r"nccl[^/]*$",
    "hwloc.h": r"/place/",
    "ini.h": r"/cli/config[^/]*$",
    "cjson/cJSON.h": r"/report/",
    "cJSON.h": r"/report/",
}

BANNED = {
    "sprintf": "snprintf", "vsprintf": "vsnprintf", "strcpy": "snprintf or memcpy", "strcat": "a bsattn_strbuf_t",
    "strncpy": "snprintf", "strncat": "a bsattn_strbuf_t", "stpcpy": "snprintf", "atoi": "strtoll, checked",
    "atol": "strtoll, checked", "atoll": "strtoll, checked", "atof": "strtod, checked", "strtok": "strspn and strcspn",
    "sscanf": "a parser that checks", "gets": "fgets", "alloca": "the plan's memory",
}

SOURCE_FOLDERS = ("src", "kernels", "tests", "bench", "cmake", "launch", ".ci")
SOURCE_SUFFIXES = (".c", ".h", ".cu", ".cuh", ".def", ".py", ".sh", ".cmake", ".in", ".sbatch")
NO_LICENCE_LINE = (".pc.in",)


def c_files(root):
    """The C and CUDA sources of the product itself."""
    for folder in ("src", "kernels"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".cu", ".cuh", ".def"):
                yield path


def code_only(text):
    """Blank out comments and literals, keeping the line numbers."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda match: re.sub(r"[^\n]", " ", match.group()), text, flags=re.S)


def part_of(path, root):
    """The part a file belongs to: a folder of src/, "kernels", or the file's own name."""
    parts = path.relative_to(root).parts
    return "kernels" if parts[0] == "kernels" else parts[1]


def check_includes(root):
    for path in c_files(root):
        part = part_of(path, root)
        if part == "bsattn.h":
            allowed = set()
        elif part in MAY_INCLUDE:
            allowed = MAY_INCLUDE[part] | {part}
        else:
            yield path, 1, f"part {part} is not in the table of {pathlib.Path(__file__).name}"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            quote, name = match.groups()
            if name in FOREIGN:
                if not re.search(FOREIGN[name], path.as_posix()):
                    yield path, number, f"{name} belongs only where the path matches {FOREIGN[name]}"
            elif quote == '"' and "/" in name:
                known = name.split("/")[0] in allowed or name in allowed
                if not known and not (name in ALSO and re.search(ALSO[name], path.as_posix())):
                    yield path, number, f"{part} may not know {name}; allowed: {', '.join(sorted(allowed))}"


def check_banned(root):
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
    for path in c_files(root):
        for number, line in enumerate(code_only(path.read_text()).splitlines(), 1):
            for match in pattern.finditer(line):
                yield path, number, f"{match.group(1)}() is not used here; take {BANNED[match.group(1)]}"


def check_licence(root):
    paths = [root / "CMakeLists.txt"]
    for folder in SOURCE_FOLDERS:
        paths += [path for path in sorted((root / folder).rglob("*")) if path.is_file()]
    for path in paths:
        named = path.name.endswith(SOURCE_SUFFIXES) and not path.name.endswith(NO_LICENCE_LINE)
        if not (named or path.name in ("CMakeLists.txt", "run")) or "__pycache__" in path.parts:
            continue
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in path.read_text().splitlines()[:3]):
            yield path, 1, "the first three lines do not say SPDX-License-Identifier: Apache-2.0"


CHECKS = {"includes": check_includes, "banned": check_banned, "licence": check_licence}


def main(arguments):
    if len(arguments) != 2 or arguments[0] not in CHECKS:
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(arguments[1]).resolve()
    count = 0
    for path, number, message in CHECKS[arguments[0]](root):
        print(f"{path.relative_to(root)}:{number}: {message}")
        count += 1
    print(f"{count} found")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
