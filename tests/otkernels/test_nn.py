"""SoftForest: the op's values and gradients, torch.nn's habits, and its checks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from otkernels import soft_forest
from otkernels.nn import SoftForest


@pytest.mark.parametrize("learn", [False, True])
def test_it_is_the_op_on_scaled_rows(learn, randn):
    forest = SoftForest(5, trees=3, depth=2, out_dim=4, scale=2.0, learn_thresholds=learn, dtype=torch.float64)
    with torch.no_grad():
        forest.thresholds.copy_(randn(3, 3))
    z = randn(2, 7, 5, dtype=torch.float64).requires_grad_()
    thresholds, leaves = (t.detach().clone().requires_grad_() for t in (forest.thresholds, forest.leaves))
    expected = soft_forest(2 * z, thresholds, leaves)
    assert torch.equal(forest(z), expected)
    wanted = torch.autograd.grad(expected.square().sum(), (z, leaves, thresholds))
    inputs = (z, forest.leaves, *([forest.thresholds] if learn else []))
    for got, want in zip(torch.autograd.grad(forest(z).square().sum(), inputs), wanted, strict=False):
        assert torch.equal(got, want)


def test_learned_thresholds_are_a_parameter_and_fixed_ones_a_buffer():
    fixed, learned = SoftForest(4), SoftForest(4, learn_thresholds=True)
    assert [name for name, _ in fixed.named_parameters()] == ["leaves"]
    assert [name for name, _ in fixed.named_buffers()] == ["thresholds"]
    assert {name for name, _ in learned.named_parameters()} == {"leaves", "thresholds"}
    learned.load_state_dict(fixed.state_dict())
    z = torch.randn(3, 4)
    assert torch.equal(learned(z), fixed(z))


def test_leaves_start_so_that_the_mean_over_trees_is_of_unit_size():
    """Without a preference every leaf of 2^3 weighs 1/8, so F(0) has variance trees * 8 / (8 trees)^2 * trees = 1/8.

    2000 components: the sample variance is within 5 standard errors of 1/8, that is sqrt(2 / 2000) relative.
    """
    forest = SoftForest(1, trees=50, depth=3, out_dim=2000)
    assert not forest.thresholds.any()
    variance = forest(torch.zeros(1, 1)).var()
    assert abs(variance.item() - 1 / 8) < 5 * (2 / 2000) ** 0.5 / 8


def test_device_and_dtype_are_factory_arguments():
    forest = SoftForest(4, dtype=torch.float64, device="meta")
    for tensor in (forest.leaves, forest.thresholds):
        assert (tensor.dtype, tensor.device.type) == (torch.float64, "meta")
    skipped = nn.utils.skip_init(SoftForest, 4, trees=2)
    skipped.reset_parameters()
    assert skipped(torch.randn(3, 4)).isfinite().all()
    assert SoftForest(4).to(torch.bfloat16)(torch.zeros(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_it_prints_its_sizes():
    shown = "SoftForest(dim=5, trees=3, depth=2, out_dim=4, scale=2.0, learn_thresholds=True)"
    assert repr(SoftForest(5, 3, 2, 4, scale=2, learn_thresholds=True)) == shown


def test_it_compiles_and_exports_whole(randn):
    forest, z = SoftForest(5, trees=3, depth=2, learn_thresholds=True), randn(6, 5)
    expected = forest(z)
    assert torch.equal(torch.compile(forest, fullgraph=True, backend="aot_eager")(z), expected)
    assert torch.equal(torch.export.export(forest, (z,)).module()(z), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be a whole number of at least 1, got 0"),
        ({"dim": 2.0}, "dim must be a whole number of at least 1, got 2.0"),
        ({"trees": 0}, "trees must be a whole number of at least 1, got 0"),
        ({"out_dim": -1}, "out_dim must be a whole number of at least 1, got -1"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"depth": 17}, "depth must be in 1..16, got 17"),
        ({"scale": 0.0}, "scale must be a finite number > 0, got 0.0"),
        ({"scale": -1.0}, "scale must be a finite number > 0, got -1.0"),
        ({"scale": float("nan")}, "scale must be a finite number > 0, got nan"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"^SoftForest: {message}$"):
        SoftForest(**{"dim": 2, **options})


@pytest.mark.parametrize("shape", [(2, 3), (2, 9), (4,), (5, 0)])
def test_rows_of_another_width_are_refused(shape):
    """The op itself takes features modulo the rows' width."""
    with pytest.raises(ValueError, match=rf"^SoftForest: z must be \[N, 4\], got \[{', '.join(map(str, shape))}\]$"):
        SoftForest(4)(torch.zeros(shape))


def test_rows_of_another_dtype_are_refused():
    with pytest.raises(ValueError, match=r"soft_forest: thresholds must have z's dtype torch.float64"):
        SoftForest(4)(torch.zeros(2, 4, dtype=torch.float64))
