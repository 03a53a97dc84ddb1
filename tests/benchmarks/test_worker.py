"""A contestant in its own process, asked through its pipes."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from benchmarks import l2_argmin, memory
from benchmarks.contestants import OURS, Case
from benchmarks.pool import Worker

CASE = Case("l2_argmin", 64, 32, 3)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def worker(tmp_path):
    started = Worker("l2_argmin", OURS, 1, str(tmp_path))
    yield started
    started.close()


def test_a_worker_judges_then_takes_turns_and_survives_a_bad_request(worker, tmp_path):
    path = tmp_path / "expected.pt"
    torch.save(l2_argmin.expect(l2_argmin.draw(CASE, 0), CASE), path)
    case = dataclasses.asdict(CASE)
    prepared = worker.ask("prepare", case=case, expected=[str(path)])
    assert prepared["right"]
    assert worker.ask("turn", calls=3)["seconds"] > 0
    assert "FileNotFoundError" in worker.ask("prepare", case=case, expected=[str(tmp_path / "none.pt")])["failed"]
    impossible = [torch.full((CASE.n,), -1.0, dtype=torch.float64)]  # a minimum that no pair can reach
    torch.save(impossible, path)
    assert not worker.ask("prepare", case=case, expected=[str(path)])["right"]


@LINUX
def test_memory_counts_the_peak_of_the_call_and_nothing_before_it():
    def prepare():
        before = bytearray(64 << 20)  # dropped by gc, or kept: either way not part of the call

        def call() -> int:
            return len(before) + len(bytearray(b"x") * (32 << 20))

        return call

    extra = memory.forked_growth(prepare)
    assert extra is not None
    # the call's own; the kernel counts pages in batches of some dozen per core, and the interpreter takes a few
    assert 31 << 20 <= extra < 40 << 20


@LINUX
def test_memory_of_a_failing_call_is_unknown():
    assert memory.forked_growth(lambda: lambda: 1 // 0) is None
