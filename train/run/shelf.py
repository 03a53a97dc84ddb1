"""Finished phases kept for other runs, in the cache folder; ``python -m train phases``.

A phase is the same wherever the same code trains the same game with the same settings, seed and number of threads on
the same images and the same kind of device. Its folder is kept under a hash of all these, whole or absent. A run that
takes it from there equals, bit for bit, the run that trained it.
"""

from __future__ import annotations

import ast
import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.export import load_game
from models.games import GAMES
from train.data.cache import cache_folder
from train.errors import ResourceError, amount, printable
from train.provenance import ROOT
from train.run.checkpoint import checkpoints
from train.run.directory import CHECKPOINTS, EXPORT, LOCK
from train.run.files import naming, new_folder, sweep, write_json
from train.run.trainer import Trainer

FOLDER = "phases"
ORIGIN = "phase.json"
VERSION = 1  # raised when a phase's folder changes its form
# What decides on the weights beside the game's own modules.
TRAINING = (
    "train/run/loop.py",
    "train/run/schedule.py",
    "train/run/operations.py",
    "train/run/recorded.py",
    "train/run/graphs.py",
    "train/run/source.py",
    "train/run/ema.py",
    "train/data/datasets.py",
    "train/data/ahead.py",
)
SETTINGS = (
    "iterations", "batch_size", "lr", "betas", "lr_decay", "lr_warmup", "ema", "seed", "threads", "sync_batch_norm",
    "precision", "channels_last", "compile",
)  # fmt: skip
USAGE = "usage: python -m train phases [--clear [NAME ...]]"


@dataclass(frozen=True)
class Shelf:
    """The place of one phase. origin: everything that its weights depend on, as JSON."""

    path: Path
    origin: dict[str, Any]

    @contextmanager
    def taken(self, label: str) -> Iterator[None]:
        """Within the block no other process trains this phase; if one does, wait for its end, which is said once.

        Where the file system has no locks or takes no files, none is held: both train, and one of the two results is
        kept if it can be.
        """
        try:
            lock = self.path.with_name(f".{self.path.name}.lock").open("a")
        except OSError:
            yield
            return
        with lock as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    print(f"{label}: another run is training the same phase; this one waits for it", flush=True)
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def holds(self) -> bool:
        """Whether the phase is there, whole; a damaged one is removed, which is said."""
        if not self.path.is_dir():
            return False
        try:
            if _origin(self.path) != self.origin:
                raise ValueError(f"{ORIGIN} does not say what it should")
            load_game(self.path / EXPORT, GAMES)
        except (OSError, ValueError) as error:
            print(f"phases: {printable(str(self.path))} is damaged and will be made again: {error}", flush=True)
            shutil.rmtree(self.path, ignore_errors=True)
            return False
        return True

    def copy_to(self, folder: Path) -> None:
        """Make ``folder``, which must be missing or empty, a copy of the phase."""
        _copy(self.path, folder)

    def keep(self, folder: Path) -> None:
        """Keep a copy of the finished phase in ``folder`` if its whole training was that of ``origin``.

        What cannot be written is said, and is no error: the phase itself is finished.
        """
        if _origin(folder) != self.origin or self.path.exists():
            return
        try:
            sweep(self.path.parent)
            _copy(folder, self.path)
        except (OSError, ResourceError) as error:
            print(f"phases: nothing is kept for other runs: {error}", file=sys.stderr, flush=True)

    def begin(self, folder: Path) -> None:
        """Note in ``folder`` what the training that begins there is."""
        write_json(folder / ORIGIN, self.origin)

    def go_on(self, folder: Path) -> None:
        """Forget what the training in ``folder`` was if it goes on as another one, such as with another rate."""
        if _origin(folder) != self.origin:
            (folder / ORIGIN).unlink(missing_ok=True)


