#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table, the JSON and the CSV."""
import csv
import json
import math
import unittest

from command import ENVIRONMENT, FILE, SMALL, CommandTest, rows

SUMMARY = ["min", "median", "p95", "max", "n"]

# Schema 1: section -> keys.
SCHEMA = {
    "": ["schema", "tool", "version", "verb", "status", "build", "job", "problem", "plan", "placement", "time_ms", "ranks", "rate",
         "check", "digest"],
    "job": ["ranks", "hosts", "launcher", "backend", "transport", "transport_reason"],
    "problem": ["batch", "seq_len", "heads_q", "heads_kv", "head_dim", "dtype", "block", "causal", "pattern", "scale", "density_block",
                "density_token", "pairs_token", "flops"],
    "plan": ["layout", "exchange", "steps", "bytes_sent_total", "bytes_lower_bound", "imbalance", "memory_predicted_max"],
    "time_ms": ["total", "attend", "exchange", "exposed"],
    "rate": ["tflops", "tflops_per_rank", "tokens_per_s"],
    "check": ["rows", "error_out", "error_lse", "passed"],
    "digest": ["out_sum", "out_abs_sum", "out_hash"],
}
PLACEMENT = ["rank", "host", "device", "pci", "cpus", "nic", "decided"]
RANK = ["rank", "time_ms_total", "time_ms_attend", "time_ms_exchange", "time_ms_exposed", "bytes_sent", "bytes_received",
        "memory_device_peak", "memory_host_peak"]


