"""A forked child computes what its parent computes, after the parent has used several OpenMP threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROBLEM = """
import os, time
import torch
from otkernels import AdamState, assign, fit_transport, l2_argmin, l2_topk

torch.set_num_threads(2)
x = torch.randn(2000, 64)
z, thresholds, leaves = torch.randn(1, 2000, 64), torch.randn(1, 32, 7), torch.randn(1, 32, 8, 64)
g = torch.randn(1, 2000, 64)
tangents = torch.randn(1, 2000, 64), torch.randn(1, 32, 7), torch.randn(1, 32, 8, 64)
forest = torch.ops.otkernels


def transport():
    moved, state = leaves.clone(), AdamState(leaves.clone(), leaves.clone(), torch.tensor(1.0))
    return *fit_transport(x[None], z, thresholds, moved, state, iters=1), moved


OPS = {
    "l2_argmin": lambda: l2_argmin(x, x),
    "l2_topk": lambda: l2_topk(x, x, 9),
    "assign": lambda: assign(x[:, :8].reshape(50, 40, 8), x[:, 8:16].reshape(50, 40, 8)),
    "soft_forest": lambda: (forest.soft_forest(z, thresholds, leaves, "cpu"),),
    "soft_forest_backward": lambda: forest.soft_forest_backward(g, z, thresholds, leaves, "cpu"),
    "soft_forest_double_backward":
        lambda: forest.soft_forest_double_backward(*tangents, g, z, thresholds, leaves, "cpu"),
    "fit_transport": transport,
}
op = OPS[NAME]
expected = [t.numpy().tobytes() for t in op()]
(torch.randn(1000, 1000) @ torch.randn(1000, 1000)).sum()  # PyTorch's own threads, too
child = os.fork()
if child == 0:
    os._exit(0 if [t.numpy().tobytes() for t in op()] == expected else 3)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        print("child", os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    print("the child hangs")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "name",
    [
        "l2_argmin",
        "l2_topk",
        "assign",
        "soft_forest",
        "soft_forest_backward",
        "soft_forest_double_backward",
        "fit_transport",
    ],
)
def test_a_forked_child_does_not_wait_for_its_parent_s_threads(name):
    code = f"NAME = {name!r}\n{PROBLEM}"
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.stdout.split("\n")[0] == "child 0", result.stdout + result.stderr
