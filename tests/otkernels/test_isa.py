"""The CPU kernels on the narrower instruction sets: one process each, since the choice is made once per process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otkernels import _native

HERE = Path(__file__).parent
ASK = "from otkernels import _native; print(_native.extension.cpu_isa())"


def run(isa: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OTKERNELS_CPU": isa}
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=HERE, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set_passes_the_op_tests(isa):
    asked = run(isa, "-c", ASK)
    if asked.returncode:
        assert "one that this machine has" in asked.stderr
        pytest.skip(f"this machine has no {isa}")
    assert asked.stdout.strip() == isa
    chosen = "(cpu-cpu or l2_argmin_data and not every_kind) and not compiles and not opcheck and not gradcheck"
    files = (
        "test_l2_argmin.py",
        "test_l2_argmin_data.py",
        "test_l2_topk.py",
        "test_assign.py",
        "test_soft_forest.py",
        "test_soft_forest_double_backward.py",
        "test_fit_transport.py",
    )
    tests = run(isa, "-m", "pytest", "-q", "-x", "-k", chosen, *files)
    assert tests.returncode == 0, tests.stdout[-4000:]
    assert " passed" in tests.stdout


def test_the_widest_instruction_set_is_the_default():
    assert _native.extension.cpu_isa() in ("portable", "avx2", "avx512", "avx512bf16")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_bf16" in flags and "OTKERNELS_CPU" not in os.environ:
        assert _native.extension.cpu_isa() == "avx512bf16"


def test_an_unknown_instruction_set_is_an_error():
    answer = run("sse9", "-c", ASK)
    assert answer.returncode
    assert "OTKERNELS_CPU must be avx512bf16, avx512, avx2 or portable" in answer.stderr
