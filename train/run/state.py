"""The form of a run's state, as ``snapshot.take`` writes it: checked before anything is restored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

KEYS = ("step", "seconds", "device", "game", "optimizers", "ema", "data", "noise", "rng", "cuda_rng")
MOMENTS: dict[type, tuple[str, ...]] = {  # what an optimizer keeps of a parameter
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
}
MAX_RANDOM_BYTES = 2**20  # a generator's state takes 16 bytes on a GPU and 5,056 on a CPU


def check_state(state: object) -> None:
    """ValueError naming the first part of ``state`` that is missing or of the wrong type; unknown parts are allowed.

    step: integer >= 0. seconds: finite number >= 0. device: string. game: name -> tensor. optimizers: player ->
    {"state": parameter's number -> name -> tensor or number, "param_groups": list}. ema: None or {"updates": integer
    >= 0, "average": name -> tensor}. data: mapping. noise and rng: states of random generators, uint8 [bytes].
    cuda_rng: None or the same. Whether tensors fit the networks is for the networks to say.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"it must hold a mapping, got {type(state).__name__}")
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    _check_count("step", state["step"])
    seconds = state["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be a finite number >= 0, got {_shown(seconds)}")
    if not isinstance(state["device"], str):
        raise ValueError(f"device must be a string, got {_shown(state['device'])}")
    _check_tensors("game", state["game"])
    _check_mapping("optimizers", state["optimizers"])
    for player, optimizer in state["optimizers"].items():
        _check_optimizer(f"optimizers.{player}", optimizer)
    if state["ema"] is not None:
        _check_parts("ema", state["ema"], "updates", "average")
        _check_count("ema.updates", state["ema"]["updates"])
        _check_tensors("ema.average", state["ema"]["average"])
    _check_mapping("data", state["data"])
    for name in ("noise", "rng", "cuda_rng"):
        if name != "cuda_rng" or state[name] is not None:
            _check_random(name, state[name], on_cpu=name == "rng" or (name == "noise" and state["device"] == "cpu"))


def check_moments(player: str, optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """ValueError if ``saved``, an optimizer's state in the form of ``check_state``, does not fit ``optimizer``.

    PyTorch checks the number of parameters when it loads a state. It does not look at the moments: one of another shape
    fails at the next step, one that is missing makes Adam start anew.
    """
    ours = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    theirs = [number for group in saved["param_groups"] for number in group["params"]]
    if len(ours) != len(theirs) or len(set(theirs)) != len(theirs) or not saved["state"].keys() <= set(theirs):
        raise ValueError(f"optimizers.{player} must be for {len(ours)} parameters, got {len(theirs)}")
    wanted = next((names for kind, names in MOMENTS.items() if isinstance(optimizer, kind)), ())
    for parameter, number in zip(ours, theirs, strict=True):
        moments = saved["state"].get(number)
        if moments is None:
            continue
        missing = [name for name in wanted if name not in moments]
        if missing:
            raise ValueError(f"optimizers.{player}.state.{number} lacks {', '.join(missing)}")
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape not in (torch.Size(), parameter.shape):
                shapes = f"{list(parameter.shape)}, got {list(moment.shape)}"
                raise ValueError(f"optimizers.{player}.state.{number}.{name} must be {shapes}")


def _check_optimizer(name: str, value: Any) -> None:
    _check_parts(name, value, "state", "param_groups")
    _check_mapping(f"{name}.state", value["state"], int)
    for number, moments in value["state"].items():
        _check_mapping(f"{name}.state.{number}", moments)
        for key, moment in moments.items():
            if isinstance(moment, Tensor):
                _check_tensor(f"{name}.state.{number}.{key}", moment)
            elif not isinstance(moment, (bool, int, float, type(None))):
                raise ValueError(f"{name}.state.{number}.{key} must be a tensor or a number, got {_shown(moment)}")
    groups = value["param_groups"]
    if not isinstance(groups, list):
        raise ValueError(f"{name}.param_groups must be a list, got {_shown(groups)}")
    for i, group in enumerate(groups):
        _check_parts(f"{name}.param_groups.{i}", group, "params", "lr")
        if not isinstance(group["params"], list) or not all(type(number) is int for number in group["params"]):
            raise ValueError(f"{name}.param_groups.{i}.params must be a list of integers")
        if isinstance(group["lr"], bool) or not isinstance(group["lr"], (int, float)):
            raise ValueError(f"{name}.param_groups.{i}.lr must be a number, got {_shown(group['lr'])}")


def _check_parts(name: str, value: Any, *parts: str) -> None:
    _check_mapping(name, value)
    missing = [part for part in parts if part not in value]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}")


def _check_mapping(name: str, value: Any, key: type = str) -> None:
    if not isinstance(value, Mapping) or not all(type(known) is key for known in value):
        kind = "strings" if key is str else "integers"
        raise ValueError(f"{name} must be a mapping whose keys are {kind}, got {_shown(value)}")


def _check_tensors(name: str, value: Any) -> None:
    _check_mapping(name, value)
    for key, tensor in value.items():
        _check_tensor(f"{name}.{key}", tensor)


def _check_tensor(name: str, value: object) -> None:
    """Sparse ones, and those without numbers (of the device meta), would fail where they are copied."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        raise ValueError(f"{name} must be a dense tensor, got {_shown(value)}")


def _check_random(name: str, value: Any, *, on_cpu: bool) -> None:
    _check_tensor(name, value)
    if value.dtype != torch.uint8 or value.ndim != 1 or value.numel() > MAX_RANDOM_BYTES:
        raise ValueError(f"{name} must be the state of a random generator, got {_shown(value)}")
    if on_cpu:
        try:
            torch.Generator().set_state(value.cpu())
        except RuntimeError as error:  # it knows its size, and what its bytes may be
            raise ValueError(f"{name} must be the state of a random generator, got {_shown(value)}") from error


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} must be an integer >= 0, got {_shown(value)}")


def _shown(value: object) -> str:
    """Short, whatever it is."""
    if isinstance(value, (int, float)):
        return str(value)[:40] if not isinstance(value, int) or value.bit_length() < 128 else "a huge integer"
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
