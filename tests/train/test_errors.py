"""Errors that mean that disk or memory ran out, and those that do not."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from train.errors import gigabytes, resource_message


def raised(function) -> BaseException:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("it should have failed")


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: torch.randn(2**40, 2**21),
        lambda: torch.zeros(2**62).expand(4, -1).contiguous(),
        lambda: np.empty(2**60, np.uint8),
        lambda: bytearray(2**61),
    ],
)
def test_allocations_that_fail_are_memory(allocate):
    message = resource_message(raised(allocate))
    assert message is not None
    assert message.startswith("not enough memory")
    assert "\n" not in message


def test_the_amount_is_named():
    message = resource_message(raised(lambda: torch.empty(2**60, dtype=torch.uint8)))
    assert message is not None
    assert "1,152,921,504.6 GB more were asked for" in message
    assert gigabytes(1_500_000) == "1.5 MB"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/some/file"), "the disk is full: /some/file; make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up; make room"),
        (OSError(errno.EFBIG, "File too large"), "larger than is allowed"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB more were asked for"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), "not enough memory"),
        (RuntimeError("can't start new thread"), "not enough memory"),
        (RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 832 vs 726"), "disk"),
    ],
)
def test_known_errors(error, words):
    message = resource_message(error)
    assert message is not None
    assert words in message


def test_the_cause_behind_an_error_counts():
    def wrapped():
        try:
            raise MemoryError
        except MemoryError as error:
            raise RuntimeError("the loader died") from error

    assert resource_message(raised(wrapped)) is not None


@pytest.mark.parametrize(
    "error",
    [ValueError("train: lr"), RuntimeError("shapes"), OSError(errno.ENOENT, "No such file"), KeyError("memory")],
)
def test_other_errors_are_not_explained(error):
    assert resource_message(error) is None


def test_a_chain_that_is_a_circle_ends():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert resource_message(first) is None
