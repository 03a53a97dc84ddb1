"""Which implementation runs: by name, by default, by environment; and what is said when one cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

import otkernels
from otkernels import _dispatch, _native, available_impls, l2_argmin


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_the_compiled_extension_is_here():
    """Every other test of impl='cpu' needs it: a broken build must not pass as 'reference only'."""
    assert _native.extension is not None, _native.missing_reason
    assert available_impls("l2_argmin")[0] == "cpu"
    assert available_impls("soft_forest")[0] == "cpu"
    assert available_impls("assign")[0] == "cpu"


def test_auto_takes_the_first_that_runs():
    assert _dispatch.choose("l2_argmin", "auto", torch.zeros(1))[0] == "cpu"
    assert _dispatch.choose("l2_argmin", "auto", torch.zeros(1, device="meta"))[0] == "reference"


def test_reasons_are_given():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert _dispatch.why_not("l2_argmin", "reference", cuda, torch.float64) == ""
    assert _dispatch.why_not("l2_argmin", "cpu", cuda, torch.float32) == "the tensors are on cuda"
    assert _dispatch.why_not("l2_argmin", "cuda", cpu, torch.float32) == "the tensors are on cpu"
    if not _native.has_cuda():
        assert "built without CUDA" in _dispatch.why_not("l2_argmin", "cuda", cuda, torch.float32)
    ops = "l2_argmin, l2_topk, soft_forest, fit_transport, transport_cost, assign"
    with pytest.raises(ValueError, match=f"available_impls: op must be one of {ops}, got"):
        available_impls("matmul")


def test_the_environment_overrides_auto_only():
    code = """
import torch
from otkernels import _dispatch
print(_dispatch.choose("l2_argmin", "auto", torch.zeros(1))[0], _dispatch.choose("l2_argmin", "cpu", torch.zeros(1))[0])
"""
    assert python(code, OTKERNELS_IMPL="reference").stdout.split() == ["reference", "cpu"]
    assert python(code, OTKERNELS_IMPL="").stdout.split() == ["cpu", "cpu"]
    unable = python(code, OTKERNELS_IMPL="cuda")
    assert "l2_argmin: OTKERNELS_IMPL='cuda' cannot run here: the tensors are on cpu" in unable.stderr


@pytest.mark.parametrize(
    ("call", "choices"),
    [
        ("l2_argmin(x, x)", "l2_argmin: {} auto or one of cpu, triton, cuda, reference"),
        ("l2_topk(x, x, 2)", "l2_topk: {} auto or one of cpu, triton, reference"),
        ("assign(x, x)", "assign: {} auto or one of cpu, cuda, reference"),
        ("soft_forest(x, x[:, :1], x.view(4, 2, 2))", "soft_forest: {} auto or one of cpu, cuda, triton, reference"),
        (
            "fit_transport(x, x, x[:1, :3], x[None], AdamState.zeros_like(x[None]))",
            "fit_transport: {} auto or one of cpu, cuda, reference",
        ),
    ],
)
def test_a_wrong_environment_variable_is_named(call, choices):
    code = f"import torch\nfrom otkernels import *\nx = torch.zeros(4, 4)\n{call}"
    expected = choices.format("the environment variable OTKERNELS_IMPL must be")
    for wrong in ("fast", "Auto", " cpu"):
        last = python(code, OTKERNELS_IMPL=wrong).stderr.strip().splitlines()[-1]
        assert last == f"ValueError: {expected}, got {wrong!r}"


def test_without_the_extension_the_reference_runs_and_says_so_once():
    code = """
import sys
sys.modules["otkernels._C"] = None
import torch, otkernels
x = torch.randn(5, 3)
for _ in range(3):
    value, index = otkernels.l2_argmin(x, x)
assert index.tolist() == [0, 1, 2, 3, 4]
assert otkernels.soft_forest(x, torch.zeros(1, 1), torch.ones(1, 2, 4)).shape == (5, 4)
assert otkernels.assign(x, x.flip(0)).index.tolist() == [4, 3, 2, 1, 0]
print(otkernels.available_impls("l2_argmin"))
try:
    otkernels.l2_argmin(x, x, impl="cpu")
except RuntimeError as error:
    print(error)
"""
    result = python(code, TRITON_INTERPRET="0")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("otkernels runs on its reference implementations") == 1
    assert result.stdout.splitlines()[0] == "['reference']"
    assert "impl='cpu' cannot run here: the compiled extension otkernels._C did not import" in result.stdout


def test_a_call_with_nothing_to_record_equals_the_recorded_one(randn):
    """The short way round torch's dispatcher gives the same bits as the op."""
    x, y = randn(70, 20), randn(50, 20)
    assert _dispatch.is_plain_call(x, y, None)
    recorded = x.clone().requires_grad_()
    assert not _dispatch.is_plain_call(recorded, y)
    short, long = l2_argmin(x, y), l2_argmin(recorded, y)
    assert torch.equal(short.value, long.value)
    assert torch.equal(short.index, long.index)
    seen = []

    def inside(row: torch.Tensor) -> torch.Tensor:
        seen.append(_dispatch.is_plain_call(row))
        return l2_argmin(row, y).value

    torch.vmap(inside)(x[None])
    assert seen == [False]
    with torch.no_grad():  # nothing to record: the short way, whatever asks for a gradient elsewhere
        assert _dispatch.is_plain_call(recorded, y)
        assert not l2_argmin(recorded, y).value.requires_grad


def test_the_version_is_the_package_s():
    assert otkernels.__version__ == version("otkernels")


class Built:
    """Stands in for an extension with CUDA kernels, on a machine with a GPU."""

    def __init__(self, version: int = 13000, fault: str = "") -> None:
        self.version, self.fault = version, fault

    def built_with_cuda(self) -> bool:
        return True

    def cuda_built_version(self) -> int:
        return self.version

    def cuda_fault(self, index: int) -> str:
        return self.fault


@pytest.fixture
def gpu(monkeypatch):
    """Says that there is an H100, and installs a stand-in for the extension."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    caches = (_native.cuda_fault, _dispatch._choose, _dispatch._warn)

    def install(extension: Built) -> None:
        monkeypatch.setattr(_native, "extension", extension)
        for cache in caches:
            cache.cache_clear()

    yield install
    for cache in caches:
        cache.cache_clear()


def on_gpu(op: str) -> str:
    return _dispatch._choose(op, "impl", "auto", torch.device("cuda"), torch.float32)[0]


def test_cuda_kernels_that_can_run_are_taken_without_a_word(gpu, recwarn):
    gpu(Built())
    assert (on_gpu("soft_forest"), on_gpu("fit_transport")) == ("cuda", "cuda")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("extension", "fault"),
    [
        (Built(fault="the driver is too old"), "the driver is too old"),
        (Built(version=12080), "the CUDA kernels were built with CUDA 12, PyTorch for CUDA 13.0: build otkernels with"),
    ],
)
def test_cuda_kernels_that_cannot_run_are_said_once_and_passed_over(gpu, extension, fault):
    gpu(extension)
    with pytest.warns(RuntimeWarning, match=f"otkernels goes on without its compiled CUDA kernels: {fault}") as seen:
        names = on_gpu("fit_transport"), on_gpu("soft_forest"), on_gpu("l2_argmin")
    assert len(seen) == 1
    assert "cuda" not in names
    with pytest.raises(RuntimeError, match=f"impl='cuda' cannot run here: {fault}"):
        _dispatch._choose("soft_forest", "impl", "cuda", torch.device("cuda"), torch.float32)
