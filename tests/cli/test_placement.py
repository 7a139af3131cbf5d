#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ranks and their cores: what --bind does, what it leaves alone, and what is said of it."""
import json
import os
import pathlib
import shutil
import subprocess
import unittest

from command import COMMAND, MPIEXEC, NUMPROC_FLAG, SMALL, CommandTest, launcher

CPUS = os.sched_getaffinity(0)
RUN = ["run", *SMALL, "--backend", "cpu"]
FOREIGN = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def count_cores():
    """Cores among the processors of this process; threads of one core are one."""
    path = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({pathlib.Path(path.format(cpu)).read_text() for cpu in CPUS})


def cpus_of(entry):
    """The processors of a rank, "0-3,8", as a set."""
    ranges = [part.split("-") for part in entry["cpus"].split(",")]
    return {cpu for part in ranges for cpu in range(int(part[0]), int(part[-1]) + 1)}


def is_open_mpi():
    told = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True, check=False).stdout
    return "Open MPI" in told or "OpenRTE" in told or "PRRTE" in told


class Placement(CommandTest):
    def setUp(self):
        super().setUp()
        info = self.work / "info.json"
        self.ring("info", "--json", info)
        self.info = json.loads(info.read_text())
        self.library = self.info["build"]["hwloc"]

    def need_hwloc(self, processors=1):
        if "not in this build" in self.library:
            self.skipTest(self.library)
        if len(CPUS) < processors:
            self.skipTest(f"takes {processors} processors")

    def started(self, *words):
        """Run a whole command line, without OMP_NUM_THREADS and what else would bind, and return its record."""
        unset = [word for name in ("OMP_NUM_THREADS", *FOREIGN) for word in ("-u", name)]
        path = self.work / "record.json"
        done = self.launch(["env", *unset, *words, "--json", path])
        self.assertEqual(done.returncode, 0, done.told)
        record = json.loads(path.read_text())
        record["told"] = done.told
        return record

    def check_all(self, record, cpus, decided):
        for entry in record["placement"]:
            self.assertEqual(cpus_of(entry), cpus, record["told"])
            self.assertEqual(entry["decided"].partition("; ")[2], decided, record["told"])

    def test_off(self):
        record = self.started(*launcher(2), *RUN, "--bind", "off")
        self.check_all(record, CPUS, "cores as launched")
        self.assertEqual(record["job"]["threads"], max(1, len(CPUS) // 2))
        self.assertIn("# placement  rank 0: local rank 0 of 2; cores as launched\n", record["told"])

    def test_by_the_environment(self):
        record = self.started("BSATTN_BIND=off", *launcher(2), *RUN)
        self.check_all(record, CPUS, "cores as launched")

    def test_cores_are_divided(self):
        self.need_hwloc()
        if count_cores() < 2:
            self.skipTest("takes 2 cores")
        record = self.started(*launcher(2), *RUN)
        first, second = map(cpus_of, record["placement"])
        self.assertEqual(first | second, CPUS, record["told"])
        self.assertEqual(first & second, set(), record["told"])
        self.assertEqual(record["job"]["threads"], len(first))
        for rank, entry in enumerate(record["placement"]):
            self.assertRegex(entry["decided"], rf"^local rank {rank} of 2; \d+ cores?$")

    def test_more_ranks_than_cores(self):
        self.need_hwloc()
        cores = count_cores()
        if cores > 8:
            self.skipTest(f"takes {cores + 1} ranks")
        record = self.started(*launcher(cores + 1), *RUN)
        self.check_all(record, CPUS, f"cores not bound: {cores + 1} ranks, {cores} core{'s' if cores > 1 else ''}")

    def test_more_threads_than_cores(self):
        self.need_hwloc(2)
        cores, threads = count_cores(), len(CPUS)
        record = self.started(*launcher(2), *RUN, "--threads", threads)
        self.check_all(record, CPUS, f"cores not bound: 2 ranks of {threads} threads, {cores} core{'s' if cores > 1 else ''}")

    def test_a_binding_of_the_launcher_stays(self):
        self.need_hwloc(2)
        if shutil.which("taskset") is None:
            self.skipTest("taskset is not there")
        cpu = max(CPUS)
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                record = self.started("taskset", "-c", cpu, *launcher(ranks), *RUN)
                self.check_all(record, {cpu}, "binding set by the launcher")
                self.assertEqual(record["job"]["threads"], 1)

    def test_a_binding_of_mpirun_stays(self):
        self.need_hwloc()
        if count_cores() < 2 or not is_open_mpi():
            self.skipTest("takes 2 cores and Open MPI")
        record = self.started(MPIEXEC, NUMPROC_FLAG, 2, "--bind-to", "core", COMMAND, *RUN)
        first, second = map(cpus_of, record["placement"])
        self.assertEqual(first & second, set(), record["told"])
        for entry in record["placement"]:
            self.assertRegex(entry["decided"], "; binding set by the launcher$", record["told"])

    def test_a_binding_of_openmp_stays(self):
        self.need_hwloc()
        record = self.started("OMP_PROC_BIND=close", *launcher(2), *RUN)
        self.assertEqual({entry["decided"].partition("; ")[2] for entry in record["placement"]},
                         {"cores left to OpenMP's binding"}, record["told"])

    def test_virtual_ranks(self):
        record = self.started(*launcher(0), *RUN, "--transport", "loop", "--ranks", "2")
        self.check_all(record, CPUS, "cores as launched: virtual ranks of one process")

    def test_info(self):
        self.assertEqual(self.info["host"]["cores"], len(CPUS))
        self.assertEqual(cpus_of({"cpus": self.info["host"]["cpus"]}), CPUS)
        self.assertRegex(self.info["auto"]["placement"], "^(local rank 0 of 1|the only visible GPU|.*visible GPUs).*; .*cores?")
        self.assertTrue(cpus_of(self.info["auto"]) <= CPUS)


if __name__ == "__main__":
    unittest.main()
