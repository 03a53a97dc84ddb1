import pytest
import torch

from models.transforms import AffineTransform, MlpTransform


@pytest.mark.parametrize("transform", [AffineTransform(3), MlpTransform(3, 8)])
@pytest.mark.parametrize("lead", [(0,), (1,), (5,), (2, 4)])
def test_a_transform_starts_as_the_identity(transform, lead, randn):
    z = randn(*lead, 3)
    assert torch.equal(transform(z), z)


def test_affine_by_hand():
    transform = AffineTransform(2)
    with torch.no_grad():
        transform.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        transform.bias.copy_(torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(transform(torch.tensor([[1.0, 3.0]])), torch.tensor([[1 + 6 + 0.5, -3.0]]))


def test_mlp_by_hand():
    """z + W3 relu(W2 relu(W1 z)) with one hidden unit in each layer: 2 relu(3 relu(-z))."""
    transform = MlpTransform(1, 1)
    first, second, last = (layer for layer in transform.network if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        for layer, weight in ((first, -1.0), (second, 3.0), (last, 2.0)):
            layer.weight.fill_(weight)
    z = torch.tensor([[-1.0], [2.0]])
    torch.testing.assert_close(transform(z), torch.tensor([[-1.0 + 6], [2.0]]))


def test_an_mlp_learns_in_every_layer(randn):
    """Its last layer starts at 0, which hides the others from the first step only."""
    transform, z = MlpTransform(2, 16), randn(32, 2)
    optimizer = torch.optim.SGD(transform.parameters(), lr=0.1)
    before = {key: value.detach().clone() for key, value in transform.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        (transform(z) - z.square()).square().mean().backward()
        optimizer.step()
    for key, value in transform.named_parameters():
        assert not torch.equal(value, before[key]), key


def test_an_mlp_learns_what_no_affine_map_can():
    """F(z) = |z| on -2, -1, 1, 2: the best affine map is the constant 1.5, with a mean squared error of 0.25."""
    torch.manual_seed(0)
    z = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    errors = []
    for transform in (AffineTransform(1), MlpTransform(1, 16)):
        optimizer = torch.optim.Adam(transform.parameters(), lr=0.02)
        for _ in range(500):
            error = (transform(z) - z.abs()).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        errors.append(error.item())
    assert errors[0] == pytest.approx(0.25, abs=1e-3)  # of the end of Adam's way, a step of 0.02 squared
    assert errors[1] < 1e-2
