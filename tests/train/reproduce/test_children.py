"""Children end with the work that started them, however it ends, and in no other way."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from train.errors import Stopped
from train.reproduce.children import Children

# Says that it is there; on SIGTERM says so and ends.
CHILD = """
import signal, sys, time
def end(*_):
    print("asked", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
print("there", flush=True)
time.sleep(60)
"""


def wait_until(text: str, path: Path) -> None:
    deadline = time.monotonic() + 20
    while text not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_s_status_and_output_are_its_own(tmp_path):
    with (tmp_path / "log").open("w") as output, Children() as children:
        command = [sys.executable, "-c", "import sys; print('said'); sys.exit('error: told')"]
        assert children.run(command, output) == 1
    assert sorted((tmp_path / "log").read_text().split("\n")) == ["", "error: told", "said"]


def play(path: Path, meanwhile: Callable[[], None]) -> None:
    """Start two children, one after the other; call ``meanwhile`` while the first runs. Both are waited for."""
    with path.open("w") as output, ThreadPoolExecutor(1) as pool, Children() as children:
        command = [sys.executable, "-c", CHILD]
        for _ in range(2):
            pool.submit(children.run, command, output)
        wait_until("there", path)
        meanwhile()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_this_process_alone_ends_its_children(tmp_path, number):
    before = signal.getsignal(number)

    def signalled():
        os.kill(os.getpid(), number)
        time.sleep(20)

    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Stopped) as stopped:
        play(tmp_path / "log", signalled)
    assert (tmp_path / "log").read_text() == "there\nasked\n"
    assert signal.getsignal(number) is before
    if number != signal.SIGINT:
        assert stopped.value.status == 128 + number


def test_an_error_ends_the_children_and_none_starts_after_it(tmp_path):
    def full():
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        play(tmp_path / "log", full)
    assert (tmp_path / "log").read_text() == "there\nasked\n"


def test_a_signal_that_the_user_ignores_stays_ignored():
    """nohup leaves SIGHUP ignored: the work goes on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Children():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
