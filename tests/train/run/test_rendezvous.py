"""The processes of one start find each other, whatever those of earlier starts left behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from tests.processes import unused_port
from train.errors import TrainingError
from train.run import rendezvous

SOON = timedelta(seconds=20)


def names(shared: dist.Store, late: dict[int, float], size: int = 3) -> list[str]:
    """What each process of a start agrees to; ``late``: seconds by which some come after the others."""

    def come(rank: int) -> str:
        time.sleep(late.get(rank, 0.0))
        return rendezvous.agreed(shared, rank, size, SOON)

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(come, range(size)))


@pytest.mark.parametrize("last", [0, 1, 2])
def test_each_start_agrees_on_a_name_of_its_own(last):
    shared, found = dist.HashStore(), []
    for _ in range(3):
        start = names(shared, {last: 0.2})
        assert len(set(start)) == 1, start
        found += start[:1]
    assert len(set(found)) == 3


def test_a_start_that_was_killed_half_way_does_not_disturb_the_next_one():
    shared = dist.HashStore()
    with pytest.raises(TrainingError, match="2 of 3 processes, number 1 first, have not come within 0 seconds"):
        rendezvous.agreed(shared, 0, 3, timedelta(0))
    with pytest.raises(TrainingError, match="the first process has not come within 0 seconds"):
        rendezvous.agreed(shared, 2, 3, timedelta(0))
    assert len(set(names(shared, {1: 0.2}))) == 1


def test_a_first_process_that_nobody_reaches_is_named(monkeypatch):
    port = str(unused_port())
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=f"process 1 has no connection to the first one at localhost:{port}"):
        rendezvous.store(timedelta(seconds=1))


def test_a_store_hides_what_another_start_wrote(monkeypatch):
    port = unused_port()
    server = dist.TCPStore("localhost", port, None, True, SOON, False)
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # the server outlives both starts, as torchrun's does

    def greeting() -> bytes:
        return server.get("greeting/1") if server.check(["greeting/1"]) else b""

    def start() -> list[dist.Store]:
        stale = greeting()
        monkeypatch.setenv("RANK", "1")
        found: list[dist.Store] = []
        other = threading.Thread(target=lambda: found.append(rendezvous.store(SOON)[0]))
        other.start()
        while greeting() == stale:
            time.sleep(0.01)
        monkeypatch.setenv("RANK", "0")
        found.append(rendezvous.store(SOON)[0])
        other.join()
        return found

    before, after = start(), start()
    before[0].set("address", "dead")
    assert before[1].get("address") == b"dead"
    assert not after[0].check(["address"])
    after[0].set("address", "alive")
    assert after[1].get("address") == b"alive"
    assert before[1].get("address") == b"dead"
