"""Every game over 2 and over 4 gloo processes, each with its rows of a batch: the gradients of one with all rows."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.games import GAMES, Game
from models.games.potgan import ForestConfig
from models.networks import NetworkConfig
from models.networks.batch_norm import WholeBatchNorm, over_processes
from models.processes import ALONE, Processes, here
from tests.processes import outcomes

N = 16
MLP = NetworkConfig("mlp", width=8, depth=2, noise_dim=2)
DCGAN = NetworkConfig("dcgan", width=2, noise_dim=4)
FOREST = ForestConfig(trees=4, depth=2, inner_steps=2, lr=0.01)
POTGAN = {"forest": FOREST, "transport_weight": 1.0}
CASES = {
    **{name: (name, (2,), MLP, POTGAN if name == "potgan" else {}) for name in GAMES},
    "potgan assignment": ("potgan", (2,), MLP, {**POTGAN, "pairing": "assignment", "transform": "affine"}),
    "potgan sinkhorn": ("potgan", (2,), MLP, {**POTGAN, "pairing": "sinkhorn", "transform": "mlp"}),
    # to fit leaves to 192 features solves a system that magnifies rounding
    "potgan images": ("potgan", (3, 8, 8), DCGAN, {**POTGAN, "forest": replace(FOREST, leaves="normal")}),
    "dcgan images": ("dcgan", (3, 8, 8), DCGAN, {}),
    "3p-wgan output noise": ("3p-wgan", (2,), MLP, {"mover": "output-noise"}),
}


def build(case: str) -> Game:
    name, shape, networks, changes = CASES[case]
    torch.manual_seed(0)
    return GAMES[name].build(GAMES[name].Config(networks=networks, **changes), shape).double().train()


def play(case: str, processes: Processes) -> dict[str, Tensor]:
    """Gradients of each player's parameters after its step, and the buffers in the end."""
    game = build(case)
    game.processes = processes
    if processes.size > 1:
        over_processes(game, processes)
    generator = torch.Generator().manual_seed(1)
    real = torch.rand(N, *CASES[case][1], generator=generator, dtype=torch.float64) * 2 - 1
    noise = game.draw_noise(N, generator).double()
    own, found = processes.rows(N), {}
    for turn in game.order:
        optimizer = game.optimizer(game.players[turn.player].parameters(), lr=1e-3)
        torch.manual_seed(2)
        loss = game.step(turn.player, real[own], noise[own], optimizer)
        for name, parameter in game.players[turn.player].named_parameters():
            # A fused fit of the forest leaves no gradient; its steps show instead.
            shown = parameter if parameter.grad is None else parameter.grad
            found[f"{turn.player}.{name}"] = shown.detach().clone()
        for name, term in {"loss": loss.value, **loss.terms}.items():
            found[f"{turn.player}: {name}"] = processes.mean(term.detach().double())
    return {**found, **dict(game.named_buffers())}


def work(rank: int) -> dict[str, Any]:
    return {**{case: play(case, here()) for case in CASES}, "twice": twice(here())}


def twice(processes: Processes) -> Tensor:
    """A gradient penalty through a batch norm of the whole batch: its gradient to the parameters before it."""
    torch.manual_seed(3)
    network: nn.Module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()
    if processes.size > 1:
        over_processes(network, processes)
    x = torch.randn(N, 3, dtype=torch.float64)[processes.rows(N)].requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    parameters = list(network.parameters())
    processes.average(parameter.grad for parameter in parameters)
    return processes.size * torch.cat([parameter.grad.flatten() for parameter in parameters])


@pytest.fixture(scope="module", params=[2, 4])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """What each of several processes found."""
    return outcomes(work, request.param, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case", CASES)
def test_gradients_losses_and_statistics_are_those_of_the_whole_batch(case, runs):
    expected = play(case, ALONE)
    for found in runs:
        assert found[case].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[case][name], value, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("case", CASES)
def test_all_processes_have_the_same_bits(case, runs):
    for found in runs[1:]:
        for name, value in runs[0][case].items():
            assert torch.equal(found[case][name], value), name


def test_batch_norm_of_the_whole_batch_can_be_differentiated_twice(runs):
    for found in runs:
        torch.testing.assert_close(found["twice"], twice(ALONE), rtol=1e-9, atol=1e-11)


def test_batch_norm_over_one_process_is_that_of_torch(randn):
    layer = nn.BatchNorm2d(3)
    own = WholeBatchNorm(copy.deepcopy(layer), ALONE)
    for x in (randn(4, 3, 5, 5), 2 + randn(6, 3, 2, 2)):
        torch.testing.assert_close(own(x), layer(x))
    torch.testing.assert_close(own.state_dict(), layer.state_dict())
    layer.eval(), own.eval()
    x = randn(2, 3, 4, 4)
    torch.testing.assert_close(own(x), layer(x))


def test_a_part_of_the_tasks_for_each_process():
    assert [Processes(rank, 3).part(10) for rank in range(3)] == [(0, 4), (4, 8), (8, 12)]
    assert ALONE.part(10) == (0, 10)
