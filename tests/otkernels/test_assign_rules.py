"""assign as PyTorch sees it: derivatives, vmap, the compiler, autocast, files; what verify refuses; messages."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from otkernels import Assignment, assign, verify
from tests.otkernels.cases import devices_and_impls
from tests.otkernels.matching import assert_optimal

everywhere = pytest.mark.parametrize(("device", "impl"), devices_and_impls("assign"))
SHAPES = ((12, 3), (15, 3), (15,))


def assert_same(got: Assignment, expected: Assignment) -> None:
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


# ---- derivatives of the matched cost (Danskin) -----------------------------------------------------------------------


@everywhere
def test_the_gradient_is_that_of_the_matched_cost(device, impl, randn):
    x, y, potential = (randn(*s, device=device).requires_grad_() for s in SHAPES)
    result = assign(x, y, potential=potential, impl=impl)
    for part in (result.index, result.u, result.v, result.dual, result.gap):
        assert not part.requires_grad
    grads = torch.autograd.grad(3 * result.primal, (x, y, potential))
    pairs = 6 * (x - y[result.index]).detach()
    zero = torch.zeros_like(y)
    # a float64 product and its rounding to float32: one unit each
    torch.testing.assert_close(grads[0], pairs, rtol=3e-7, atol=0)
    torch.testing.assert_close(grads[1], zero.index_copy(0, result.index, -pairs).detach(), rtol=3e-7, atol=0)
    assert torch.equal(grads[2], zero[:, 0].index_fill(0, result.index, -3.0).detach())


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_gradcheck_once_twice_and_forward(impl, randn):
    tensors = [randn(*s, dtype=torch.float64).requires_grad_() for s in ((2, 4, 2), (2, 5, 2), (2, 5))]

    def primal(x: Tensor, y: Tensor, potential: Tensor) -> Tensor:
        return assign(x, y, potential=potential, impl=impl).primal

    assert torch.autograd.gradcheck(primal, tensors, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(primal, tensors)


def test_torch_func_differentiates_primal(randn):
    x, y, potential = (randn(*s, dtype=torch.float64) for s in SHAPES)

    def primal(x: Tensor, y: Tensor, potential: Tensor) -> Tensor:
        return assign(x, y, potential=potential).primal

    index = assign(x, y, potential=potential).index
    pairs = 2 * (x - y[index])
    expected = (pairs, torch.zeros_like(y).index_copy(0, index, -pairs))
    got = torch.func.grad(primal, (0, 1, 2))(x, y, potential)
    torch.testing.assert_close(got[:2], expected, rtol=1e-15, atol=0)
    assert torch.equal(got[2], torch.zeros_like(potential).index_fill(0, index, -1.0))
    torch.testing.assert_close(torch.func.jacfwd(primal)(x, y, potential), pairs, rtol=1e-15, atol=0)
    each = torch.vmap(torch.func.grad(primal), in_dims=(0, None, None))(torch.stack((x, x.flip(0))), y, potential)
    torch.testing.assert_close(each, torch.stack((pairs, pairs.flip(0))), rtol=1e-15, atol=0)


# ---- vmap, the compiler, autocast, files -----------------------------------------------------------------------------


@everywhere
def test_vmap_equals_the_loop(device, impl, randn):
    x, y, potential = (randn(*s, device=device) for s in ((4, 7, 3), (9, 4, 3), (9,)))

    def call(x: Tensor, y: Tensor) -> Assignment:
        return assign(x, y, potential=potential, impl=impl)

    result = torch.vmap(call, in_dims=(0, 1))(x, y)
    shared = torch.vmap(call, in_dims=(0, None))(x, y[:, 0])
    for i in range(4):
        assert_same(Assignment(*(part[i] for part in result)), call(x[i], y[:, i]))
        assert_same(Assignment(*(part[i] for part in shared)), call(x[i], y[:, 0]))


@everywhere
def test_compiles_whole(device, impl, randn):
    torch._dynamo.reset()
    x, y, potential = (randn(*s, device=device).requires_grad_() for s in SHAPES)

    def call(x: Tensor, y: Tensor, potential: Tensor | None) -> Assignment:
        return assign(2 * x, y, potential=potential, impl=impl)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for offsets in (potential, None):
        got, expected = compiled(x, y, offsets), call(x, y, offsets)
        assert type(got) is Assignment
        assert_same(got, expected)
        assert torch.equal(*(torch.autograd.grad(result.primal, x)[0] for result in (got, expected)))


@everywhere
def test_opcheck(device, impl, randn):
    x, y, potential = (randn(2, *s, device=device) for s in SHAPES)
    torch.library.opcheck(torch.ops.otkernels.assign.default, (x, y, potential, 0.0, impl))
    torch.library.opcheck(torch.ops.otkernels.assign.default, (x, y, None, 0.5, impl))


def test_mixed_dtypes_meet_in_float32_under_autocast(randn):
    x, y = randn(9, 5), randn(12, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = assign(x, y)
    assert_same(result, assign(x, y.float()))


def test_gradients_have_their_tensor_s_precision(randn):
    x, y = randn(9, 5).bfloat16().requires_grad_(), randn(12, 5).bfloat16()
    result = assign(x, y)
    assert_optimal(result, x.detach(), y)
    result.primal.backward()
    assert x.grad.dtype == torch.bfloat16


def test_the_result_is_saved_and_read(tmp_path, randn):
    result = assign(randn(4, 2), randn(5, 2))
    torch.save({"matching": result}, tmp_path / "result.pt")
    again = torch.load(tmp_path / "result.pt", weights_only=True)["matching"]
    for copy in (again, pickle.loads(pickle.dumps(result))):
        assert type(copy) is Assignment
        assert_same(copy, result)


def test_meta_tensors_have_shapes():
    x, y = torch.zeros(2, 3, 4, device="meta"), torch.zeros(2, 5, 4, device="meta")
    result = assign(x, y, impl="reference")
    assert [tuple(part.shape) for part in result] == [(2, 3), (2, 3), (2, 5), (2,), (2,), (2,)]


# ---- verify ----------------------------------------------------------------------------------------------------------


def swapped(result: Assignment) -> Assignment:
    """The first two rows take each other's columns."""
    index = result.index.clone()
    index[:2] = index[:2].flip(0)
    return result._replace(index=index)


