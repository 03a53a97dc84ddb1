"""Steps as graphs, replayed by calling the step again: the same bits, losses kept, what must stay eager stays so."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.train.run.test_recorded import CASES, build, make_loop, play, same_bits, state
from train.run import snapshot
from train.run.graphs import WARM_UP, Graphs
from train.run.loop import set_rate


class Device:
    """Stands in for a GPU: notes what it is asked for, and replays by running."""

    def __init__(self):
        self.warmed = self.captured = self.replayed = 0

    def warm(self, step):
        self.warmed += 1
        return step()

    def capture(self, step):
        self.captured += 1

        def replay():
            self.replayed += 1
            step()

        return replay


@pytest.mark.parametrize("case", CASES)
def test_steps_as_graphs_have_the_bits_of_the_games_own(case):
    own, graphed = (make_loop(build(case), CASES[case][1], recording=False) for _ in range(2))
    device = Device()
    graphed._step = Graphs(graphed.game, graphed.optimizers, device).step
    losses = play(own, 6)
    expected = state(own)
    assert all(torch.equal(a, b) for a, b in zip(losses, play(graphed, 6), strict=True))
    assert same_bits(state(graphed), expected)
    turns = {turn.player: turn.steps for turn in graphed.game.order if turn.player not in graphed.game.eager}
    assert device.captured == len(turns)
    assert device.warmed == WARM_UP * len(turns)
    assert device.replayed == sum(6 * steps - WARM_UP for steps in turns.values())


def test_a_loss_stays_until_the_players_next_step():
    loop = make_loop(build("wgan-gp"), CASES["wgan-gp"][1], recording=False)
    graphs = Graphs(loop.game, loop.optimizers, Device())
    real, noise = loop._draw()
    for _ in range(WARM_UP + 1):
        loss = graphs.step("critic", real, noise)
    value = loss.value.clone()
    for _ in range(WARM_UP + 1):
        graphs.step("generator", real, noise)
    assert torch.equal(loss.value, value)
    assert graphs.step("critic", *loop._draw()) is loss
    assert not torch.equal(loss.value, value)


def test_rates_that_a_graph_reads_are_set_in_place_and_saved_as_numbers():
    loop = make_loop(build("gan"), CASES["gan"][1], recording=False)
    group = loop.optimizers["generator"].param_groups[0]
    group["lr"], group["capturable"] = torch.tensor(0.5), True
    kept = group["lr"]
    set_rate(group, 0.25)
    assert group["lr"] is kept
    assert kept == 0.25
    group["capturable"] = False  # a step of a CPU refuses it
    play(loop, 1)
    group["capturable"] = True
    saved = copy.deepcopy(snapshot.take(loop, loop.source, 0.0))
    assert saved["optimizers"]["generator"]["param_groups"][0]["lr"] == pytest.approx(1e-2)
    kept.fill_(0.0)
    snapshot.restore(loop, loop.source, saved)
    assert loop.optimizers["generator"].param_groups[0]["lr"] is kept
    assert kept == pytest.approx(1e-2)
    assert loop.optimizers["generator"].param_groups[0]["capturable"] is True
    other = make_loop(build("gan"), CASES["gan"][1])
    snapshot.restore(other, other.source, saved)
    assert other.optimizers["generator"].param_groups[0]["capturable"] is False


@pytest.mark.parametrize("case", ["potgan", "wgan-gp", "3p-wgan", "sngan", "dcgan images", "potgan assignment"])
def test_bf16_trains_with_weights_losses_and_penalty_in_float32(case):
    plain, half = (make_loop(build(case), CASES[case][1], precision=precision) for precision in ("float32", "bf16"))
    losses = play(half, 2)
    assert all(value.dtype == torch.float32 for value in losses)
    assert all(value.dtype == torch.float32 for value in half.game.parameters())
    assert all(value.dtype == torch.float32 for value in half.optimizers["generator"].state_dict()["state"][0].values())
    play(plain, 2)
    assert not same_bits(half.game.state_dict(), plain.game.state_dict())
    for name, value in plain.game.state_dict().items():
        torch.testing.assert_close(half.game.state_dict()[name], value, rtol=0.2, atol=0.1)
