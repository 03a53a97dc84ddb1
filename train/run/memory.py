"""What memory there is, and what a run needs at least: sizes that cannot fit are refused before anything is built."""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.games import Game
from train.errors import amount, resource_message

MOMENTS: dict[type, int] = {torch.optim.Adam: 2, torch.optim.RMSprop: 1}  # tensors of a parameter's size
CGROUPS = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device | str) -> int:
    """Bytes that this process can still take on ``device``, at most; sys.maxsize where the system does not say.

    CPU: the least of the system's available memory with its swap, what RLIMIT_AS and RLIMIT_DATA leave, and what the
    cgroups of the process leave. GPU: its free memory, and what PyTorch holds there without using it.
    """
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return max(0, min([_system_bytes(), *_limit_bytes(), *_cgroup_bytes()]))


def check_room(setting: str, needed: float, device: torch.device | str) -> None:
    """ValueError if ``needed`` bytes are more than ``device`` has available.

    setting: what asks for them, as it reads before "needs at least 24 GB": "train: batch_size 1000000000".
    """
    there = available_bytes(device)
    if needed > there:
        raise ValueError(f"{setting} needs at least {amount(needed)} of memory, {amount(there)} are available")


Build = Callable[[Any], Game]


def check_fits(
    build: Build,
    config: Any,
    shape: tuple[int, ...],
    batch_size: int,
    device: torch.device | str,
    *,
    ema: bool = False,
) -> None:
    """ValueError, naming the setting to lower, if the game that ``build`` makes of ``config`` cannot fit on ``device``.

    shape: of one sample. ema: whether the run averages weights. Both figures are lower bounds, found without memory on
    PyTorch's device "meta": what the weights take with gradients, optimizer states and average, and what a batch takes.
    A game that cannot be built there is checked for its real batch alone.
    """
    try:
        game = _on_meta(build, config)
        needed: float = game_bytes(game, ema=ema)
    except Exception as error:
        if not _past_counting(error):
            check_room(f"train: batch_size {batch_size}", 4 * batch_size * math.prod(shape), device)
            return  # what is wrong with the game is said when it is built
        needed = math.inf
    if needed > available_bytes(device):
        check_room(f"train: {_culprit(build, config, needed, ema)}", needed, device)
    check_room(f"train: batch_size {batch_size}", needed + batch_bytes(game, shape, batch_size), device)


def game_bytes(game: Game, *, ema: bool = False) -> int:
    """Bytes of the weights, their gradients, the optimizers' states and the average: a lower bound while training."""
    total = sum(map(_bytes, _tensors(game)))
    moments = next((count for known, count in MOMENTS.items() if issubclass(game.optimizer, known)), 0)
    for module in game.players.values():
        learned = sum(_bytes(p) for p in module.parameters() if p.requires_grad)
        total += learned * (moments + (0 if hasattr(module, "fit") else 1))  # a fused fit keeps no gradient
    if ema:
        total += sum(map(_bytes, _tensors(game.sampling_players)))
    return total


def batch_bytes(game: Game, shape: tuple[int, ...], n: int) -> float:
    """Bytes of n real samples, and of what n generated ones keep for the gradient: inputs of layers, and themselves.

    game: on the device meta; it is left in eval mode.
    """
    real = 4 * n * math.prod(shape)
    kept: dict[int, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kept.update((id(value), value) for value in inputs if isinstance(value, Tensor))

    game.eval()  # batch norm refuses to train on one sample, which is not asked here
    weighted = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)  # their weights' gradient needs the input
    hooks = [m.register_forward_pre_hook(keep) for m in game.modules() if isinstance(m, weighted)]
    try:
        with torch.device("meta"), torch.no_grad():
            samples = game.sample(game.draw_noise(n))
    except Exception as error:  # what is wrong with the game is said when it plays
        return math.inf if _past_counting(error) else real
    finally:  # an encoder that was handed over is used again
        for hook in hooks:
            hook.remove()
    return real + _bytes(samples) + sum(map(_bytes, kept.values()))


def _on_meta(build: Build, config: Any) -> Game:
    with torch.device("meta"), torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an encoder's weights, read from disk, are not copied
        return build(config)


def _past_counting(error: Exception) -> bool:
    """Whether a size, or its product with others, does not fit into 63 bits."""
    return resource_message(error) is not None or isinstance(error, OverflowError) or "Overflow" in str(error)


def _culprit(build: Build, config: Any, needed: float, ema: bool) -> str:
    """ "game.forest.trees 1000000": the number whose default would save most; "the game" if no one number does."""
    found, least = "the game", needed
    for name, value, smaller in _with_defaults(config):
        try:
            size = game_bytes(_on_meta(build, smaller), ema=ema)
        except Exception:  # another number is as far from fitting
            continue
        if size < least:
            found, least = f"game.{name} {value}", size
    return found


def _with_defaults(config: Any) -> Iterator[tuple[str, int, Any]]:
    """(name, value, config with the default instead) for each whole number of a nested config above its default."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for name, number, smaller in _with_defaults(value):
                yield f"{field.name}.{name}", number, dataclasses.replace(config, **{field.name: smaller})
        elif type(value) is int and type(field.default) is int and value > field.default:
            yield field.name, value, dataclasses.replace(config, **{field.name: field.default})


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _system_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: all of the memory is a bound too
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    figures = {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}
    return figures.get("MemAvailable", sys.maxsize) + figures.get("SwapFree", 0)


def _limit_bytes() -> Iterator[int]:
    """What the limits on the process's address space and on its data leave."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:
        return
    for limit, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft - int(used) * resource.getpagesize()


def _cgroup_bytes() -> Iterator[int]:
    """What the process's control groups and those above them leave, their page cache being free to go."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, names = (CGROUPS, ("memory.max", "memory.current"))
        if controllers == "memory":
            root, names = CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            left = _group_bytes(folder, *names)
            if left is not None:
                yield left
            if folder == root:
                break


def _group_bytes(folder: Path, limit: str, usage: str) -> int | None:
    try:
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except (OSError, ValueError):  # no such group here, or its limit is "max"
        return None
    return most - used + sum(int(value) for name, value in lines if name in ("active_file", "inactive_file"))
