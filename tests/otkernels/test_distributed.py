"""distributed.l2_argmin with the points of 2 and of 4 gloo processes, against one process that holds all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from otkernels import distributed, l2_argmin
from tests.processes import outcomes

# rows of x and of y in each process
SIZES = {"2": ([9, 14], [20, 33]), "4": ([7, 0, 13, 5], [11, 30, 0, 17])}


def draw(sizes: tuple[list[int], list[int]], kind: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, y and the potential of all processes together."""
    generator = torch.Generator().manual_seed(3)
    n, m = map(sum, sizes)
    x, y = torch.randn(n, 5, generator=generator), torch.randn(m, 5, generator=generator)
    potential = None
    if kind == "ties":  # on a small grid most rows have several nearest points, in several processes
        x, y = x.round(), y.round().clamp(-1, 1)
    elif kind == "potential":
        potential = torch.randn(m, generator=generator)
        potential[[0, 5, m - 1]] = torch.tensor([-torch.inf, 4.0, 4.0])
    elif kind == "never":
        potential = torch.full((m,), -torch.inf)
    elif kind == "float16":
        x, y = x.half(), y.half()
    elif kind == "float64":
        x, y = x.double(), y.double()
    elif kind == "offset":
        x, y = x + 1e4, y + 1e4
    elif kind == "tight clusters":  # costs differ by little more than their rounding
        x, y = (100 + 1e-5 * t + torch.arange(len(t))[:, None] % 3 for t in (x, y))
    elif kind == "nan in x":
        x[[1, n - 1], 2] = torch.nan
    elif kind == "nan in y":
        y[m - 1, 0] = torch.nan
    return x, y, potential


PLAIN = ("gaussian", "ties", "tight clusters", "offset", "float16", "float64")
KINDS = (*PLAIN, "potential", "never", "nan in x", "nan in y")


def own(whole: Tensor | None, sizes: list[int], rank: int) -> Tensor | None:
    return None if whole is None else whole.split(sizes)[rank].clone()


def loss(value: Tensor, sizes: list[int], rank: int) -> Tensor:
    """Of a process: each row with a weight of its own, so that a gradient in the wrong place is another gradient."""
    weight = torch.arange(1.0, 1 + sum(sizes)).split(sizes)[rank]
    return (weight * value).sum()


def gradients(sizes: tuple[list[int], list[int]], rank: int) -> list[Tensor]:
    x, y, potential = (own(t, s, rank) for t, s in zip(draw(sizes, "potential"), (*sizes, sizes[1]), strict=True))
    leaves = [t.requires_grad_() for t in (x, y, potential)]
    loss(distributed.l2_argmin(*leaves).value, sizes[0], rank).backward()
    return [leaf.grad for leaf in leaves]


def wrong(calls: dict[str, Callable[[], object]]) -> dict[str, str]:
    said = {}
    for name, call in calls.items():
        try:
            call()
        except (ValueError, RuntimeError) as error:
            said[name] = str(error)
    return said


def work(rank: int, sizes: tuple[list[int], list[int]]) -> dict[str, Any]:
    """What one process gets. The group is all processes but the last of four."""
    count = len(sizes[0])
    group = dist.new_group(range(count - 1)) if count > 2 else None
    found = {}
    for kind in KINDS:
        x, y, potential = draw(sizes, kind)
        mine = own(x, sizes[0], rank), own(y, sizes[1], rank), own(potential, sizes[1], rank)
        found[kind] = tuple(distributed.l2_argmin(*mine))
    x, y = own(draw(sizes, "gaussian")[0], sizes[0], rank), own(draw(sizes, "gaussian")[1], sizes[1], rank)
    found["gradients"] = gradients(sizes, rank)
    if group is not None and rank < count - 1:
        found["group"] = tuple(distributed.l2_argmin(x, y, group=group))
    found["wrong"] = wrong(
        {
            "one": lambda: distributed.l2_argmin(x.long() if rank == 1 else x, y),
            "width": lambda: distributed.l2_argmin(x[:, rank:], y[:, rank:]),
            "dtype": lambda: distributed.l2_argmin(*((t.double() if rank else t) for t in (x, y))),
            "potential": lambda: distributed.l2_argmin(x, y, None if rank else torch.zeros(len(y))),
            "gradient": lambda: distributed.l2_argmin(x, y.clone().requires_grad_(rank == 0)),
            "empty": lambda: distributed.l2_argmin(x, y[:0]),
            "impl": lambda: distributed.l2_argmin(x, y, impl="cuda"),
        }
    )
    return found


@pytest.fixture(scope="module", params=SIZES)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The sizes, and what each process got."""
    sizes = SIZES[request.param]
    return sizes, outcomes(work, len(sizes[0]), tmp_path_factory.mktemp("processes"), sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_indices_are_those_of_one_process(kind, runs):
    sizes, found = runs
    value, index = l2_argmin(*draw(sizes, kind))
    assert torch.equal(torch.cat([result[kind][1] for result in found]), index)
    torch.testing.assert_close(torch.cat([result[kind][0] for result in found]), value, rtol=0, atol=0, equal_nan=True)


def test_gradients_go_to_the_process_that_holds_the_winner(runs):
    sizes, found = runs
    leaves = [t.requires_grad_() for t in draw(sizes, "potential")]
    values = l2_argmin(*leaves).value.split(sizes[0])
    sum(loss(value, sizes[0], rank) for rank, value in enumerate(values)).backward()
    for number, leaf in enumerate(leaves):
        torch.testing.assert_close(torch.cat([result["gradients"][number] for result in found]), leaf.grad)


def test_a_group_has_the_points_of_its_processes_alone(runs):
    sizes, found = runs
    if len(found) == 2:
        assert all("group" not in result for result in found)
        return
    x, y, _ = draw(sizes, "gaussian")
    value, index = l2_argmin(x[: sum(sizes[0][:-1])], y[: sum(sizes[1][:-1])])
    assert torch.equal(torch.cat([result["group"][1] for result in found[:-1]]), index)
    assert torch.equal(torch.cat([result["group"][0] for result in found[:-1]]), value)


def test_what_is_wrong_in_one_process_is_said_in_all(runs):
    _, found = runs
    one, other = (found[rank]["wrong"] for rank in (1, 0))
    name = "distributed.l2_argmin"
    assert one["one"].startswith(f"{name}: x must be float32, float64, float16 or bfloat16, got torch.int64")
    assert other["one"] == f"{name}: the arguments of process 1 are wrong; its own message says how"
    widths = ", ".join(str(5 - rank) for rank in range(len(found)))
    dtypes = ", ".join(["torch.float32", *["torch.float64"] * (len(found) - 1)])
    only_first = ", ".join(["yes", *["no"] * (len(found) - 1)])
    for said in (result["wrong"] for result in found):
        assert said["width"] == f"{name}: x's D must be the same in all processes, got {widths}"
        assert said["dtype"] == f"{name}: x's dtype must be the same in all processes, got {dtypes}"
        assert said["potential"] == (
            f"{name}: whether there is a potential must be the same in all processes, got {only_first}"
        )
        assert said["gradient"] == (
            f"{name}: whether y needs a gradient must be the same in all processes, got {only_first}"
        )
        assert said["empty"] == f"{name}: y must hold at least one point in some process, got none in all"
        assert "cannot run here" in said["impl"]


def test_without_a_group_this_process_is_the_only_one(randn):
    x, y = randn(10, 3), randn(20, 3)
    assert torch.equal(distributed.l2_argmin(x, y).index, l2_argmin(x, y).index)
