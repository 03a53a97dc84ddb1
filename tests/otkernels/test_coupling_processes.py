"""ExactOT with the batches of 2 and of 4 gloo processes, against one process that holds the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from otkernels import _plans
from otkernels.coupling import ExactOT
from tests.processes import outcomes

# rows of x0 and of x1 in each process
SIZES = {"2": ([8, 8], [8, 8]), "4": ([5, 0, 9, 2], [3, 6, 0, 7])}


def batch(sizes: tuple[list[int], list[int]]) -> tuple[Tensor, ...]:
    """x0, x1, y0, y1 of the whole batch: images, and labels of which all occur on both sides as often."""
    generator = torch.Generator().manual_seed(7)
    n = sum(sizes[0])
    x0, x1 = torch.randn(2, n, 3, 2, generator=generator)
    y0, y1 = (torch.arange(n)[torch.randperm(n, generator=generator)] % 3 for _ in range(2))
    return x0, x1, y0, y1


def own(whole: Tensor, sizes: list[int], rank: int) -> Tensor:
    return whole.split(sizes)[rank]


def work(rank: int, sizes: tuple[list[int], list[int]]) -> dict[str, Any]:
    """What one process gets. Processes of a group, here all but the last of four, are one batch."""
    count = len(sizes[0])
    group = dist.new_group(range(count - 1)) if count > 2 else None
    x0, x1, y0, y1 = batch(sizes)
    mine = own(x0, sizes[0], rank), own(x1, sizes[1], rank), own(y0, sizes[0], rank), own(y1, sizes[1], rank)
    alone = ExactOT().sample_plan(*mine[:2], replace=False) if min(map(len, mine)) else None
    if rank > 0:
        _plans.assign = None  # the first process solves for all
    found = {
        "pairs": tuple(ExactOT(distributed=True).pairs(*mine)),
        "labels": tuple(ExactOT(by_label=True, distributed=True).pairs(*mine)),
        "plan": ExactOT(distributed=True).sample_plan(*mine[:2], replace=False),
        "drawn": ExactOT(by_label=True, distributed=True).sample_plan_with_labels(*mine),
        "alone": alone,
    }
    if rank == 0:
        mine = (mine[0] / 0, *mine[1:])
    try:
        ExactOT(distributed=True).pairs(*mine)
    except ValueError as error:
        found["error"] = str(error)
    try:
        ExactOT(distributed=True).pairs(mine[0], mine[1][:0])
    except ValueError as error:
        found["empty"] = str(error)
    if group is not None and rank < count - 1:
        few = ExactOT(distributed=True, group=group).pairs(own(x0, sizes[0], rank), own(x1, sizes[1], rank))
        found["group"] = tuple(few)
    return found


@pytest.fixture(scope="module", params=SIZES)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The sizes, and what each process got."""
    sizes = SIZES[request.param]
    return sizes, outcomes(work, len(sizes[0]), tmp_path_factory.mktemp("processes"), sizes)


@pytest.mark.parametrize("name", ["pairs", "labels"])
def test_each_process_gets_its_rows_of_the_whole_plan(name, runs):
    sizes, found = runs
    source, target, weight = ExactOT(by_label=name == "labels").pairs(*batch(sizes))
    begin = 0
    for size, result in zip(sizes[0], found, strict=True):
        here = (source >= begin) & (source < begin + size)
        assert torch.equal(result[name][0], source[here] - begin)
        assert torch.equal(result[name][1], target[here])
        torch.testing.assert_close(result[name][2], weight[here] / weight[here].sum())
        begin += size


def test_rows_of_x0_stay_and_those_of_x1_come_from_anywhere(runs):
    sizes, found = runs
    x0, x1, y0, y1 = batch(sizes)
    source, target, _ = ExactOT().pairs(x0, x1)
    partner = dict(zip(map(str, x0[source].tolist()), x1[target].tolist(), strict=True))
    taken = 0
    for rank, result in enumerate(found):
        a, b = result["plan"]
        assert sorted(a.tolist()) == sorted(own(x0, sizes[0], rank).tolist())
        assert [partner[str(row)] for row in a.tolist()] == b.tolist()
        taken += len(b)
        a, b, c, d = result["drawn"]
        assert torch.equal(c, d)
        for rows, labels, everyone, everyone_s in ((a, c, x0, y0), (b, d, x1, y1)):
            which = (rows.flatten(1)[:, None] == everyone.flatten(1)).all(-1).int().argmax(1)
            assert torch.equal(everyone_s[which], labels)
    assert taken == len(x1)


def test_every_process_says_what_one_process_gave(runs):
    _, found = runs
    assert {result["error"] for result in found} == {
        "ExactOT: x0 and x1 must be finite, got points with NaN or infinity"
    }
    assert {result["empty"] for result in found} == {"ExactOT: x1 must have rows in some process, got none in all"}


def test_processes_stay_alone_unless_told_otherwise(runs):
    sizes, found = runs
    x1 = batch(sizes)[1]
    for rank, result in enumerate(found):
        if result["alone"] is not None:
            assert all(row in own(x1, sizes[1], rank).tolist() for row in result["alone"][1].tolist())


def test_a_group_is_a_batch_of_its_own(runs):
    sizes, found = runs
    if len(found) == 2:
        assert all("group" not in result for result in found)
        return
    x0, x1, *_ = batch(sizes)
    source, target, weight = ExactOT().pairs(x0[: sum(sizes[0][:-1])], x1[: sum(sizes[1][:-1])])
    begin = 0
    for size, result in zip(sizes[0][:-1], found, strict=False):
        here = (source >= begin) & (source < begin + size)
        assert torch.equal(result["group"][0], source[here] - begin)
        assert torch.equal(result["group"][1], target[here])
        torch.testing.assert_close(result["group"][2], weight[here] / weight[here].sum())
        begin += size
