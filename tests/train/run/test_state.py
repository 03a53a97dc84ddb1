"""The form of a state: what the trainer writes passes, every part that is missing or mistyped is named."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from train.run import checkpoint, snapshot
from train.run.state import KEYS, check_moments, check_state


@pytest.fixture
def state(make_trainer) -> dict:
    """Of a trainer that has played, so that its optimizers hold moments."""
    trainer = make_trainer()
    trainer.loop.iterate()
    return copy.deepcopy(snapshot.take(trainer.loop, trainer.source, 1.5))


def test_what_the_trainer_writes_passes_and_so_do_unknown_parts(state, make_trainer, tmp_path):
    check_state(state)
    check_state({**state, "fingerprint": "abc"})
    other = make_trainer("other", ema=0.0)
    check_state(snapshot.take(other.loop, other.source, 0.0))  # before the first iteration, without an average
    path = checkpoint.save(tmp_path, state, 1, 1)
    assert checkpoint.load(path)["step"] == 1


@pytest.mark.parametrize("part", KEYS)
def test_a_missing_part_is_named(state, part):
    del state[part]
    with pytest.raises(ValueError, match=f"^it lacks {part}$"):
        check_state(state)


def place(state, path, value):
    *folders, name = (int(part) if part.isdigit() else part for part in path.split("/"))
    for folder in folders:
        state = state[folder]
    state[name] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("step", "forty", "step must be an integer >= 0, got str"),
        ("step", -1, "step must be an integer >= 0, got -1"),
        ("step", True, "step must be an integer >= 0, got True"),
        ("step", 1.0, "step must be an integer >= 0, got 1.0"),
        ("step", -(2**200), "step must be an integer >= 0, got a huge integer"),
        ("seconds", math.nan, "seconds must be a finite number >= 0, got nan"),
        ("seconds", math.inf, "seconds must be a finite number >= 0, got inf"),
        ("seconds", -1.0, "seconds must be a finite number >= 0, got -1.0"),
        ("seconds", None, "seconds must be a finite number >= 0, got NoneType"),
        ("device", 3, "device must be a string, got 3"),
        ("game", [], "game must be a mapping whose keys are strings, got list"),
        ("game", {3: torch.zeros(1)}, "game must be a mapping whose keys are strings, got dict"),
        ("game/players.critic.bias", "x", "game.players.critic.bias must be a dense tensor, got str"),
        ("game/x", torch.zeros(2, device="meta"), r"game.x must be a dense tensor, got torch.float32 \[2\]"),
        ("optimizers", "x", "optimizers must be a mapping"),
        ("optimizers/critic", "x", "optimizers.critic must be a mapping"),
        ("optimizers/critic", {}, "optimizers.critic lacks state, param_groups"),
        ("optimizers/critic/state", {"0": {}}, "optimizers.critic.state must be a mapping whose keys are integers"),
        ("optimizers/critic/state/0", 3, "optimizers.critic.state.0 must be a mapping"),
        ("optimizers/critic/state/0/step", "x", "optimizers.critic.state.0.step must be a tensor or a number, got str"),
        (
            "optimizers/critic/state/0/exp_avg",
            torch.zeros(2, 2).to_sparse(),
            "optimizers.critic.state.0.exp_avg must be a dense tensor",
        ),
        ("optimizers/critic/param_groups", {}, "optimizers.critic.param_groups must be a list, got dict"),
        ("optimizers/critic/param_groups", [3], "optimizers.critic.param_groups.0 must be a mapping"),
        ("optimizers/critic/param_groups", [{"lr": 1.0}], "optimizers.critic.param_groups.0 lacks params"),
        ("optimizers/critic/param_groups/0/params", [0, "x"], "param_groups.0.params must be a list of integers"),
        ("optimizers/critic/param_groups/0/lr", "x", "param_groups.0.lr must be a number, got str"),
        ("ema", 3, "ema must be a mapping"),
        ("ema", {"updates": 1}, "ema lacks average"),
        ("ema/updates", 1.5, "ema.updates must be an integer >= 0, got 1.5"),
        ("ema/average", None, "ema.average must be a mapping"),
        ("ema/average/0.weight", 1, "ema.average.0.weight must be a dense tensor, got 1"),
        ("data", None, "data must be a mapping"),
        ("noise", torch.zeros(3, dtype=torch.uint8), "noise must be the state of a random generator"),
        ("rng", torch.zeros(3, dtype=torch.uint8), r"rng must be .* generator, got torch.uint8 \[3\]"),
        ("rng", torch.zeros(5056), "rng must be the state of a random generator"),
        ("rng", torch.zeros(1, dtype=torch.uint8).expand(10**12), "rng must be the state of a random generator"),
        ("cuda_rng", "x", "cuda_rng must be a dense tensor, got str"),
    ],
)
def test_a_mistyped_part_is_named(state, path, value, message):
    place(state, path, value)
    with pytest.raises(ValueError, match=message) as caught:
        check_state(state)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_no_mapping_at_all(value):
    with pytest.raises(ValueError, match="it must hold a mapping, got "):
        check_state(value)


def test_moments_that_the_optimizer_wrote_fit_it(state, make_trainer):
    for player, optimizer in make_trainer("other").loop.optimizers.items():
        check_moments(player, optimizer, state["optimizers"][player])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("state/0/exp_avg", torch.zeros(1).expand(10**12), r"state.0.exp_avg must be \[1, 2\], got \[1000000000000\]"),
        ("state/0", {"step": torch.zeros(())}, "optimizers.critic.state.0 lacks exp_avg, exp_avg_sq"),
        ("state/0", {}, "optimizers.critic.state.0 lacks step, exp_avg, exp_avg_sq"),
        ("state/7", {}, "optimizers.critic must be for 2 parameters"),
        ("param_groups/0/params", [0], "optimizers.critic must be for 2 parameters, got 1"),
        ("param_groups/0/params", [0, 0], "optimizers.critic must be for 2 parameters"),
    ],
)
def test_moments_of_something_else_are_named(state, make_trainer, path, value, message):
    saved = state["optimizers"]["critic"]
    place(saved, path, value)
    with pytest.raises(ValueError, match=message):
        check_moments("critic", make_trainer("other").loop.optimizers["critic"], saved)
