"""Ops from many Python threads at once, on another number of OpenMP threads at each call, in DataLoader workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tests.otkernels.threaded import equal, make_ops

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("omp_threads", [1, 2])
def test_python_threads_get_what_one_gets(omp_threads, seed):
    """Mixed ops, each thread in an order of its own, so that all meet all; autograd too."""
    ops = make_ops(seed)
    expected = {name: op() for name, op in ops.items()}
    names, wrong, done = list(ops), [], []
    start = threading.Barrier(5)

    def work(number: int) -> None:
        torch.set_num_threads(omp_threads)  # of the teams that this thread starts
        order = names[number:] + names[:number]
        start.wait()
        try:
            for name in 3 * order[:: 1 if number % 2 else -1]:
                if not equal(ops[name](), expected[name]):
                    wrong.append(name)
            done.append(number)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(5)]
    before = torch.get_num_threads()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        torch.set_num_threads(before)
    assert wrong == []
    assert sorted(done) == list(range(5))


def test_the_number_of_threads_may_change_between_calls(seed):
    ops = make_ops(seed)
    expected = {name: op() for name, op in ops.items()}
    before = torch.get_num_threads()
    try:
        for count in (1, 3, 2, 1):
            for k, (name, op) in enumerate(ops.items()):
                torch.set_num_threads(count + k % 2)
                assert equal(op(), expected[name]), (name, count)
    finally:
        torch.set_num_threads(before)


LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset
from tests.otkernels.threaded import equal, make_ops

torch.set_num_threads(2)
NAMES = list(make_ops(0))


class Results(Dataset):
    def __len__(self):
        return len(NAMES)

    def __getitem__(self, k):
        return k, tuple(make_ops(k)[NAMES[k]]())


expected = [make_ops(k)[name]() for k, name in enumerate(NAMES)]  # on two threads, which no worker inherits
(torch.randn(500, 500) @ torch.randn(500, 500)).sum()
loader = DataLoader(Results(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
for epoch in range(2):
    seen = 0
    for k, results in loader:
        assert equal(results, expected[k]), NAMES[k]
        seen += 1
    assert seen == len(NAMES)
    assert equal(make_ops(0)[NAMES[0]](), expected[0])  # the parent goes on
print("equal")
"""

BUSY = """
import os, threading, time
import torch
from tests.otkernels.threaded import equal, make_ops

# The solver by lists calls ops of PyTorch's own, which may wait in a forked child for threads that are not there.
ops = {name: op for name, op in make_ops(0).items() if "lists" not in name}
expected = {name: op() for name, op in ops.items()}
stop = threading.Event()


def work(op):
    torch.set_num_threads(2)
    while not stop.is_set():
        op()


busy = [threading.Thread(target=work, args=(ops[name],)) for name in ("l2_argmin", "soft_forest, gradients and theirs")]
for thread in busy:
    thread.start()
codes = []
for name, op in ops.items():
    child = os.fork()
    if child == 0:
        os._exit(0 if equal(op(), expected[name]) else 3)
    end = time.monotonic() + 20
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.02)
    if not done[0]:
        os.kill(child, 9)
        done = os.waitpid(child, 0)
    codes.append(os.waitstatus_to_exitcode(done[1]))
    if codes[-1]:
        break
stop.set()
for thread in busy:
    thread.join()
print("codes", set(codes))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_data_loader_workers_compute_what_their_parent_computes():
    result = run(LOADER)
    assert result.stdout.strip() == "equal", result.stdout + result.stderr[-3000:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_other_threads_compute_computes_too():
    result = run(BUSY)
    assert result.stdout.strip() == "codes {0}", result.stdout + result.stderr[-3000:]