class Records(CommandTest):
    def check_record(self, record, ranks):
        for section, keys in SCHEMA.items():
            part = record[section] if section else record
            for key in keys:
                self.assertIn(key, part, section)
        for part in SCHEMA["time_ms"]:
            for key in SUMMARY:
                self.assertIn(key, record["time_ms"][part])
        for name, keys in (("placement", PLACEMENT), ("ranks", RANK)):
            self.assertEqual([entry["rank"] for entry in record[name]], list(range(ranks)))
            for entry in record[name]:
                for key in keys:
                    self.assertIn(key, entry, name)
        self.assertEqual((record["schema"], record["tool"], record["status"]), (1, "bsattn_ring", "ok"))
        self.assertEqual(record["job"]["ranks"], ranks)

    def test_run(self):
        record = self.record("run", *SMALL, "--check", "-n", "3", ranks=3)
        self.check_record(record, 3)
        problem = record["problem"]
        self.assertEqual((problem["seq_len"], problem["heads_q"], problem["heads_kv"], problem["head_dim"]), (1000, 2, 2, 32))
        self.assertIs(record["check"]["passed"], True)
        self.assertIs(problem["causal"], False)
        self.assertEqual(record["time_ms"]["total"]["n"], 3)
        self.assertEqual(problem["flops"], 4 * problem["pairs_token"] * 32 * 2)
        self.assertAlmostEqual(problem["density_token"], problem["pairs_token"] / 1000**2, places=9)
        self.assertEqual(sum(rank["bytes_sent"] for rank in record["ranks"]), record["plan"]["bytes_sent_total"])
        self.assertEqual(sum(rank["bytes_received"] for rank in record["ranks"]), record["plan"]["bytes_sent_total"])
        self.assertGreaterEqual(record["plan"]["bytes_sent_total"], record["plan"]["bytes_lower_bound"])
        self.assertTrue(all(rank["memory_host_peak"] > 0 for rank in record["ranks"]))
        total = record["time_ms"]["total"]
        self.assertTrue(0 < total["min"] <= total["median"] <= total["p95"] <= total["max"])

    def test_check_of_more_rows_than_there_are(self):
        for rows in ("2000", str(2**63 - 1)):
            record = self.record("run", *SMALL, f"--check={rows}", ranks=2)
            self.assertEqual(record["check"]["rows"], 2000)
            self.assertIs(record["check"]["passed"], True)

    def test_loop_is_the_same_computation(self):
        mpi = self.record("run", *SMALL, ranks=3)
        loop = self.record("run", *SMALL, "--transport", "loop", "--ranks", "3")
        alone = self.record("run", *SMALL)
        self.check_record(loop, 3)
        self.assertEqual(mpi["digest"]["out_hash"], loop["digest"]["out_hash"])
        self.assertTrue(math.isclose(mpi["digest"]["out_abs_sum"], alone["digest"]["out_abs_sum"], rel_tol=1e-6))
        for key in ("bytes_sent_total", "bytes_lower_bound", "steps"):
            self.assertEqual(mpi["plan"][key], loop["plan"][key])
        self.assertEqual(alone["plan"]["bytes_sent_total"], 0)

    def test_exchanges(self):
        """The same results by either exchange, and directly nothing is sent that nobody uses."""
        for pattern, layout in (("local(window=256)", "contiguous"), ("random(blocks=3,seed=2)+sink(tokens=64)", "cyclic:2"),
                                ("0@dilated(rates=1:4);1@strided(stride=3)", "zigzag")):
            with self.subTest(pattern):
                problem = [*SMALL, "--pattern", pattern, "--layout", layout, "--check=all"]
                ring, direct = (self.record("run", *problem, "--exchange", exchange, ranks=4) for exchange in ("ring", "direct"))
                loop = self.record("run", *problem, "--exchange", "direct", "--transport", "loop", "--ranks", "4")
                self.check_record(direct, 4)
                self.assertEqual((ring["plan"]["exchange"], direct["plan"]["exchange"]), ("ring", "direct"))
                self.assertEqual(direct["plan"]["bytes_sent_total"], direct["plan"]["bytes_lower_bound"])
                self.assertEqual(direct["plan"]["bytes_lower_bound"], ring["plan"]["bytes_lower_bound"])
                self.assertGreater(ring["plan"]["bytes_sent_total"], direct["plan"]["bytes_sent_total"])
                self.assertEqual(loop["digest"]["out_hash"], direct["digest"]["out_hash"])
                self.assertTrue(math.isclose(ring["digest"]["out_abs_sum"], direct["digest"]["out_abs_sum"], rel_tol=1e-6))

    def test_choice_of_the_exchange(self):
        """The ring where it sends no more than is needed, else what is faster or sends less."""
        for pattern, ranks, exchange, steps in (("dense", 8, "ring", 8), ("local(window=1024)", 64, "direct", 3),
                                                ("local(window=1024)", 2, "ring", 2), ("dilated(rates=1:64)", 64, "direct", 3)):
            with self.subTest(pattern):
                plan = self.record("plan", "--ranks", str(ranks), "--seq", "256K", "--pattern", pattern,
                                   "--layout", "contiguous")["plan"]
                self.assertEqual((plan["exchange"], plan["steps"]), (exchange, steps))
        # Faster, but for connections to 511 ranks at a time when the layout is open too.
        many = ["plan", "--ranks", "512", "--seq", "1M", "--causal", "--backend", "cuda", "--pattern", "random(blocks=8,seed=3)"]
        ring, chosen = (self.record(*many, "--exchange", exchange)["plan"] for exchange in ("ring", "auto"))
        self.assertLessEqual(chosen["memory_predicted_max"], 2 * ring["memory_predicted_max"])

    def test_table(self):
        for arguments in (["run", *SMALL], ["verify", "-n", "5"], ["plan", "--ranks", "64", "--seq", "1M"]):
            with self.subTest(arguments[0]):
                done = self.ring(*arguments)
                table = rows(done.stdout)
                self.assertGreater(len(table), 0, done.told)
                self.assertEqual({len(row) for row in table}, {len(table[0])}, done.told)
                quiet = self.ring(*arguments, "--quiet", "--verbose")
                self.assertEqual(quiet.stderr, "")
                self.assertEqual([line for line in quiet.stdout.splitlines() if line.startswith("#")], [])
                self.assertEqual({len(row) for row in rows(quiet.stdout)}, {len(table[0])}, quiet.told)

    def test_only_one_rank_prints(self):
        self.assertEqual(len(rows(self.ring("run", *SMALL, "--quiet", ranks=3).stdout)), 1)

    def test_csv(self):
        path = self.work / "x.csv"
        self.ring("run", *SMALL, "--pattern", "local(window=256)+global(tokens=64)", "--csv", path, ranks=2)
        with path.open(newline="") as file:
            header, row = csv.reader(file)
        self.assertEqual(len(header), len(set(header)))
        self.assertEqual(len(header), len(row))
        values = dict(zip(header, row))
        self.assertEqual(values["problem.seq_len"], "1000")
        self.assertEqual(values["problem.pattern"], "local(window=256)+global(tokens=64)")
        self.assertEqual(values["check.passed"], "1")
        for section in ("job", "problem", "plan", "rate", "check", "digest"):
            for key in SCHEMA[section]:
                self.assertIn(f"{section}.{key}", values)

    def test_plan_record(self):
        record = self.record("plan", "--ranks", "64", "--seq", "1M", "--preset", "local")
        self.assertEqual((record["verb"], record["job"]["ranks"]), ("plan", 64))
        for key in SCHEMA["plan"]:
            self.assertIn(key, record["plan"])
        # Shares that do not divide by the number of ranks: the mean is still between the others.
        record = self.record("plan", "--ranks", "7", "--seq", "12288", "--preset", "local")
        for purpose, bytes_of in record["memory"].items():
            self.assertLessEqual(bytes_of["min"], bytes_of["mean"], purpose)
            self.assertLessEqual(bytes_of["mean"], bytes_of["max"], purpose)

    def test_libraries(self):
        """Of a GPU that is not here: a context, and with several ranks NCCL."""
        alone, two = (self.record("plan", "--backend", "cuda", "--ranks", ranks, "--seq", "64K")["memory"]["libraries"]["max"]
                      for ranks in ("1", "2"))
        self.assertGreater(alone, 400e6)
        self.assertGreater(two, alone + 800e6)

    def test_state(self):
        """Rows that see keys in one step only keep no state: of a window those near the ends of a shard do."""
        row_bytes = 8 * (64 + 2) * 4
        for pattern, ranks, least, most in (("local(window=1024)", 4, 512, 1024), ("dense", 4, 16384, 16384), ("dense", 1, 0, 0)):
            record = self.record("plan", "--ranks", str(ranks), "--seq", "64K", "--pattern", pattern, "--layout", "contiguous")
            state = record["memory"]["state"]
            self.assertEqual((state["min"], state["max"]), (least * row_bytes, most * row_bytes), pattern)

    def test_many_records_stay_valid(self):
        json_path, csv_path = self.work / "v.json", self.work / "v.csv"
        done = self.ring("verify", "-n", "6", "--json", json_path, "--csv", csv_path)
        records = [json.loads(line) for line in json_path.read_text().splitlines()]
        with csv_path.open(newline="") as file:
            table = list(csv.reader(file))
        self.assertEqual((len(records), len(table)), (6, 7), done.told)
        self.assertEqual({len(row) for row in table}, {len(table[0])})
        self.assertTrue(all(record["check"]["passed"] is True for record in records))

    def test_standard_output_is_one_thing(self):
        record = json.loads(self.ring("run", *SMALL, "--json", "-").stdout)
        self.assertEqual(record["problem"]["seq_len"], 1000)
        table = list(csv.reader(self.ring("run", *SMALL, "--csv", "-").stdout.splitlines()))
        self.assertEqual(len(table), 2)

    def test_record_that_cannot_be_written(self):
        for option in ("--json", "--csv"):
            with self.subTest(option):
                self.refuse(FILE, ["nowhere/x"], "run", *SMALL, option, "nowhere/x")
        self.assertEqual(list(self.work.iterdir()), [])

    def test_info(self):
        done = self.ring("info", "--json", self.work / "info.json")
        self.assertIn("MPI", done.stdout)
        json.loads((self.work / "info.json").read_text())

    def test_transport_that_was_named(self):
        """One process, but not its own virtual ranks: what was asked for is what answers, or nothing."""
        self.assertIn("asked for", self.ring("info", "--transport", "mpi").stdout)
        self.assertEqual(self.record("verify", "-n", "1", "--transport", "mpi")["job"]["transport"], "mpi")
        for transport in ("nccl", "ipc"):
            self.refuse(ENVIRONMENT, [transport, "cpu"], "verify", "-n", "1", "--backend", "cpu", "--transport", transport)

    def test_mask(self):
        text = self.ring("mask", "--seq", "2K").stdout
        self.assertGreater(len(text.splitlines()), 8)
        self.ring("mask", "--seq", "2K", "--svg", self.work / "mask.svg")
        self.assertRegex((self.work / "mask.svg").read_text(), r"(?s)<svg .*</svg>\s*$")


if __name__ == "__main__":
    unittest.main()
