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
