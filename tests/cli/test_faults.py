#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ranks that disagree, stall or die, launches that went wrong, too little memory: a message, an exit code, no hang."""
import os
import pathlib
import signal
import subprocess
import time
import unittest

from command import (COMMAND, ENVIRONMENT, FILE, INPUT, MEMORY, MPIEXEC, NUMPROC_FLAG, SMALL, TIMEOUT, CommandTest, environment,
                     launcher)

ENDLESS = ["run", "--seq", "4K", "--heads", "2", "-n", "1000000", "-w", "0"]


def ranks_of(launcher_pid):
    """rank -> process id of the command's processes below a launcher."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = os.path.basename((folder / "cmdline").read_bytes().split(b"\0")[0].decode())
            variables = dict(entry.partition("=")[::2] for entry in (folder / "environ").read_bytes().decode().split("\0"))
        except (OSError, ValueError, IndexError):
            continue
        grandparent = pathlib.Path(f"/proc/{parent}/stat")
        ancestors = {parent}
        try:
            ancestors.add(int(grandparent.read_text().rpartition(")")[2].split()[1]))
        except (OSError, ValueError):
            pass
        rank = variables.get("PMIX_RANK", variables.get("OMPI_COMM_WORLD_RANK", variables.get("PMI_RANK")))
        if launcher_pid in ancestors and name == os.path.basename(COMMAND) and rank is not None:
            found[int(rank)] = int(folder.name)
    return found


class Disagreement(CommandTest):
    def test_one_rank_with_another_configuration(self):
        here = [MPIEXEC, NUMPROC_FLAG]
        done = self.launch([*here, "2", COMMAND, "run", *SMALL[2:], ":", NUMPROC_FLAG, "1", "env", "BSATTN_SEQ=128", COMMAND, "run",
                            *SMALL[2:]])
        self.assertEqual(done.returncode, INPUT, done.told)
        self.assertIn("rank 2", done.stderr, done.told)
        self.assertIn("seq", done.stderr, done.told)

    def test_one_rank_with_a_bad_value(self):
        here = [MPIEXEC, NUMPROC_FLAG]
        done = self.launch([*here, "2", COMMAND, "run", *SMALL, ":", NUMPROC_FLAG, "1", "env", "BSATTN_BLOCK=48", COMMAND, "run", *SMALL])
        self.assertEqual(done.returncode, INPUT, done.told)
        self.assertIn("48", done.stderr, done.told)

    def test_one_rank_with_another_verb(self):
        for other in (["plan", "--seq", "1K"], ["--help"]):
            with self.subTest(other=other):
                done = self.launch([MPIEXEC, NUMPROC_FLAG, "1", COMMAND, "run", *SMALL, ":", NUMPROC_FLAG, "1", COMMAND, *other],
                                   timeout=60)
                self.assertEqual(done.returncode, INPUT, done.told)
                self.assertIn("rank 1", done.stderr, done.told)

    def test_ranks_of_different_speed(self):
        """Layouts are compared by the speed of the machine, and here ranks would choose different ones."""
        problem = ["run", "--backend", "cpu", "--seq", "4K", "--causal", "--pattern", "local(window=1024)", "--block", "64",
                   "--dtype", "f32", "--timeout", "20", "-n", "1", "-w", "0"]
        done = self.launch([MPIEXEC, NUMPROC_FLAG, "1", "env", "OMP_NUM_THREADS=1", COMMAND, *problem, ":", NUMPROC_FLAG, "1", "env",
                            "OMP_NUM_THREADS=2", COMMAND, *problem], timeout=60)
        self.assertEqual(done.returncode, 0, done.told)

    def test_ranks_of_different_need(self):
        """Exchanges are compared by what a rank holds, and here ranks would choose different ones."""
        problem = ["run", "--backend", "cpu", "--seq", "4K", "--layout", "contiguous", "--pattern", "local(window=384)", "--head-dim", "64",
                   "--dtype", "f32", "--timeout", "20", "-n", "1", "-w", "0"]
        for threads, exchange in ((("1", "32"), "ring"), (("32", "1"), "direct")):
            few, many = ([NUMPROC_FLAG, "2", "env", f"OMP_NUM_THREADS={count}", COMMAND, *problem] for count in threads)
            done = self.launch([MPIEXEC, *few, ":", *many], timeout=60)
            self.assertEqual(done.returncode, 0, done.told)
            self.assertIn(f"exchange {exchange},", done.stdout, done.told)

    def test_one_rank_without_the_kernels_asked_for(self):
        done = self.launch([MPIEXEC, NUMPROC_FLAG, "1", COMMAND, "run", *SMALL, ":", NUMPROC_FLAG, "1", "env", "BSATTN_ISA=none", COMMAND,
                            "run", *SMALL], timeout=60)
        self.assertEqual(done.returncode, INPUT, done.told)
        self.assertIn("BSATTN_ISA 'none'", done.stderr, done.told)

    def test_one_rank_with_another_folder(self):
        """Two names are one file where one of the ranks works."""
        for folder in ("0", "1"):
            (self.work / folder).mkdir()
        (self.work / "1" / "a.npy").touch()
        (self.work / "1" / "b.npy").symlink_to("a.npy")
        there = ["sh", "-c", 'cd "$0" && exec "$@"']
        files = [COMMAND, "run", *SMALL, "--out", "a.npy", "--lse", "b.npy", "--timeout", "20"]
        done = self.launch([MPIEXEC, NUMPROC_FLAG, "1", *there, "0", *files, ":", NUMPROC_FLAG, "1", *there, "1", *files], timeout=60)
        self.assertEqual(done.returncode, INPUT, done.told)
        self.assertIn("both want the file", done.stderr, done.told)

    def test_output_that_cannot_be_written(self):
        """Every rank ends with the exit code of the one that found out."""
        script = 'code=0; "$0" "$@" >/dev/full || code=$?; echo "exit code $code" >&2'
        shells = [MPIEXEC, NUMPROC_FLAG, "2", "sh", "-c"]
        failing = self.launch([*shells, f'{script}; exit "$code"', COMMAND, "run", *SMALL])
        self.assertEqual(failing.returncode, FILE, failing.told)
        # Shells that succeed: a launcher ends the others when the first fails, before they can tell.
        done = self.launch([*shells, script, COMMAND, "run", *SMALL])
        self.assertEqual(done.returncode, 0, done.told)
        self.assertEqual(done.stderr.count(f"exit code {FILE}"), 2, done.told)
        self.assertEqual(done.stderr.count("cannot write standard output"), 1, done.told)

    def test_singletons_by_mistake(self):
        self.refuse(ENVIRONMENT, ["singleton", "--mpi=pmix"], "run", *SMALL, env={"SLURM_NTASKS": "4", "SLURM_PROCID": "0"})

    def test_only_rank_0_complains_about_singletons(self):
        done = self.ring("run", *SMALL, expect=ENVIRONMENT, env={"SLURM_NTASKS": "4", "SLURM_PROCID": "3"})
        self.assertEqual(done.stderr.count("singleton"), 0, done.told)


class Faults(CommandTest):
    def start(self, *arguments, ranks=3):
        """Start an endless run and wait until every rank is up."""
        process = subprocess.Popen([str(word) for word in launcher(ranks) + list(arguments)], cwd=self.work, env=environment(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop, process)
        deadline = time.monotonic() + 30
        while len(ranks_of(process.pid)) < ranks:
            self.assertIsNone(process.poll(), "it ended by itself")
            self.assertLess(time.monotonic(), deadline, "the ranks did not start")
            time.sleep(0.1)
        time.sleep(2)
        return process, ranks_of(process.pid)

    def stop(self, process):
        for pid in [*ranks_of(process.pid).values(), process.pid]:
            for number in (signal.SIGCONT, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
        process.wait()
        process.stderr.close()

    def end(self, process, seconds):
        try:
            _, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.fail(f"still there after {seconds} s")
        return stderr

    def test_stalled_rank(self):
        process, pids = self.start(*ENDLESS, "--timeout", "3")
        os.kill(pids[1], signal.SIGSTOP)
        began = time.monotonic()
        stderr = self.end(process, 60)
        self.assertEqual(process.returncode, TIMEOUT, stderr)
        self.assertIn("rank 1", stderr)
        self.assertLess(time.monotonic() - began, 30)

    def test_stalled_rank_0(self):
        """The one that speaks for all is the one that does not: another does, alone."""
        process, pids = self.start(*ENDLESS, "--timeout", "3")
        os.kill(pids[0], signal.SIGSTOP)
        stderr = self.end(process, 60)
        self.assertEqual(process.returncode, TIMEOUT, stderr)
        self.assertEqual(stderr.count("no progress for"), 1, stderr)
        self.assertIn("no word from rank 0", stderr)

    def test_suspended_job(self):
        """A scheduler stops all ranks for longer than the deadline: none of them has waited meanwhile."""
        process, pids = self.start(*ENDLESS, "--timeout", "2")
        for number, seconds in ((signal.SIGSTOP, 4), (signal.SIGCONT, 6)):
            for pid in pids.values():
                os.kill(pid, number)
            time.sleep(seconds)
        self.assertIsNone(process.poll(), "it ended by itself")
        self.assertEqual(len(ranks_of(process.pid)), 3)

    def test_uneven_ranks(self):
        """Causal rows in order: the last of eight ranks has fifteen times the first one's work, for which that one waits."""
        done = self.ring("run", "--backend", "cpu", "--seq", "24K", "--heads", "4", "--pattern", "dense", "--causal", "--layout", "contiguous",
                         "--threads", "1", "--timeout", "0.2", "--check=off", "-n", "1", "-w", "0", ranks=8, timeout=120)
        self.assertIn("imbalance 1.8", done.stdout, done.told)

    def test_killed_rank(self):
        process, pids = self.start(*ENDLESS, "--timeout", "5")
        os.kill(pids[2], signal.SIGKILL)
        stderr = self.end(process, 60)
        self.assertNotEqual(process.returncode, 0, stderr)
        self.assertEqual(ranks_of(process.pid), {})

    def test_interrupted(self):
        process, _ = self.start(*ENDLESS, "--json", "x.json", "-o", "out.npy")
        process.send_signal(signal.SIGINT)
        self.end(process, 60)
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual([path.name for path in self.work.iterdir() if path.name.startswith("out.npy")], [])


class Memory(CommandTest):
    def test_too_long(self):
        for ranks in (0, 2):
            done = self.ring("run", "--seq", "1G", "--heads", "64", "--preset", "local", ranks=ranks, expect=MEMORY, timeout=300)
            self.assertRegex(done.stderr, r"\d")
            self.assertEqual(len([line for line in done.stderr.splitlines() if "memory" in line.lower()]), 1, done.told)

    def test_too_many_ranks_to_plan(self):
        done = self.ring("plan", "--ranks", "1000000", "--seq", "1K", expect=MEMORY)
        self.assertRegex(done.stderr, r"out of memory: .* needs .* TiB .* is available")

    def test_more_bytes_than_can_be_counted(self):
        self.refuse(INPUT, ["counted"], "plan", "--seq", "16K", "--batch", "1G", "--heads", "16", "--head-dim", "256", "--preset", "dense",
                    "--ranks", "64")


if __name__ == "__main__":
    unittest.main()
