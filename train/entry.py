"""What every command does before PyTorch is imported: how idle threads wait, and which packages are missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType

NEEDED = ("torch", "tyro", "rich", "safetensors", "tensorboard", "matplotlib", "PIL", "scipy")
INSTALL = "pip install -e '.[train]'"
INTERRUPTED = "interrupted; --resume DIR continues a run from its last checkpoint, if it has one"


def run(module: str, command: Callable[[ModuleType], None]) -> int:
    """Import ``module`` and call ``command`` with it; the exit status. An error is one line on stderr."""
    spin_briefly()
    try:
        absent = missing(NEEDED)
        if absent:
            return _fail(f"train: this needs {', '.join(absent)}, which {INSTALL} brings")
        loaded = importlib.import_module(module)
        from train.cli import guarded

        return guarded(lambda: command(loaded))
    except KeyboardInterrupt:  # during the imports; guarded has its own
        print(f"\n{INTERRUPTED}", file=sys.stderr)
        return 130
    except ImportError as error:
        return _fail(f"train: {error}; {INSTALL} brings what the trainer needs")


def spin_briefly() -> None:
    """Let an idle thread of PyTorch's OpenMP sleep soon instead of spinning on a core that another run could have.

    libgomp reads this when PyTorch is first imported, so later is too late. What the user chose stands. Measured on two
    cores of an AMD EPYC on 2026-11-26, WGAN-GP on 32 x 32 images, milliseconds an iteration of one run alone and of
    each of two at once: 1,000 turns 112 and 204, 10,000 turns 97 and 450, sleeping at once (passive) 138 and 182,
    libgomp's own default 112 and 342.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def missing(modules: tuple[str, ...]) -> list[str]:
    """Those of ``modules`` that are not installed; none is imported."""
    return [name for name in modules if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
