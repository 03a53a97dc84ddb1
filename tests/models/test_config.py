"""The schema of configs: types, ranges, dotted names, and which fields act only at the start."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_type_hints

import pytest
import torch

from models.config import check_fields, check_range, fixed_fields, from_dict
from models.games import GAMES, PotGan
from models.games.potgan import ForestConfig
from models.networks import NetworkConfig


@dataclass(frozen=True)
class Inner:
    at_start: ClassVar[frozenset[str]] = frozenset({"count"})
    count: int = 1
    rate: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "rate", least=0, most=1)


@dataclass(frozen=True)
class Outer:
    at_start: ClassVar[frozenset[str]] = frozenset({"name"})
    inner: Inner = field(default_factory=Inner)
    name: str = "x"
    flag: bool = False
    limit: int | None = None
    pair: tuple[float, float] = (0.5, 0.9)
    sizes: tuple[int, ...] = ()
    kind: Literal["a", 1] = "a"


@dataclass(frozen=True)
class Demanding:
    needed: int


FAULTS = [
    ({"inner": {"count": 8.5}}, "inner.count must be an integer, got 8.5"),
    ({"inner": {"count": True}}, "inner.count must be an integer, got True"),
    ({"inner": {"count": "8"}}, "inner.count must be an integer, got '8'"),
    ({"inner": {"rate": math.nan}}, "inner.rate must be a finite number, got nan"),
    ({"inner": {"rate": -math.inf}}, "inner.rate must be a finite number, got -inf"),
    ({"inner": {"rate": False}}, "inner.rate must be a finite number, got False"),
    ({"inner": {"rate": 10**400}}, "inner.rate must be a finite number, got 1000"),
    ({"inner": {"rate": 10**5000}}, "inner.rate must be a finite number, got a int"),
    ({"inner": {"rate": None}}, "inner.rate must be a finite number, got None"),
    ({"name": 3}, "name must be text, got 3"),
    ({"flag": 1}, "flag must be True or False, got 1"),
    ({"limit": "x"}, "limit must be an integer or None, got 'x'"),
    ({"limit": 1.0}, "limit must be an integer or None, got 1.0"),
    ({"pair": (0.5,)}, r"pair must be a tuple of 2, got \(0.5,\)"),
    ({"pair": None}, "pair must be a tuple of 2, got None"),
    ({"pair": (0.5, math.inf)}, r"pair must be a tuple in which each is a finite number, got \(0.5, inf\)"),
    ({"pair": [0.5, 0.5, 0.5]}, r"pair must be a tuple of 2, got \[0.5, 0.5, 0.5\]"),
    ({"sizes": (1, "2")}, "sizes must be a tuple in which each is an integer"),
    ({"sizes": 3}, "sizes must be a tuple, got 3"),
    ({"kind": "b"}, "kind must be one of a, 1, got 'b'"),
    ({"kind": 1.0}, "kind must be one of a, 1, got 1.0"),
    ({"kind": True}, "kind must be one of a, 1, got True"),
    ({"kind": ["a"]}, r"kind must be one of a, 1, got \['a'\]"),
]


@pytest.mark.parametrize(("values", "message"), FAULTS)
def test_what_is_no_value_of_a_field_is_named(values, message):
    """The same words from JSON and from a caller in Python."""
    with pytest.raises(ValueError, match=f"^Outer: {message}") as caught:
        from_dict(Outer, values)
    assert "\n" not in str(caught.value)
    made = {name: Inner(**value) if name == "inner" and _passes(value) else value for name, value in values.items()}
    if not any(isinstance(value, (dict, list)) for value in made.values()):
        with pytest.raises(ValueError, match=f"^Outer: {message}"):
            check_fields(Outer(**made))


def _passes(value):
    """Whether Inner's own range rule lets it pass, so that only the type is wrong."""
    try:
        Inner(**value)
    except (ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "a config must be a mapping of names to values, got None"),
        ([], r"a config must be a mapping of names to values, got \[\]"),
        ({"inner": []}, r"inner must be a mapping of names to values, got \[\]"),
        ({"inner": None}, "inner must be a mapping of names to values, got None"),
        ({"inner": {"size": 1}}, "has no field inner.size$"),
        ({"x\x1b[2J\n": 1}, r"has no field x\\x1b\[2J\\n$"),
        ({3: 1}, "has no field 3$"),
        ({f"f{i}": 0 for i in range(99)}, "has no field f0, f1, f2 and 96 more$"),
        ({"z" * 1000: 0}, f"has no field {'z' * 57}...$"),
        ({"name": ["y" * 10_000]}, f"name must be text, got \\['{'y' * 55}...$"),
        ({"inner": {"rate": 2}}, "inner.rate must be at most 1, got 2"),
    ],
)
def test_what_is_no_config_is_named_in_a_line(values, message):
    with pytest.raises(ValueError, match=f"^Outer: {message}"):
        from_dict(Outer, values)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match=r"^Demanding: needed is missing$"):
        from_dict(Demanding, {})


