"""Recorded steps: the bits of the game's own, for every game; where they could differ, the game's own are played."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from models.games import GAMES, Gan, Loss, PotGan
from models.games.potgan import ForestConfig
from models.networks import NetworkConfig
from train.data.config import DataConfig, load
from train.run.config import TrainConfig
from train.run.loop import Loop
from train.run.recorded import recorded
from train.run.source import Source

MLP = NetworkConfig("mlp", width=8, depth=2, noise_dim=2)
DCGAN = NetworkConfig("dcgan", width=2, noise_dim=4)
FOREST = ForestConfig(trees=4, depth=2, inner_steps=2, lr=0.01)
RING, DIGITS = DataConfig("ring8"), DataConfig("digits", size=8)
CASES = {
    **{name: (name, RING, MLP, {"forest": FOREST} if name == "potgan" else {}) for name in GAMES},
    **{f"{name} images": (name, DIGITS, DCGAN, {}) for name in ("vae", "dcgan", "wgan-gp", "sngan", "veegan")},
    "potgan literal": ("potgan", RING, MLP, {"forest": FOREST, "pairing": "literal"}),
    "potgan assignment": ("potgan", RING, MLP, {"pairing": "assignment", "transform": "affine"}),
    "3p-wgan eq. 9": ("3p-wgan", RING, MLP, {"equation": 9, "mover": "input-noise", "cost": "lp"}),
}


def make_loop(game, data: DataConfig, recording: bool = True, **settings) -> Loop:
    config = TrainConfig(**{"batch_size": 8, "iterations": 10, "lr": 1e-2, "ema": 0.5, **settings})
    loop = Loop(game, Source(load(data, "cpu", 0), game.draw_noise, 0, torch.device("cpu")), config)
    if not loop.config.compile:
        game.recorded = recorded(game) if recording else {}  # a loop leaves convolutions as they are
    return loop


def build(case: str):
    name, data, networks, changes = CASES[case]
    torch.manual_seed(0)
    return GAMES[name].build(GAMES[name].Config(networks=networks, **changes), load(data, "cpu", 0).shape)


def play(loop: Loop, iterations: int = 5) -> list[Tensor]:
    """The losses and terms of all steps."""
    torch.manual_seed(1)
    seen: list[Tensor] = []
    for _ in range(iterations):
        loop.iterate(lambda player, loss: seen.extend(value.clone() for value in (loss.value, *loss.terms.values())))
    return seen


def state(loop: Loop) -> dict[str, Tensor]:
    moments = {
        f"{player} {number} {name}": value
        for player, optimizer in loop.optimizers.items()
        for number, known in optimizer.state_dict()["state"].items()
        for name, value in known.items()
    }
    return {**loop.game.state_dict(), **moments, "random": torch.get_rng_state()}


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def played(loop: Loop) -> set[str]:
    return {each._play.__name__ for player, each in loop.game.recorded.items() if player != "forest"}


@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_have_the_bits_of_the_games_own(case):
    own, other = make_loop(build(case), CASES[case][1], recording=False), make_loop(build(case), CASES[case][1])
    losses = play(own)
    expected = state(own)
    assert all(torch.equal(a, b) for a, b in zip(losses, play(other), strict=True))
    assert same_bits(state(other), expected)
    alone = {"affine", "mlp"} & set(other.game.players)  # F's turn is Algorithm 1, and not one step
    assert played(other) - {"_record"} == {"_replay"}
    assert ("_record" in played(other)) == bool(alone)


def test_a_state_that_is_loaded_is_played_on():
    first, second = (make_loop(build("wgan-gp"), RING) for _ in range(2))
    play(first), play(second)
    for value in second.game.parameters():
        value.data.add_(0.1)
    second.game.load_state_dict(first.game.state_dict())
    for player, optimizer in second.optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(first.optimizers[player].state_dict()))
    play(first), play(second)
    assert same_bits(first.game.state_dict(), second.game.state_dict())


class Deciding(Gan):
    """Doubles its loss at every other step, by a number that Python holds."""

    fixed = True
    count = 0

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        self.count += 1
        loss = super().generator_loss(real, noise)
        return Loss(loss.value * (1 + self.count % 2), loss.terms)


class Unrecordable(Gan):
    """Asks a tensor for its number in a way that the recorder refuses, after its batch norm has moved."""

    fixed = True

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        loss = super().generator_loss(real, noise)
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("not to be recorded")
        return loss


@pytest.mark.parametrize("kind", [Deciding, Unrecordable])
def test_what_cannot_be_recorded_is_played_by_the_game(kind):
    def game():
        torch.manual_seed(0)
        dcgan = GAMES["dcgan"].build(GAMES["dcgan"].Config(networks=MLP), (2,))  # for its batch norm
        return kind(dcgan.config, dcgan.players["generator"], dcgan.players["discriminator"])

    own, other = make_loop(game(), RING, recording=False), make_loop(game(), RING)
    play(own)
    expected = state(own)
    play(other)
    if kind is Unrecordable:
        assert same_bits(state(other), expected)
    assert other.game.recorded["generator"]._play == other.game.backward
    assert other.game.recorded["discriminator"]._play.__name__ == "_replay"


def test_only_a_class_that_says_so_itself_is_recorded():
    class Derived(Gan):
        """Nothing is known of it."""

    game = Derived.build(Derived.Config(networks=MLP), (2,))
    assert recorded(game) == {}
    with pytest.raises(ValueError, match="train: compile needs a game whose losses are fixed, which Derived is not"):
        recorded(game, compiled=True)
    assert recorded(PotGan.build(PotGan.Config(networks=MLP, pairing="sinkhorn"), (2,))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["wgan-gp", "potgan", "sngan", "wgan-gp images"])
def test_compiled_steps_train_alike(case):
    """In float64: Adam divides a gradient by its size, and so magnifies the rounding of those that are 0 but for it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        compare_compiled(case)
    finally:
        torch.set_default_dtype(before)


def compare_compiled(case):
    own, compiled = (make_loop(build(case), CASES[case][1], compile=flag) for flag in (False, True))
    for loop in (own, compiled):  # images are float32
        loop._draw = lambda draw=loop._draw: tuple(value.double() for value in draw())
    play(own, 4), play(compiled, 4)
    for name, value in own.game.state_dict().items():
        torch.testing.assert_close(compiled.game.state_dict()[name], value, rtol=1e-9, atol=1e-9)
