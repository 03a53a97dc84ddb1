"""What a table of numbers carries: enough to run it again, and nothing about the person."""

from __future__ import annotations

import json

import torch

from train.provenance import describe


def test_threads_and_what_openmp_reads_are_recorded(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    machine = describe("python -m train.reproduce table1")
    assert machine["threads"] == torch.get_num_threads()
    environment = machine["environment"]
    assert (environment["OMP_NUM_THREADS"], environment["GOMP_SPINCOUNT"]) == ("3", "77")
    assert all(name.startswith(("OMP_", "GOMP_", "KMP_")) for name in environment)
    assert json.loads(json.dumps(machine)) == machine
