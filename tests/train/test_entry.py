"""What a command does before PyTorch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train import entry
from train.entry import NEEDED

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "train": ["-m", "train", "gan", "--preset", "ring8"],
    "potgan": ["train/potgan.py", "--preset", "ring8"],
    "demo": ["-m", "train.demo"],
    "reproduce": ["-m", "train.reproduce", "rates"],
}


def python(arguments, folder, code, **environment):
    """Run python in the checkout, with ``code`` executed at its start."""
    (folder / "sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(folder), str(ROOT)])
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )


BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize("command", list(COMMANDS))
def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path, command):
    run = python(COMMANDS[command], tmp_path, BLOCK.format(modules=["tyro", "tensorboard"]))
    assert run.returncode == 2
    assert run.stderr == "error: train: this needs tyro, tensorboard, which pip install -e '.[train]' brings\n"


@pytest.mark.parametrize("module", NEEDED)
def test_each_needed_package_is_looked_for(tmp_path, module):
    code = "from train.entry import NEEDED, missing; print(missing(NEEDED))"
    run = python(["-c", code], tmp_path, BLOCK.format(modules=[module]))
    assert run.stdout.strip() == str([module])


def test_nothing_is_missing_here():
    assert entry.missing(NEEDED) == []


STOP = """
import sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch.nn":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
"""


@pytest.mark.parametrize("command", list(COMMANDS))
def test_ctrl_c_during_the_imports_is_one_line(tmp_path, command):
    run = python(COMMANDS[command], tmp_path, STOP)
    assert (run.returncode, run.stdout) == (130, "")
    assert run.stderr.strip() == entry.INTERRUPTED


BROKEN = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "tyro.conf":
            raise ImportError("libgone.so is missing")
sys.meta_path.insert(0, Broken())
"""


def test_a_package_that_is_broken_is_one_line(tmp_path):
    run = python(COMMANDS["train"], tmp_path, BROKEN)
    assert run.returncode == 2
    assert run.stderr.startswith("error: train: libgone.so is missing; ")
    assert len(run.stderr.splitlines()) == 1


LOOK = """
import sys
class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "torch.nn":
            import os
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Look())
"""


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "None 1000"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
    ],
)
def test_idle_threads_spin_briefly_from_before_the_import_of_torch_unless_the_user_chose(
    tmp_path, command, given, found
):
    run = python(COMMANDS[command], tmp_path, LOOK, **given)
    assert run.stdout.strip() == found, run.stderr


def test_importing_train_changes_nothing(tmp_path):
    run = python(
        ["-c", "import os; a = dict(os.environ); import train.run.play; print(dict(os.environ) == a)"], tmp_path, ""
    )
    assert run.stdout.strip() == "True", run.stderr
