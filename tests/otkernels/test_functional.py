"""torch.func's derivatives and forward mode: those of the definitions in plain PyTorch, in every order and nesting."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp, vmap

from otkernels import AdamState, assign, fit_transport, l2_argmin, l2_topk, soft_forest
from otkernels.soft_forest import reference as trees

Call = Callable[..., Tensor]


def pairing(*tensors: Tensor) -> Tensor:
    return l2_argmin(*tensors).value


def plain_pairing(x: Tensor, y: Tensor, potential: Tensor | None = None) -> Tensor:
    cost = (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)  # [..., N, M]
    return (cost if potential is None else cost - potential[..., None, :]).amin(-1)


def nearest_three(x: Tensor, y: Tensor, potential: Tensor | None = None) -> Tensor:
    return l2_topk(x, y, 3, potential).value


def plain_nearest_three(x: Tensor, y: Tensor, potential: Tensor | None = None) -> Tensor:
    cost = (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)
    return (cost if potential is None else cost - potential[..., None, :]).topk(3, largest=False).values


def matching(x: Tensor, y: Tensor, potential: Tensor | None = None) -> Tensor:
    return assign(x, y, potential=potential).primal


def plain_matching(x: Tensor, y: Tensor, potential: Tensor | None = None) -> Tensor:
    """The least of the costs of all matchings."""
    sigma = torch.tensor(list(itertools.permutations(range(y.shape[-2]), x.shape[-2])))  # [matchings, N]
    cost = (x[..., None, :, :] - y[..., sigma, :]).square().sum((-1, -2))
    return (cost if potential is None else cost - potential[..., sigma].sum(-1)).amin(-1)


def plain_forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    if leaves.dim() > 3:
        return trees.soft_forest(z, thresholds, leaves)
    return trees.soft_forest(z[None], thresholds[None], leaves[None])[0]


CASES: dict[str, tuple[Call, Call, tuple[tuple[int, ...], ...]]] = {
    "l2_argmin": (pairing, plain_pairing, ((9, 3), (5, 3))),
    "l2_argmin_potential": (pairing, plain_pairing, ((9, 3), (5, 3), (5,))),
    "l2_argmin_batch": (pairing, plain_pairing, ((2, 6, 3), (2, 5, 3), (2, 5))),
    "l2_topk": (nearest_three, plain_nearest_three, ((9, 3), (5, 3))),
    "l2_topk_batch": (nearest_three, plain_nearest_three, ((2, 6, 3), (2, 5, 3), (2, 5))),
    "assign_batch": (matching, plain_matching, ((2, 3, 2), (2, 4, 2), (2, 4))),
    "soft_forest": (soft_forest, plain_forest, ((6, 4), (2, 3), (2, 4, 3))),
    "soft_forest_batch": (soft_forest, plain_forest, ((2, 4, 3), (2, 2, 1), (2, 2, 2, 3))),
}
every_case = pytest.mark.parametrize("name", CASES)


def problem(randn: Callable[..., Tensor], name: str) -> tuple[Call, Call, list[Tensor], tuple[int, ...]]:
    """The op, its definition, float64 inputs, and the numbers of all of them."""
    op, plain, shapes = CASES[name]
    return op, plain, [randn(*shape, dtype=torch.float64) for shape in shapes], tuple(range(len(shapes)))


def squares(call: Call) -> Call:
    return lambda *tensors: call(*tensors).square().sum()


def assert_alike(got: object, expected: object) -> None:
    """Float64: sums of fewer than 1000 terms in another order, through at most four derivatives."""
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def moved(tensors: list[Tensor]) -> list[Tensor]:
    return [0.3 * t.flip(0) + 0.1 for t in tensors]


Tensors = list[Tensor]
Numbers = tuple[int, ...]


def grad_squared(call: Call, numbers: Numbers) -> Call:
    """The squared length of the gradient of squares(call), a function of the same tensors."""
    return lambda *tensors: sum(g.square().sum() for g in grad(squares(call), numbers)(*tensors))


def twice(call: Call, rest: Tensors) -> Call:
    """`call` mapped over two versions of its first argument."""
    return lambda first: vmap(lambda rows: call(rows, *rest))(torch.stack((first, 2 * first)))


WAYS: dict[str, Callable[[Call, Tensors, Numbers], object]] = {
    "grad": lambda f, t, n: grad(squares(f), n)(*t),
    "vjp": lambda f, t, n: vjp(f, *t)[1](f(*t).detach().sin()),
    "jacrev": lambda f, t, n: jacrev(f, n)(*t),
    "jvp": lambda f, t, n: jvp(f, tuple(t), tuple(moved(t))),
    "jvp of one": lambda f, t, n: jvp(lambda last: f(*t[:-1], last), (t[-1],), (t[-1].cos(),)),
    "jacfwd": lambda f, t, n: jacfwd(f, n)(*t),
    "grad of grad": lambda f, t, n: grad(grad_squared(f, n), n)(*t),
    "jacfwd of grad": lambda f, t, n: hessian(squares(f), n)(*t),
    "jacrev of grad": lambda f, t, n: jacrev(jacrev(squares(f), n), n)(*t),
    "jacrev of jacfwd": lambda f, t, n: jacrev(jacfwd(squares(f), n), n)(*t),
    "jvp of grad of grad": lambda f, t, n: jvp(grad(grad_squared(f, n), n), tuple(t), tuple(moved(t))),
    "grad of jvp of grad": lambda f, t, n: grad(
        lambda *s: sum(d.square().sum() for d in jvp(grad(squares(f), n), s, tuple(moved(t)))[1]), n
    )(*t),
    "vmap of grad": lambda f, t, n: vmap(grad(squares(f), n))(*(torch.stack((x, x + 0.1)) for x in t)),
    "vmap of grad of one": lambda f, t, n: vmap(grad(lambda x: squares(f)(x, *t[1:])))(torch.stack((t[0], t[0] + 0.1))),
    "vmap of jvp": lambda f, t, n: vmap(lambda d: jvp(f, tuple(t), (d, *moved(t[1:])))[1])(torch.stack((t[0], -t[0]))),
    "grad of vmap": lambda f, t, n: grad(squares(twice(f, t[1:])))(t[0]),
    "grad of grad of vmap": lambda f, t, n: grad(grad_squared(twice(f, t[1:]), (0,)))(t[0]),
    "jvp of vmap": lambda f, t, n: jvp(twice(f, t[1:]), (t[0],), (t[0].cos(),)),
}


@pytest.mark.parametrize("way", WAYS)
@every_case
def test_derivatives_are_the_definition_s(name, way, randn):
    op, plain, tensors, numbers = problem(randn, name)
    assert_alike(WAYS[way](op, tensors, numbers), WAYS[way](plain, tensors, numbers))


@every_case
def test_values_and_gradients_are_those_of_backward_to_the_last_bit(name, randn):
    op, _, tensors, numbers = problem(randn, name)
    tensors = [t.float() for t in tensors]
    grads, value = grad_and_value(squares(op), numbers)(*tensors)
    assert torch.equal(value, squares(op)(*tensors))
    needed = [t.requires_grad_() for t in tensors]
    for got, expected in zip(grads, torch.autograd.grad(squares(op)(*needed), needed), strict=True):
        assert torch.equal(got, expected)


@every_case
def test_backward_through_what_torch_func_took(name, randn):
    """Outer derivatives by torch.autograd, inner ones by torch.func; and by dual numbers without torch.func."""
    op, plain, tensors, numbers = problem(randn, name)
    needed = [t.clone().requires_grad_() for t in tensors]

    def by_grad(f: Call) -> Tensor:
        return sum(g.square().sum() for g in grad(squares(f), numbers)(*needed))

    def by_jvp(f: Call) -> Tensor:
        return jvp(f, tuple(needed), tuple(moved(tensors)))[1].square().sum()

    def by_duals(f: Call) -> Tensor:
        with forward_ad.dual_level():
            duals = (forward_ad.make_dual(t, d) for t, d in zip(needed, moved(tensors), strict=True))
            return forward_ad.unpack_dual(f(*duals)).tangent.square().sum()

    for way in (by_grad, by_jvp, by_duals):
        got, expected = (torch.autograd.grad(way(f), needed, materialize_grads=True) for f in (op, plain))
        assert_alike(got, expected)


@every_case
def test_what_is_not_differentiated_passes(name, randn):
    op, _, (first, *rest), _ = problem(randn, name)
    value = op(first, *rest).square().sum()
    aside = grad(lambda scale: scale * op(first, *rest).square().sum())(torch.tensor(2.0, dtype=torch.float64))
    assert torch.equal(aside, value)
    stopped = grad(lambda rows: rows.sum() * op(rows.detach(), *rest).square().sum())(first)
    assert torch.equal(stopped, torch.full_like(first, value.item()))


@every_case
def test_the_compiler_traces_gradients(name, randn):
    torch._dynamo.reset()
    op, _, tensors, numbers = problem(randn, name)
    compiled = torch.compile(grad(squares(op), numbers), fullgraph=True, backend="aot_eager")
    assert_alike(compiled(*tensors), grad(squares(op), numbers)(*tensors))


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("assign")])  # primal is PyTorch's own
def test_what_would_be_wrong_is_refused(name, randn):
    """PyTorch drops the outer tangent where an autograd.Function's jvp runs, and compiles no Function that has one."""
    torch._dynamo.reset()
    op, _, (first, *rest), _ = problem(randn, name)
    refused = name.removesuffix("_batch").removesuffix("_potential")
    with pytest.raises(NotImplementedError, match=f"^{refused}: forward mode inside forward mode"):
        jacfwd(jacfwd(lambda rows: op(rows, *rest)))(first)
    compiled = torch.compile(
        lambda rows: jvp(lambda x: op(x, *rest), (rows,), (rows,)), fullgraph=True, backend="aot_eager"
    )
    with pytest.raises(torch._dynamo.exc.Unsupported, match=f"{refused}: forward mode is not supported inside torch"):
        compiled(first)


def test_rows_with_a_nan_have_nan_tangents(randn):
    x, y = randn(3, 4), randn(5, 4)
    x[1, 2] = torch.nan
    tangent = jvp(lambda rows: l2_argmin(rows, y).value, (x,), (torch.ones_like(x),))[1]
    assert tangent.isnan().tolist() == [False, True, False]


def test_tangents_of_half_precisions_are_float32_as_values_are(randn):
    x, y = randn(3, 4).bfloat16(), randn(5, 4).bfloat16()
    value, tangent = jvp(lambda rows: l2_argmin(rows, y).value, (x,), (x,))
    assert value.dtype == tangent.dtype == torch.float32


def test_no_tangent_passes_through_training(randn):
    leaves = randn(2, 4, 6)
    rest = randn(7, 5), randn(2, 3), leaves, AdamState.zeros_like(leaves)
    with pytest.raises(NotImplementedError, match=r"^fit_transport: forward mode is not supported"):
        jvp(lambda rows: fit_transport(rows, *rest).cost, (randn(9, 6),), (randn(9, 6),))