def shelf(game: str, trainer: Trainer, cache: str | None) -> Shelf | None:
    """The place of what ``trainer`` is about to train; None, which is said, where the cache folder cannot be written.

    cache: the folder (default: otkernels in the user's cache folder). trainer: at its first step.
    """
    try:
        folder = cache_folder(cache) / FOLDER
        folder.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        print(f"phases: nothing is kept for other runs: {error}", flush=True)
        return None
    config, data = trainer.config, trainer.source.data.state_dict()
    origin = {
        "version": VERSION,
        "game": game,
        "config": dataclasses.asdict(config.game),
        "training": {name: getattr(config, name) for name in SETTINGS},
        "data": {name: value for name, value in data.items() if not isinstance(value, Tensor)},
        "device": _device(trainer.loop.device),
        "torch": torch.__version__,
        "code": code_digest(*(kind.__module__ for kind in type(trainer.loop.game).__mro__)),
    }
    if trainer.loop.processes.size > 1:
        origin["processes"] = trainer.loop.processes.size
    origin = json.loads(json.dumps(origin))  # as it is read back: tuples are lists
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    return Shelf(folder / f"{game}-{trainer.source.data.name}-{digest[:16]}", origin)


@functools.cache
def code_digest(*modules: str) -> str:
    """SHA-256 of the sources that a training depends on: ``modules`` of ours, what they import, and the trainer's."""
    pending = [*(f"{module.replace('.', '/')}.py" for module in modules if _is_ours(module)), *TRAINING]
    found: dict[str, bytes] = {}
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found[name] = (ROOT / name).read_bytes()
        if name not in TRAINING:  # whose imports lead to every game
            pending += _imports(found[name])
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name} {len(found[name])}\n".encode() + found[name])
    return digest.hexdigest()


def phases_main(argv: Sequence[str]) -> None:
    """List the phases that are kept, or remove all or some of them; ValueError for a wrong command line."""
    if argv and argv[0] != "--clear":
        raise ValueError(f"phases: {USAGE}, got {' '.join(argv)}")
    folder, named = cache_folder(None) / FOLDER, argv[1:]
    kept = sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    unknown = [name for name in named if name not in [path.name for path in kept]]
    if unknown:
        raise ValueError(f"phases: no {', '.join(unknown)} in {folder}; python -m train phases lists what there is")
    if argv:
        removed = [path for path in kept if not named or path.name in named]
        freed = sum(map(_bytes, removed))
        for path in removed:
            shutil.rmtree(path)
        print(f"{len(removed)} phases removed from {folder}, {amount(freed)}")
        return
    for path in kept:
        days = (time.time() - path.stat().st_mtime) / 86400
        print(f"{printable(path.name)}  {amount(_bytes(path))}  {_described(path)}  {days:.0f} days old")
    print(f"{len(kept)} phases in {folder}, {amount(sum(map(_bytes, kept)))}")


def _copy(source: Path, target: Path) -> None:
    """A folder with its newest checkpoint alone; two processes may copy to one place."""
    newest = [path.name for path in checkpoints(source / CHECKPOINTS)[:1]]

    def left_out(folder: str, names: list[str]) -> list[str]:
        old = [name for name in names if name not in newest] if Path(folder).name == CHECKPOINTS else []
        return [*old, *(name for name in names if name == LOCK)]

    with naming(target), new_folder(target) as temporary:
        shutil.copytree(source, temporary, ignore=left_out, dirs_exist_ok=True)


def _device(device: torch.device) -> list[str]:
    """What sums are rounded by."""
    if device.type == "cuda":
        return ["cuda", torch.cuda.get_device_name(device), str(torch.version.cuda)]
    return [device.type, torch.backends.cpu.get_cpu_capability()]


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("models", "otkernels", "train")


def _imports(source: bytes) -> list[str]:
    """The files of ours that a module imports, relative to the root."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    stems = [name.replace(".", "/") for name in names if _is_ours(name)]
    files = [file for stem in stems for file in (f"{stem}.py", f"{stem}/__init__.py")]
    return [file for file in files if (ROOT / file).is_file()]


def _origin(folder: Path) -> Any:
    """What the file in ``folder`` says; None if it is missing or damaged."""
    try:
        return json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _described(path: Path) -> str:
    origin = _origin(path)
    try:
        data, training = origin["data"], origin["training"]
        count = f"{data['images'][0]:,} images of " if "images" in data else ""
        name, seed = printable(str(data["name"])), training["seed"]
        return f"{origin['game']} on {count}{name}, {training['iterations']:,} iterations, seed {seed}"
    except (ValueError, LookupError, TypeError):
        return "damaged"


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
