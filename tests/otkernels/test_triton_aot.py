"""Every Triton kernel compiles ahead of time for NVIDIA GPUs, without local memory: minutes unless Triton cached it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.triton_resources import ARCHITECTURES, CASES, SHARED_LIMIT, Resources

KERNELS = {
    "l2_argmin": {"_direct_kernel", "_merge_kernel", "_column_kernel", "_score_kernel", "_settle_kernel"},
    "l2_topk": {
        "_list_kernel",
        "_join_kernel",
        "_column_kernel",
        "_bound_kernel",
        "_rank_kernel",
    },
    "soft_forest": {"_forward_kernel", "_leaves_kernel", "_climb_kernel"},
}


def test_a_spill_is_a_fault() -> None:
    row = Resources("kernel", "case", arch=90, warps=4, registers=255, local=0, shared=SHARED_LIMIT[90])
    assert row.fault == ""
    assert row._replace(local=8).fault == "SPILL"
    assert row._replace(shared=SHARED_LIMIT[90] + 1).fault == "SHARED"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("op", CASES)
def test_no_kernel_spills(op: str, arch: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.triton_resources", "--op", op, "--arch", str(arch)],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(result.stdout, result.stderr)
    assert result.returncode == 0
    assert {line.split()[0] for line in result.stdout.splitlines()[1:]} == KERNELS[op]


VARYING = """
import torch
from benchmarks import triton_resources
from otkernels.l2_argmin.triton import l2_argmin
from otkernels.l2_topk.triton import l2_topk
from otkernels.soft_forest.triton import soft_forest, soft_forest_backward

def calls():
    for n, m, batch in ((64, 4096, 1), (1, 1, 1), (16, 17, 1), (63, 100, 1), (128, 64, 3), (1, 16, 16)):
        for d in (2, 32):
            l2_argmin(torch.zeros(batch, n, d), torch.zeros(batch, m, d), torch.zeros(batch, m), "exact")
            if m > 4:
                l2_topk(torch.zeros(batch, n, d), torch.zeros(batch, m, d), 2 + n % 3, torch.zeros(batch, m))
        z, thresholds, leaves = torch.zeros(batch, n, 16), torch.zeros(batch, 18, 7), torch.zeros(batch, 18, 8, 32)
        soft_forest(z, thresholds, leaves)
        soft_forest_backward(torch.zeros(batch, n, 32), z, thresholds, leaves)
    yield ""

triton_resources.CASES["varying"] = calls
print(*(row.kernel for row in triton_resources.measure("varying", 90)))
"""


@pytest.mark.timeout(600)
def test_sizes_that_change_from_call_to_call_compile_nothing_again() -> None:
    """A last batch of another size, or of one row, must not compile in the middle of a run, or of a CUDA graph."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", VARYING]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    kernels = result.stdout.split()
    twice = {"_list_kernel", "_join_kernel"}  # for all rows and for those that bounds do not decide
    assert sorted(kernels) == sorted([*set().union(*KERNELS.values()), *twice]), kernels
