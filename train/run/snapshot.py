"""Everything that the next iteration depends on: taken from a loop for a checkpoint, and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from train.run.loop import Loop, set_rate
from train.run.source import Source
from train.run.state import check_moments


def take(loop: Loop, source: Source, seconds: float) -> dict[str, Any]:
    """The state of a run: tensors, numbers, strings, lists and dicts, in the form of ``state.check_state``.

    source: the loop's. seconds: of training so far.
    """
    return {
        "step": loop.step,
        "seconds": seconds,
        "device": loop.device.type,
        "game": loop.game.state_dict(),
        "optimizers": {player: _optimizer_state(optimizer) for player, optimizer in loop.optimizers.items()},
        "ema": loop.average.state_dict() if loop.average is not None else None,
        **source.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(loop.device) if loop.device.type == "cuda" else None,
        "threads": loop.config.threads,
    }


def restore(loop: Loop, source: Source, state: Mapping[str, Any], other_data: bool = False) -> float:
    """Restore what ``take`` gave; the seconds of training. ValueError in one line if it does not fit game or data."""
    if state["device"] != loop.device.type:
        raise ValueError(f"resume: the run was on {state['device']}; its random state does not fit {loop.device}")
    if (state["ema"] is None) != (loop.average is None):
        raise ValueError("resume: ema cannot be switched on or off when a run is resumed")
    differ = weights_differ(loop.game.state_dict(), state["game"])
    if differ is not None:
        raise ValueError(f"resume: the checkpoint does not fit this configuration: {differ}")
    try:
        loop.game.load_state_dict(state["game"])
        for player, optimizer in loop.optimizers.items():
            _load_optimizer(loop, player, optimizer, state["optimizers"][player])
        if loop.average is not None:
            loop.average.load_state_dict(state["ema"])
        source.load_state_dict(state, other_data=other_data)
        torch.set_rng_state(state["rng"])
        if loop.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], loop.device)
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:  # whatever torch raises on mistyped parts
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"resume: the checkpoint does not fit this configuration: {reason[:200]}") from error
    loop.step = state["step"]
    if state.get("threads", loop.config.threads) != loop.config.threads:
        print(
            f"resume: the run had {state['threads']} CPU threads and goes on with {loop.config.threads}; sums may be "
            "rounded in another order",
            flush=True,
        )
    return state["seconds"]


def weights_differ(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> str | None:
    """How the names or shapes of two states differ: the first difference and the number of others; None if equal."""
    found = [
        f"{name} is {_shape(saved, name)} there and {_shape(own, name)} here"
        for name in [*own, *(name for name in saved if name not in own)]
        if _shape(own, name) != _shape(saved, name)
    ]
    more = f", and {len(found) - 1} more differ" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else None


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return str(list(state[name].shape)) if name in state else "absent"


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state with learning rates as numbers: whether a CUDA graph reads one is no part of a run."""
    state = optimizer.state_dict()
    return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def _load_optimizer(loop: Loop, player: str, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    check_moments(player, optimizer, state)
    groups = optimizer.param_groups
    names = ("lr", "capturable")
    own: list[dict[str, Any]] = [{name: group[name] for name in names if name in group} for group in groups]
    optimizer.load_state_dict(state)
    for group, kept in zip(optimizer.param_groups, own, strict=True):  # settings may have changed, as the graph's have
        rate = float(group["lr"])
        group.update({**loop.options[player], **kept})
        set_rate(group, rate)
