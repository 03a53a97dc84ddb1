"""ImageConv2d against nn.Conv2d: the same layer, whoever is frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.networks.image_conv import ImageConv2d, _Frozen


def pair(randn, channels: int, maps: int) -> tuple[ImageConv2d, nn.Conv2d]:
    ours, plain = ImageConv2d(channels, maps).double(), nn.Conv2d(channels, maps, 5, stride=2, padding=2).double()
    ours.load_state_dict(plain.state_dict())
    return ours, plain


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (9, 9), (8, 7), (1, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_gradients(channels, size, frozen, randn):
    """In float64: sums of up to 25 * 16 terms in another order, 1e-13."""
    ours, plain = (layer.requires_grad_(not frozen) for layer in pair(randn, channels, 16))
    x = randn(3, channels, *size, dtype=torch.float64).requires_grad_()
    outs = [layer(x) for layer in (ours, plain)]
    assert torch.equal(*outs)
    weight = randn(*outs[0].shape, dtype=torch.float64)
    inputs = [x] if frozen else [x, ours.weight, ours.bias], [x] if frozen else [x, plain.weight, plain.bias]
    for a, b in zip(*(torch.autograd.grad(o, i, weight) for o, i in zip(outs, inputs, strict=True)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_a_frozen_layer_on_the_cpu_takes_the_quick_way_and_no_other_does(randn, monkeypatch):
    taken = []
    apply = _Frozen.apply
    monkeypatch.setattr(_Frozen, "apply", lambda *inputs: taken.append(1) or apply(*inputs))
    layer, x = ImageConv2d(3, 4), randn(2, 3, 8, 8)
    layer(x.clone().requires_grad_())
    layer.requires_grad_(False)
    layer(x)
    assert not taken
    layer(x.clone().requires_grad_())
    assert len(taken) == 1
    with torch.autocast("cpu", torch.bfloat16):
        layer(x.clone().requires_grad_())
    assert len(taken) == 1


def test_the_gradient_of_the_gradient(randn):
    layer = ImageConv2d(2, 3).double().requires_grad_(False)
    x = randn(2, 2, 5, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)
