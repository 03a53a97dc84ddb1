"""Random problems of l2_argmin and l2_topk, and whether an implementation solves them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import clouds
from otkernels import l2_argmin, l2_topk
from tests.fuzz.draw import (
    CLOUDS,
    DIMENSIONS,
    LEADS,
    PLAIN,
    SIZES,
    Choices,
    cloud,
    dense,
    laid_out,
    potential,
    randn,
    same_bits,
    seldom,
    with_special,
    within,
)
from tests.otkernels.nearest import gradients_error, k_nearest_error, nearest_of_many_error

DTYPES = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
MOST_NUMBERS = 1 << 17  # of the [..., N, M, D] differences that the judge forms


class Pairs(NamedTuple):
    x: Tensor
    y: Tensor
    potential: Tensor | None
    k: int | None  # None: l2_argmin
    precision: str
    impl: str
    weight: Tensor | None  # of the values, for gradients; None: none are asked for

    def solve(self) -> tuple[Tensor, Tensor]:
        if self.k is None:
            return l2_argmin(self.x, self.y, self.potential, precision=self.precision, impl=self.impl)
        return l2_topk(self.x, self.y, self.k, self.potential, impl=self.impl)


def draw_l2_argmin(choices: Choices) -> Pairs:
    if choices.may_be_large and seldom(choices, "large", 250):
        return _large(choices)
    return _small(choices, None)


def draw_l2_topk(choices: Choices) -> Pairs:
    return _small(choices, choices.pick("k", (1, 2, 3, 5, 8, 16, 17, 31, 64, 127, 128)))


def _small(choices: Choices, k: int | None) -> Pairs:
    lead = choices.pick("lead", LEADS)
    n, m, d = (choices.pick(name, sizes) for name, sizes in (("n", (*SIZES, 0)), ("m", SIZES), ("d", DIMENSIONS)))
    n, m, d = within(MOST_NUMBERS // max(1, sum(lead)), n, m, d)
    kind = choices.pick("numbers", ("plain", "plain", "any"))
    x, y = cloud(choices, (*lead, n, d), (*lead, m, d), PLAIN if kind == "plain" else tuple(CLOUDS))
    dtype = choices.pick("dtype", DTYPES)
    x, y = x.to(dtype), y.to(dtype)
    offsets = potential(choices, (*lead, m))
    offsets = None if offsets is None else offsets.to(dtype)
    if kind == "any":
        with_special(choices, x=x, y=y, potential=offsets)
    x, y = laid_out(choices, "x", x), laid_out(choices, "y", y)
    offsets = None if offsets is None else laid_out(choices, "potential", offsets)
    precision = choices.pick("precision", ("exact", "exact", "tf32", "bf16"))
    impl = choices.pick("impl", ("cpu", "cpu", "auto", "reference"))
    weight = None
    if kind == "plain" and choices.pick("gradients", (False, False, True)):
        weight = randn(choices, *lead, n, *(() if k is None else (min(k, m),)))
    return Pairs(x, y, offsets, None if k is None else min(k, m), precision, impl, weight)


def _large(choices: Choices) -> Pairs:
    """Just above the work from which copies of points and clusters are looked for."""
    kind = choices.pick("large cloud", clouds.CLOUDS + clouds.TWO_LAWS)
    x, y = clouds.draw(kind, 1024, 4200, choices.pick("large d", (64, 67)), choices.generator)
    offsets = randn(choices, 4200) if choices.pick("priced", (False, True)) else None
    dtype = choices.pick("dtype", (torch.float32, torch.float32, torch.float64))
    offsets = None if offsets is None else offsets.to(dtype)
    return Pairs(x.to(dtype), y.to(dtype), offsets, None, "exact", "cpu", None)


def judge(p: Pairs) -> float:
    """The worst error in units of its tolerance; AssertionError for what no rounding excuses."""
    value, index = p.solve()
    lead, n = p.x.shape[:-2], p.x.shape[-2]
    shape = (*lead, n) if p.k is None else (*lead, n, p.k)
    assert value.shape == index.shape == shape, f"shapes are {list(value.shape)} and {list(index.shape)}"
    assert value.dtype == (torch.float64 if p.x.dtype == torch.float64 else torch.float32), f"value is {value.dtype}"
    if p.x.dim() == 2 and n * p.y.shape[-2] > MOST_NUMBERS:
        return nearest_of_many_error(value, index, p.x, p.y, p.potential)
    if p.k is None:
        error = k_nearest_error(value[..., None], index[..., None], p.x, p.y, p.potential)
    else:
        error = k_nearest_error(value, index, p.x, p.y, p.potential)
        if p.impl != "reference":
            nearest = l2_argmin(p.x, p.y, p.potential, impl=p.impl)
            assert same_bits(nearest, (value[..., 0], index[..., 0])), "the first neighbour is not l2_argmin's"
    plain = p._replace(x=dense(p.x), y=dense(p.y), potential=dense(p.potential))
    assert same_bits((value, index), plain.solve()), "strides change the result"
    if p.weight is not None:
        error = max(error, _gradients(p, value, index))
    return error


def _gradients(p: Pairs, value: Tensor, index: Tensor) -> float:
    names = [name for name in ("x", "y", "potential") if getattr(p, name) is not None]
    tracked = p._replace(**{name: getattr(p, name).detach().requires_grad_() for name in names})
    again, chosen = tracked.solve()
    assert same_bits((again.detach(), chosen), (value, index)), "under autograd the result is another one"
    inputs = [getattr(tracked, name) for name in names]
    grads = torch.autograd.grad(again, inputs, p.weight.to(value.dtype))
    if not (value.isfinite() | (index < 0)).all():
        return 0.0  # infinite values have no gradient to speak of
    for grad, tensor in zip(grads, inputs, strict=True):
        assert (grad.shape, grad.dtype) == (tensor.shape, tensor.dtype)
    every = (p.weight[..., None], index[..., None]) if p.k is None else (p.weight, index)
    return gradients_error([*grads, None][:3], *every, p.x, p.y, p.potential)
