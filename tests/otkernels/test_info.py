"""python -m otkernels.info: it says what the dispatch tables say, and works where parts are missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import otkernels
from otkernels import _dispatch, _native, info


def run(before: str = "", **environment: str) -> str:
    """What the command prints in a fresh process, `before` having run there."""
    code = f"import runpy, sys, warnings\nwarnings.simplefilter('ignore')\n{before}\n"
    code += "runpy.run_module('otkernels.info', run_name='__main__')"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(info.PREFIXES)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def rows(text: str, title: str) -> dict[str, str]:
    """The rows of the section whose title starts so."""
    section = next(part for part in text.split("\n\n") if part.startswith(title))
    return dict(re.split(r"  +", line.strip(), maxsplit=1) for line in section.strip().splitlines()[1:])


def test_the_command_says_what_is_here():
    text = run(OMP_NUM_THREADS="1", OTKERNELS_SEED="7")
    versions = rows(text, "versions")
    assert (versions["otkernels"], versions["torch"]) == (otkernels.__version__, torch.__version__)
    compiled = rows(text, "compiled extension")
    assert compiled["used here"] in compiled["cpu kernels for"].split()
    assert compiled["cuda kernels for"].startswith("none: built without CUDA") != _native.has_cuda()
    assert rows(text, "threads")["torch.get_num_threads"].startswith("1 ")
    assert rows(text, "environment") == {"OMP_NUM_THREADS": "1", "OTKERNELS_SEED": "7"}
    assert text.isascii()
    assert max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize("op", _dispatch.ORDER)
def test_choices_are_those_of_the_dispatch_table(op):
    shown = dict(info.choices(op, torch.device("cpu")))
    assert tuple(shown) == _dispatch.ORDER[op]
    chosen, _ = _dispatch.choose(op, "auto", torch.empty(0))
    assert [name for name, text in shown.items() if text == "chosen"] == [chosen]
    assert shown.get("cuda", "the tensors are on cpu") == "the tensors are on cpu"  # l2_topk has none
    assert shown["reference"] == f"can run; auto takes {chosen}"


def test_an_extension_older_than_its_sources_is_named(monkeypatch):
    monkeypatch.setattr(_native, "extension", SimpleNamespace(cpu_isa=lambda: "avx2"))
    assert dict(info.extension()) == {"otkernels._C": "present, but older than these sources: build it again"}


def test_without_the_extension_and_without_triton():
    text = run("sys.modules['otkernels._C'] = sys.modules['triton'] = None")
    assert rows(text, "compiled extension")["otkernels._C"].startswith(
        "absent: the compiled extension otkernels._C did"
    )
    for op in _dispatch.ORDER:
        shown = rows(text, op)
        assert shown["cpu"].startswith("the compiled extension otkernels._C did not import")
        assert shown["reference"] == "chosen"


def test_wrong_environment_variables_are_shown_not_raised():
    text = run(OTKERNELS_IMPL="fast", OTKERNELS_CPU="sse9")
    assert "OTKERNELS_CPU must be avx512bf16, avx512, avx2 or portable" in rows(text, "compiled extension")["used here"]
    shown = rows(text, "l2_argmin")
    assert "OTKERNELS_IMPL must be auto or one of" in shown["error"]
    assert (shown["cpu"], shown["reference"]) == ("can run", "can run")
    named = rows(run(OTKERNELS_IMPL="reference"), "l2_argmin")
    assert (named["cpu"], named["reference"]) == ("can run; auto takes reference", "chosen")


def test_a_gpu_is_described(monkeypatch):
    device = SimpleNamespace(name="Some GPU", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    shown = dict(info.machine())
    assert shown["cuda:0"] == "Some GPU, compute capability 9.0, 80 GiB"
    assert shown["driver"].endswith(f"; PyTorch was built for CUDA {torch.version.cuda}")


def test_the_driver_s_version_is_found(tmp_path):
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12\n"
    )
    assert info.found(file, info.DRIVER) == "580.65.06"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023\n")
    assert info.found(file, info.DRIVER) == "535.104.05"
    assert info.found(tmp_path / "absent", info.DRIVER) == ""


@pytest.mark.gpu
def test_what_auto_takes_on_a_gpu_is_shown():
    text = run()
    for op in _dispatch.ORDER:
        chosen, _ = _dispatch.choose(op, "auto", torch.empty(0, device="cuda"))
        assert rows(text, f"{op} in float32 on cuda")[chosen] == "chosen"


def test_cuda_kernels_that_cannot_run_are_explained(monkeypatch):
    built = {"compiler": "GNU 12", "cpu": "avx2", "openmp": "4.5", "cuda": "80 90a by nvcc 13.0"}
    extension = SimpleNamespace(
        cpu_isa=lambda: "avx2", build_info=lambda: built, built_with_cuda=lambda: True,
        cuda_built_version=lambda: 13000, cuda_fault=lambda index: ("", "the driver is too old")[index],
    )  # fmt: skip
    monkeypatch.setattr(_native, "extension", extension)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    _native.cuda_fault.cache_clear()
    shown = dict(info.extension())
    _native.cuda_fault.cache_clear()
    assert (shown["cuda kernels on cuda:0"], shown["cuda kernels on cuda:1"]) == ("can run", "the driver is too old")