FORGERIES = {
    "swapped": swapped,
    "twice the same column": lambda r: r._replace(index=torch.cat((r.index[1:2], r.index[1:]))),
    "not solved": lambda r: r._replace(index=torch.cat((r.index[:-1], torch.tensor([-1])))),
    "u higher": lambda r: r._replace(u=r.u + torch.eye(len(r.u), dtype=torch.float64)[3] * 1e-9),
    "u lower": lambda r: r._replace(u=r.u - torch.eye(len(r.u), dtype=torch.float64)[3] * 1e-9),
    "v higher": lambda r: r._replace(v=r.v + torch.eye(len(r.v), dtype=torch.float64)[r.index[3]] * 1e-9),
    "v lower": lambda r: r._replace(v=r.v - torch.eye(len(r.v), dtype=torch.float64)[r.index[3]] * 1e-9),
    "u is NaN": lambda r: r._replace(u=r.u * torch.nan),
    "v is NaN": lambda r: r._replace(v=r.v * torch.nan),
    "u and v moved against each other": lambda r: r._replace(u=r.u - 0.1, v=r.v + 0.1),
}


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("m", [20, 26])
@pytest.mark.parametrize("with_potential", [False, True])
def test_verify_refuses_what_is_not_optimal(with_potential, m, name, randn):
    """Costs are near 1, so that 1e-9 is a thousand times what verify allows for. Where N = M, any shift serves."""
    x, y, potential = randn(20, 3), randn(m, 3), randn(m) if with_potential else None
    result = assign(x, y, potential=potential)
    found = verify(x, y, result, potential)
    assert found.valid
    assert 0 <= found.violation <= found.rounding < 1e-11
    assert ((found.primal - result.primal).abs() <= x.shape[-2] * found.rounding).all()  # sums in another order
    assert (found.dual - result.dual).abs() <= m * found.rounding
    forged = verify(x, y, FORGERIES[name](result), potential)
    assert bool(forged.valid) == (m == 20 and name == "u and v moved against each other")


