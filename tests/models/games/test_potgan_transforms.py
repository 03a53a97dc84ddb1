"""POT-GAN's F in its four kinds: the losses through it, its own turn, what it learns."""

import math

import pytest
import torch
from torch import nn

from models.forest import LatentTransformationForest
from models.games import PotGan
from models.games.potgan import ForestConfig
from tests.models.games.players import LinearCritic, Points, mlp, train, turns

TRANSFORMS = ("forest", "identity", "affine", "mlp")
TOTALS = {"cover": 0.25 + 0 + 1, "literal": 0 + 0.25 + 81, "assignment": 0.25 + 0 + 9, "sinkhorn": 0.25 + 0 + 9}


def inverse(transform, value):
    """The z of F(z) = value under known_game's F."""
    return {"forest": math.log((20 + value) / (20 - value)), "affine": (value - 1) / 2}.get(transform, value)


def known_game(transform, values, **options):
    """A generator of points whose F is ``values``: F(z) = z (identity, mlp at its start), 2 z + 1 (affine) or, with one
    tree of depth 1 and leaves +-20, 20 (2 sigmoid(z) - 1) (forest)."""
    points = [[inverse(transform, value)] for value in values]
    forest = ForestConfig(trees=1, depth=1, **options.pop("forest", {}))
    config = PotGan.Config(mlp(), transform=transform, forest=forest, **{"transport_weight": 0.3, **options})
    game = PotGan(config, Points(points), LinearCritic([0.0], 2.0), nn.Flatten(), 1)
    with torch.no_grad():
        if transform == "forest":
            game.players["forest"].leaves.copy_(torch.tensor([[[20.0], [-20.0]]]))
        if transform == "affine":
            game.players["affine"].weight.fill_(2.0)
            game.players["affine"].bias.fill_(1.0)
    return game


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("pairing", TOTALS)
def test_losses_by_hand_under_every_transform(transform, pairing):
    """Real latents 0, 5, 6 and F(z_g) = 5, 0.5, 9, as in test_potgan.py, whose tolerance for sinkhorn this is; F's own
    loss is the matched cost alone."""
    game = known_game(transform, [5.0, 0.5, 9.0], pairing=pairing)
    real, noise = torch.tensor([[0.0], [5.0], [6.0]]), torch.zeros(3, 1)
    transport = pytest.approx(TOTALS[pairing] / 3, abs=5e-4 if pairing == "sinkhorn" else 1e-5)
    loss = game.loss("generator", real, noise)
    assert loss.terms["transport"].item() == transport
    assert loss.value.item() == pytest.approx(-2 + 0.3 * loss.terms["transport"].item())
    if transform != "identity":
        loss = game.loss(transform, real, noise)
        assert loss.value.item() == transport
        assert loss.terms["transport"].item() == loss.value.item()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_generators_gradient_passes_through_the_transform(transform):
    """d |z_r - F(z)|^2 / dz = 2 (F(z) - z_r) F'(z) for F(z) = 4 and z_r = 6; F' = 1, 2, or 40 sigmoid' for the
    forest."""
    game = known_game(transform, [4.0])
    game.loss("generator", torch.tensor([[6.0]]), torch.zeros(1, 1)).value.backward()
    share = 24 / 40  # sigmoid(z) of F(z) = 4
    slope = {"forest": 40 * share * (1 - share), "affine": 2.0}.get(transform, 1.0)
    assert game.players["generator"].points.grad.item() == pytest.approx(0.3 * 2 * (4 - 6) * slope, rel=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("pairing", TOTALS)
def test_transport_alone_moves_a_point_onto_its_target(transform, pairing):
    """One point and one target, F held: the generator's loss (F(z) - z_r)^2 is least where F(z) = z_r = 6."""
    game = known_game(transform, [4.0], pairing=pairing, transport_weight=1.0)
    # A step multiplies the error by about 1 - 2 lr F'^2, at most 0.2 here, F' = 1, 2 or near 9.5: 20 steps suffice.
    lr = {"forest": 0.005, "affine": 0.1}.get(transform, 0.4)
    train(game, "generator", torch.tensor([[6.0]]), torch.zeros(1, 1), 20, lr)
    assert game.transform(game.sample(torch.zeros(1, 1))).item() == pytest.approx(6, abs=1e-4)


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_a_turn_takes_inner_steps(inner_steps):
    """One pair, F(z) = A z + b, plain gradient descent: a step multiplies the error by 1 - 2 lr (1 + z^2)."""
    game = known_game("affine", [5.0], forest={"inner_steps": inner_steps})  # z = 2
    train(game, "affine", torch.tensor([[6.0]]), torch.zeros(1, 1), 1, 0.05)
    error = 1 - 2 * 0.05 * (1 + 2**2)
    assert game.transform(torch.tensor([[2.0]])).item() == pytest.approx(6 - error**inner_steps, rel=1e-5)
    assert game.players["generator"].points.item() == 2


@pytest.mark.parametrize("transform", ["affine", "mlp"])
@pytest.mark.parametrize("pairing", TOTALS)
def test_the_transform_moves_a_point_onto_its_target(transform, pairing):
    game = known_game(transform, [0.5], pairing=pairing, forest={"inner_steps": 10})
    train(game, transform, torch.tensor([[-3.0]]), torch.zeros(1, 1), 5, {"affine": 0.3, "mlp": 0.005}[transform])
    # A step multiplies the error of 3.5 by 1 - 2 lr (1 + |u|^2), where the last layer reads u: z = -0.25 itself for the
    # affine map; for the MLP, |u|^2 is near 128 z^2 = 32 by He's weights, and 5 < |u|^2 < 150 leaves 0.94^50 at most.
    assert game.transform(game.sample(torch.zeros(1, 1))).item() == pytest.approx(-3, abs=3.5 * 0.94**50)


def test_an_affine_transform_finds_the_map():
    """Real latents are 2 z + 1 for the generated z; one-to-one pairs keep the order, and least squares is exact."""
    z = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]])
    config = PotGan.Config(mlp(), transform="affine", pairing="assignment", forest=ForestConfig(inner_steps=100))
    game = PotGan(config, Points(z.tolist()), LinearCritic([0.0]), nn.Flatten(), 1)
    train(game, "affine", 2 * z.flip(0) + 1, torch.zeros(4, 1), 1, 0.2)
    # mean z = 0 and mean z^2 = 1.25: the errors fall by 1 - 0.4 and 1 - 0.5 a step; 100 steps leave float32's rounding.
    assert game.players["affine"].weight.item() == pytest.approx(2, abs=1e-5)
    assert game.players["affine"].bias.item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_players_and_order(transform):
    config = PotGan.Config(mlp(4), transform=transform, forest=ForestConfig(lr=0.03), critic_steps=2)
    game = PotGan.build(config, (3,))
    learned = transform != "identity"
    assert list(game.players) == ["critic", "generator", *[transform] * learned]
    middle = [(transform, 1, True)] * learned
    assert turns(game) == [("critic", 2, True), *middle, ("generator", 1, not learned)]
    assert game.optimizer_options("generator") == {}
    if learned:
        assert game.optimizer_options(transform) == {"lr": 0.03}
    assert ("forest_started" in game.state_dict()) == (transform == "forest")
    z = torch.randn(5, 3)
    assert game.transform(z).shape == (5, 3)
    if transform != "forest":  # a forest starts from the first batch
        assert torch.equal(game.transform(z), z)
    else:
        assert isinstance(game.players["forest"], LatentTransformationForest)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_no_other_transform_is_a_player(transform):
    game = PotGan.build(PotGan.Config(mlp(4), transform=transform), (3,))
    for other in {*TRANSFORMS, "transform"} - set(game.players):
        with pytest.raises(ValueError, match=f"PotGan: player must be one of critic, generator.*, got '{other}'"):
            game.loss(other, torch.zeros(2, 3), torch.zeros(2, 4))