def test_values_nested_deeper_than_python_s_stack_are_no_traceback():
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"^Outer: name must be text, got a list"):
        from_dict(Outer, {"name": deep})
    with pytest.raises(ValueError, match=r"^Outer: pair must be a tuple of 2, got a list"):
        from_dict(Outer, {"pair": deep})


@pytest.mark.parametrize("name", GAMES)
def test_a_config_survives_json(name):
    config = GAMES[name].Config()
    assert from_dict(GAMES[name].Config, json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_lists_become_tuples_and_integers_may_be_numbers():
    made = from_dict(Outer, {"pair": [0, 1], "sizes": [3, 4], "inner": {"rate": 1}, "limit": None})
    assert made == Outer(Inner(rate=1), pair=(0, 1), sizes=(3, 4))


@pytest.mark.parametrize("name", GAMES)
def test_every_field_of_every_config_is_checked(name):
    """No field of any game takes a value of another type, or a number that is not finite."""
    kind = GAMES[name].Config
    for path, hint in leaves(kind):
        for wrong in (object(), [], math.nan, math.inf, -1, True, None, b"x"):
            if hint is bool and wrong is True:
                continue
            with pytest.raises(ValueError, match=f"{path.rpartition('.')[2]} must ") as caught:
                replaced(kind(), path, wrong)
            assert "\n" not in str(caught.value)


def leaves(kind, path=""):
    for name, hint in get_type_hints(kind).items():
        if name in ("at_start", "code", "known_as"):
            continue
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{path}{name}.")
        else:
            yield f"{path}{name}", hint


def replaced(config, path, value):
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: replaced(getattr(config, name), rest, value) if rest else value})


def test_ranges_are_said_in_words():
    for rule, value, message in (
        ({"least": 1}, 0, "be at least 1, got 0"),
        ({"least": 0}, -1, "not be negative, got -1"),
        ({"above": 0}, 0, "be positive, got 0"),
        ({"above": 2}, 2, "be above 2, got 2"),
        ({"most": 3}, 4, "be at most 3, got 4"),
        ({"least": 0}, math.nan, "not be negative, got nan"),
        ({"most": 0}, math.nan, "be at most 0, got nan"),
    ):
        with pytest.raises(ValueError, match=f"^Demanding: needed must {message}"):
            check_range(Demanding(value), "needed", **rule)
    check_range(Demanding(3), "needed", least=3, above=2, most=3)


def test_a_network_of_a_billion_layers_is_refused():
    assert NetworkConfig(depth=1000).depth == 1000
    with pytest.raises(ValueError, match="NetworkConfig: depth must be at most 1000, got 1000000000"):
        NetworkConfig(depth=10**9)


