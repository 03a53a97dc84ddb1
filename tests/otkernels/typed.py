"""What a type checker infers in a user's code. `make lint` reads this file; nothing runs it."""

from typing import assert_type

from torch import Tensor

import otkernels
from otkernels import (
    AdamState,
    Assignment,
    FitTransport,
    L2Argmin,
    L2TopK,
    Semidiscrete,
    TransportCost,
    Verification,
    assign,
    balanced,
    fit_transport,
    l2_argmin,
    l2_topk,
    semidiscrete,
    soft_forest,
    transport_cost,
    verify,
)
from otkernels.coupling import ExactOT, SemidiscreteOT
from otkernels.nn import SoftForest


def nearest(x: Tensor, y: Tensor) -> None:
    value, index = found = l2_argmin(x, y, precision="exact")
    assert_type(found, L2Argmin)
    for tensor in (value, index, found.value, found.index):
        assert_type(tensor, Tensor)
    l2_argmin(x, y, potential=0.0)  # type: ignore[arg-type]
    assert_type(otkernels.available_impls("l2_argmin"), list[str])
    assert_type(l2_topk(x, y, 5), L2TopK)
    l2_topk(x, y, 5, impl=None)  # type: ignore[arg-type]


def matchings(x: Tensor, y: Tensor) -> None:
    found = semidiscrete(x, y, batch=64)
    assert_type(found, Semidiscrete)
    assert_type(found.potential, Tensor)
    assert_type(balanced(x, y, found.potential), Tensor)
    assert_type(ExactOT().sample_plan(x, y), tuple[Tensor, Tensor])
    assert_type(SemidiscreteOT(y).fit(x, tolerance=0.1), Semidiscrete)
    semidiscrete(x, y, y, batch="all")  # type: ignore[arg-type]


def matching(x: Tensor, y: Tensor) -> None:
    index, u, v, primal, dual, gap = found = assign(x, y, potential=None, tolerance=1e-3)
    assert_type(found, Assignment)
    for tensor in (index, u, v, primal, dual, gap, found.index, found.gap):
        assert_type(tensor, Tensor)
    assert_type(verify(x, y, found), Verification)
    assert_type(verify(x, y, found).valid, Tensor)
    assign(x, y, tolerance=None)  # type: ignore[arg-type]
    assign(x, y, None)  # type: ignore[call-arg]


def transport(x: Tensor, z: Tensor) -> None:
    forest = otkernels.nn.SoftForest(128)
    assert_type(forest, SoftForest)
    assert_type(forest(z), Tensor)
    assert_type(soft_forest(z, forest.thresholds, forest.leaves), Tensor)
    fitted = fit_transport(x, z, forest.thresholds, forest.leaves, AdamState.zeros_like(forest.leaves), iters=2)
    assert_type(fitted, FitTransport)
    assert_type(fitted.cost, Tensor)
    assert_type(transport_cost(x, z, forest.thresholds, forest.leaves.detach()), TransportCost)
    fit_transport(x, z, forest.thresholds, forest.leaves, (x, x, x))  # type: ignore[arg-type]
