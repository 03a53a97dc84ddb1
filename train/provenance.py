"""What a table of numbers must carry: processor, versions, commit, date, command. No host name, no path."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from otkernels import _native

OPENMP = ("OMP_", "GOMP_", "KMP_")
PACKAGES = ("otkernels", "torch", "numpy", "faiss-cpu", "scikit-learn")
ROOT = Path(__file__).parents[1]


def describe(command: str, *sources: str) -> dict[str, Any]:
    """The machine and the software that the numbers belong to; ``sources``: folders that matter beside the ops.

    "threads" is PyTorch's number of CPU threads now; "environment" holds the variables that OpenMP reads.
    """
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(OPENMP)},
        "isa": _native.extension.cpu_isa() if _native.extension else f"none: {_native.missing_reason}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        **moment(*sources),
        "command": command,
        "load_before": round(os.getloadavg()[0], 2),
    }


def moment(*sources: str) -> dict[str, str]:
    """The commit of the code and the date, now."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return {"commit": commit(*sources), "date": date}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit(*sources: str) -> str:
    """The commit, with a plus if what is measured differs from it."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--", "otkernels", "csrc", "CMakeLists.txt", *sources)
        return revision + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
