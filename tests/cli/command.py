# SPDX-License-Identifier: Apache-2.0
"""Runs the command for the tests beside it. CTest sets RING_COMMAND, RING_MPIEXEC and RING_NUMPROC_FLAG."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy
except ImportError:
    print("skipped: python3 has no numpy (python3-numpy)")
    sys.exit(77)

COMMAND = os.environ.get("RING_COMMAND", "bsattn_ring")
MPIEXEC = os.environ.get("RING_MPIEXEC", "mpirun")
NUMPROC_FLAG = os.environ.get("RING_NUMPROC_FLAG", "-np")
SOURCE = pathlib.Path(__file__).resolve().parents[2]

OK, RESULT, INPUT, ENVIRONMENT, MEMORY, FILE, TIMEOUT = 0, 1, 2, 3, 4, 5, 124

# A problem that takes a moment.
SMALL = ["--seq", "1000", "--heads", "2", "--head-dim", "32", "-n", "1", "-w", "0"]


def launcher(ranks, command=()):
    """What starts the command on some ranks; 0: the command alone, without a launcher."""
    return [*([MPIEXEC, NUMPROC_FLAG, str(ranks)] if ranks else []), *(command or [COMMAND])]


def environment(**values):
    """This environment without what would steer the command or make it think that a launcher started it."""
    foreign = ("BSATTN_", "SLURM_", "PMI_", "PMIX_", "OMPI_COMM_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    clean.setdefault("OMP_NUM_THREADS", "1")
    return {**clean, **values}


class CommandTest(unittest.TestCase):
    """A test with a folder of its own and the command."""

    maxDiff = None

    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="bsattn_cli_"))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)

    def launch(self, arguments, env=None, timeout=120, **options):
        """Run a whole command line in the test's folder."""
        done = subprocess.run([str(argument) for argument in arguments], cwd=self.work, env=environment(**(env or {})),
                              timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
        done.told = f"{' '.join(map(str, arguments))}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ring(self, *arguments, ranks=0, expect=OK, **options):
        """Run the command and check its exit code."""
        done = self.launch(launcher(ranks) + list(arguments), **options)
        self.assertEqual(done.returncode, expect, done.told)
        return done

    def refuse(self, expect, words, *arguments, **options):
        """Run the command; it must exit with a code, say each of the words, and say it once."""
        done = self.ring(*arguments, expect=expect, **options)
        for word in words:
            self.assertIn(word, done.stderr, done.told)
        said = [line for line in done.stderr.splitlines() if words and words[0] in line]
        self.assertEqual(len(said), 1, f"the message does not stand on one line, once\n{done.told}")
        self.assertEqual([line for line in done.stdout.splitlines() if not line.startswith("#")], [], done.told)
        return done

    def record(self, *arguments, **options):
        """Run the command and return its record."""
        path = self.work / "record.json"
        self.ring(*arguments, "--json", path, **options)
        return json.loads(path.read_text())


def rows(stdout):
    """The data rows of a table, as words."""
    return [line.split() for line in stdout.splitlines() if line.strip() and not line.startswith("#")]
