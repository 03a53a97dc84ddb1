"""What says that the disk or the memory ran out, in the words of those who say it, becomes one plain line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from train.errors import ResourceError, TrainingError, amount, printable, resource_message


def caught(function):
    try:
        function()
    except Exception as error:
        return error
    raise RuntimeError("nothing was raised")


def raised_from(outer, inner):
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: torch.empty(10**15), "there is not enough memory (asked for 4 PB)"),
        (lambda: torch.empty(2**62, 4), "there is not enough memory (asked for more bytes than can be counted)"),
        (lambda: np.empty(10**15), "there is not enough memory (asked for 8 PB)"),
        (lambda: np.empty((2**40, 2**40)), "there is not enough memory (asked for more bytes than can be counted)"),
        (lambda: bytes(2**62), "there is not enough memory"),
    ],
)
def test_memory_that_there_is_not(call, message):
    assert resource_message(caught(call)) == message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left on the disk"),
        (OSError(errno.ENOSPC, "No space left on device", "a\x1b.png"), r"a\x1b.png: no space is left on the disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (OSError(errno.EFBIG, "File too large"), "the file size limit is reached (ulimit -f)"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "x: the file system is read-only"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "no space is left on the disk"),
        (RuntimeError("std::bad_alloc"), "there is not enough memory"),
        (
            RuntimeError("unable to mmap 80 bytes from file <x>: Cannot allocate memory (12)"),
            "there is not enough memory",
        ),
        (
            RuntimeError("can't start new thread"),
            "no more threads can be started: memory, or the limit on processes, is used up",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of"),
            "there is not enough memory on the GPU (asked for 21 GB)",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "there is not enough memory on the GPU",
        ),
        (
            raised_from(RuntimeError("[enforce fail at inline_container.cc] . unexpected pos"), OSError(28, "full")),
            "no space is left on the disk",
        ),
        (
            raised_from(ValueError("data: the cache c cannot be written:\n full"), OSError(28, "full")),
            "data: the cache c cannot be written: full (no space is left on the disk)",
        ),
        (ResourceError("x was not written:\n full"), "x was not written: full"),
        (
            raised_from(
                TrainingError("x was not written: full; the last good one is y"),
                ResourceError("x was not written: full"),
            ),
            "x was not written: full; the last good one is y",
        ),
    ],
)
def test_each_way_of_saying_it(error, message):
    assert resource_message(error) == message


@pytest.mark.parametrize(
    "error",
    [
        KeyError("name"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "no space left on device"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ValueError("data: there is no /data/CUDA out of memory (os error 28)"),
        TrainingError("train: the loss of player 'critic' is not finite at step 3"),
        RuntimeError("Overflow when unpacking long long"),
    ],
)
def test_all_else_is_none(error):
    assert resource_message(error) is None


def test_what_was_being_handled_counts_unless_it_was_set_aside():
    def handle(suppress):
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            if suppress:
                raise KeyError("name") from None
            raise KeyError("name")  # noqa: B904

    assert resource_message(caught(lambda: handle(False))) == "no space is left on the disk"
    assert resource_message(caught(lambda: handle(True))) is None


def test_a_circle_of_causes_ends():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert resource_message(first) is None


def test_under_an_address_limit_every_library_s_words_are_known():
    program = """
import resource, numpy, torch
from train.errors import resource_message
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
for call in (lambda: torch.zeros(2**28), lambda: numpy.zeros(2**28), lambda: bytearray(2**29), lambda: [0] * 2**28):
    try:
        call()
    except Exception as error:
        print(resource_message(error))
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True)
    assert run.stderr == ""
    known = "there is not enough memory"
    asked = [f"{known} (asked for {size} GB)" for size in ("1.1", "2.1")]  # torch and numpy say how much
    assert run.stdout.splitlines() == [*asked, known, known]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1_500_000, "1.5 MB"), (12.4e9, "12 GB"), (999.6e9, "1 TB"),
     (123e12, "123 TB"), (10**30, "9.2 EB"), (float("inf"), "9.2 EB")],
)  # fmt: skip
def test_amounts(number, text):
    assert amount(number) == text


def test_what_a_terminal_would_act_on_is_shown_as_text():
    assert printable("plain é ☃.png") == "plain é ☃.png"
    assert printable("a\x1b[31m\n\x07\u202eb\udcff\u2028") == r"a\x1b[31m\n\x07\u202eb\udcff\u2028"