def test_fixed_fields_have_the_path_of_their_config():
    assert fixed_fields(Outer) == fixed_fields(Outer()) == {"name", "inner.count"}
    assert fixed_fields(PotGan.Config) == {
        *(f"networks.{name}" for name in ("name", "width", "depth", "noise_dim", "init")),
        *(f"forest.{name}" for name in ("trees", "depth", "thresholds", "leaves", "learn_thresholds")),
        "transform",
        "encoder",
    }


SMALL = NetworkConfig("mlp", width=4, depth=1, noise_dim=2, init="he")
OTHER = {
    "networks.name": "dcgan",
    "networks.width": 5,
    "networks.depth": 2,
    "networks.noise_dim": 3,
    "networks.init": "normal",
    "critic_steps": 7,
    "discriminator_steps": 7,
    "clip": 0.02,
    "gradient_penalty_weight": 3.0,
    "adversary_weight": 3.0,
    "noise_scale": 2.0,
    "pairing": "assignment",
    "transform": "affine",
    "transport_weight": 3.0,
    "encoder": "VAE",
    "forest.trees": 3,
    "forest.depth": 1,
    "forest.scale": 3.0,
    "forest.thresholds": "zeros",
    "forest.leaves": "normal",
    "forest.learn_thresholds": True,
    "forest.lr": 0.01,
    "forest.inner_steps": 4,
    "equation": 9,
    "mover": "identity",
    "mover_noise": 0.7,
    "mover_steps": 7,
    "cost": "lp",
    "p": 3.0,
    "cost_scale": "mean",
    "lambda_start": 3.0,
    "lambda_end": 3.0,
    "batch_norm": "none",
    "noise": "normal",
    "reconstructor_std": 0.3,
}
# Fields that act only together with another's value.
BESIDE = {"mover_noise": {"mover": "output-noise"}, "p": {"cost": "lp"}}
CASES = [(name, path) for name in GAMES for path, _ in leaves(GAMES[name].Config)]


def started(config, name, state=None):
    """The game after two iterations, or as resumed from their state; its optimizers; what they did then."""
    torch.manual_seed(0)
    game = GAMES[name].build(config, (2,)).train()
    optimizers = {
        player: game.optimizer(module.parameters(), **{"lr": 1e-3, **game.optimizer_options(player)})
        for player, module in game.players.items()
    }
    if state is None:
        iterate(game, optimizers, 2)
    else:
        state = copy.deepcopy(state)
        game.load_state_dict(state[0])
        for player, optimizer in optimizers.items():
            optimizer.load_state_dict(state[1][player])
            optimizer.param_groups[0].update(game.optimizer_options(player))  # as the trainer does
    return game, optimizers


def iterate(game, optimizers, count):
    game.set_progress(0.5)
    real = torch.randn(16, 2)
    for _ in range(count):
        noise = game.draw_noise(16)
        for turn in game.order:
            for _ in range(turn.steps):
                game.step(turn.player, real, noise, optimizers[turn.player])


def after_resume(config, name, state):
    """Every weight two iterations after the resume; None where the state does not fit."""
    try:
        game, optimizers = started(config, name, state)
    except (RuntimeError, ValueError, KeyError):
        return None
    torch.manual_seed(1)
    iterate(game, optimizers, 2)
    return game.state_dict()


@pytest.mark.parametrize(("name", "path"), CASES)
def test_a_field_acts_on_a_resumed_run_unless_it_is_fixed(name, path):
    kind = GAMES[name].Config
    options = {"forest": ForestConfig(trees=2, depth=2)} if name == "potgan" else {}
    config = kind(networks=SMALL, **options, **BESIDE.get(path, {}))
    game, optimizers = started(config, name)
    state = game.state_dict(), {player: optimizer.state_dict() for player, optimizer in optimizers.items()}
    same, changed = (after_resume(c, name, state) for c in (config, replaced(config, path, OTHER[path])))
    assert same is not None
    fits = changed is not None and changed.keys() == same.keys()
    acts = fits and any(not torch.equal(changed[key], same[key]) for key in same)
    assert acts == (path not in fixed_fields(kind))