def test_verify_refuses_a_column_for_two_rows_even_at_no_cost():
    x = torch.ones(4, 2)
    result = assign(x, x)
    assert verify(x, x, result).valid
    assert not verify(x, x, result._replace(index=torch.tensor([0, 1, 2, 2]))).valid


def test_verify_refuses_positive_v_where_columns_stay_free(randn):
    """u and v move so that their sum stays and all pairs keep feasible: only v <= 0 is broken."""
    x, y = randn(20, 3), randn(26, 3)
    result = assign(x, y)
    moved = verify(x, y, result._replace(u=result.u - 0.1 * 26 / 20, v=result.v + 0.1))
    assert abs(moved.primal - moved.dual) <= 20 * moved.rounding
    assert abs(moved.violation - 0.1) <= moved.rounding
    assert not moved.valid


def test_verify_tells_problems_apart(randn):
    x, y = randn(3, 20, 3), randn(3, 20, 3)
    result = assign(x, y)
    result.index[1] = result.index[1].roll(1)
    assert verify(x, y, result).valid.tolist() == [True, False, True]
    assert not verify(x, y + 0.5 * randn(3, 20, 3), result).valid.any()


def test_verify_measures_the_violation(randn):
    x, y = randn(10, 2), randn(14, 2)
    result = assign(x, y)
    for number, change in (("u", 0.25), ("v", 0.125)):
        changed = result._replace(**{number: getattr(result, number) + change})
        found = verify(x, y, changed)
        # all of one potential moved: pairs that were tight are off by the change, in float64
        assert abs(found.violation - change) <= found.rounding


# ---- messages --------------------------------------------------------------------------------------------------------

X = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(4), X), {}, "assign: x must be [..., N, D] with D >= 1, got [4]"),
        ((torch.zeros(3, 0), X), {}, "assign: x must be [..., N, D] with D >= 1, got [3, 0]"),
        ((X, torch.zeros(5, 6)), {}, "assign: y must be [M, D] with D=4, got [5, 6]"),
        ((X[None], X), {}, "assign: y must be [1, M, D] with D=4, got [3, 4]"),
        ((X, X[1:]), {}, "assign: y must hold at least as many points as x (M >= N=3), got [2, 4]"),
        ((X, X.double()), {}, "assign: y must have x's dtype torch.float32, got torch.float64 [3, 4]"),
        ((X.long(), X), {}, "assign: x must be float32, float64, float16 or bfloat16, got torch.int64 [3, 4]"),
        (([1.0], X), {}, "assign: x must be a torch.Tensor, got list"),
        ((X, X), {"potential": torch.zeros(4)}, "assign: potential must be [M] with M=3, got [4]"),
        ((X, X), {"tolerance": -0.1}, "assign: tolerance must be a finite number >= 0, got -0.1"),
        ((X, X), {"tolerance": float("nan")}, "assign: tolerance must be a finite number >= 0, got nan"),
        ((X, X), {"tolerance": True}, "assign: tolerance must be a finite number >= 0, got True"),
        ((X, X), {"impl": "triton"}, "assign: impl must be auto or one of cpu, cuda, reference, got 'triton'"),
        ((X, X), {"impl": None}, "assign: impl must be auto or one of cpu, cuda, reference, got None"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        assign(*arguments, **options)
    assert str(error.value) == message


def test_verify_names_bad_input():
    result = assign(X, X)
    with pytest.raises(ValueError, match=r"^verify: y must be \[M, D\] with D=4, got \[3, 5\]$"):
        verify(X, torch.zeros(3, 5), result)


def test_an_implementation_that_cannot_run_says_why():
    with pytest.raises(RuntimeError, match="assign: impl='cuda' cannot run here: the tensors are on cpu"):
        assign(X, X, impl="cuda")
