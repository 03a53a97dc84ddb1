"""The benchmark of training: its plain steps learn what ours do, and its rows say what was measured."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from benchmarks import plan, training
from benchmarks.plain import PLAIN
from train.recipes import profile


def small(name: str):
    config = profile(name, "ring8")
    networks = replace(config.game.networks, width=8, depth=2)
    # A bias before batch norm has no gradient but rounding, which Adam magnifies.
    more = {"batch_norm": "none"} if name == "3p-wgan" else {}
    return replace(config, batch_size=16, game=replace(config.game, networks=networks, **more))


@pytest.fixture
def exact():
    """Everything in float64: Adam divides a gradient by its size, and so magnifies the rounding of small ones."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


PLAYERS = {  # in the order in which the plain iteration copies them; POT-GAN's forest starts in another way there
    "gan": ("generator", "discriminator"),
    "wgan-gp": ("generator", "critic"),
    "3p-wgan": ("generator", "critic", "mover"),
}


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", PLAYERS)
def test_a_plain_iteration_is_ours(name, monkeypatch):
    config = small(name)
    loop, source = training.make_loop(name, config), training.make_loop(name, config).source
    copies = []

    def kept(network, copied=copy.deepcopy):
        copies.append(copied(network))
        return copies[-1]

    with monkeypatch.context() as patch:
        patch.setattr(copy, "deepcopy", kept)
        plain = PLAIN[name](loop.game, config, lambda: source.draw(config.batch_size))
    for iterate in (loop.iterate, plain):
        torch.manual_seed(1)
        iterate()
    for player, network in zip(PLAYERS[name], copies, strict=True):
        for own, other in zip(loop.game.players[player].parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9, msg=lambda text, at=player: f"{at}: {text}")


def test_rows_of_potgan_say_what_its_regulariser_takes():
    rows = training.measure("potgan", "ring8", small("potgan"), 0.01)
    assert [row["contestant"] for row in rows] == [training.OURS, training.WITHOUT, training.PLAINLY]
    assert rows[0]["regulariser"] < 1
    assert rows[0]["time_to_ours"] == 1
    assert rows[0]["images_a_second"] == pytest.approx(32 * rows[0]["iterations_a_second"])  # a critic step and a turn
    assert sum(rows[0]["players"].values()) == pytest.approx(1)
    assert set(rows[0]["players"]) == {"critic", "forest", "generator", "data, rest"}


def test_the_plan_sends_the_gradients_of_every_step():
    rows = plan.rows("potgan", "ring8")
    critic, generator = 8577, 8642
    assert rows[0][2] == "0"
    assert float(rows[1][2]) == pytest.approx(
        4 * (critic + generator) / 1e6, rel=1e-2
    )  # two processes: 2 (P - 1) / P = 1
    assert rows[1][1] == "256"
