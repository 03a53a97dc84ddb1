"""The README and the site: links lead somewhere, the site builds without a warning, and what the pages show runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path
from string import Template

import pytest
from torch.distributed.run import get_args_parser

from benchmarks.options import parse as benchmark_options
from models.games import GAMES
from train.__main__ import COMMANDS
from train.cli import DRY_RUN, parse, parse_fields
from train.data.command import InfoConfig
from train.data.config import DataConfig
from train.report.command import ReportConfig
from train.report.compare import CompareConfig
from train.reproduce import images
from train.reproduce.__main__ import EXPERIMENTS
from train.reproduce.image_tables import TABLES
from train.samples.command import SampleConfig
from train.samples.interpolate import InterpolateConfig
from train.scores.evaluate import EvaluateConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and number, text) of every code block in that language."""
    found = []
    for page in PAGES:
        texts = [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]
        found += [(f"{page.relative_to(ROOT)}-{i}", text) for i, text in enumerate(texts)]
    return found


def commands() -> list[str]:
    """Every command of the shell blocks, without its comment, on one line and with the block's variables put in."""
    found: list[str] = []
    for _, text in blocks("sh"):
        variables: dict[str, str] = {}
        for line in text.replace("\\\n", " ").splitlines():
            command = Template(line.split("#")[0].strip()).safe_substitute(variables)
            if assigned := re.fullmatch(r'([A-Z]+)="(.*)"', command):
                variables[assigned[1]] = assigned[2]
            elif command:
                found.append(command)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("name", "text"), [pytest.param(*block, id=block[0]) for block in blocks("python")])
def test_python_blocks_run(name, text):
    module = types.ModuleType("block")  # where dataclasses look up their annotations
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "block", module)
        exec(compile(text, name, "exec"), vars(module))


@pytest.mark.parametrize("line", commands())
def test_shell_lines_name_commands_that_exist(line):
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    if words[0] == "torchrun":
        launched = get_args_parser().parse_args(words[1:])
        assert launched.module
        words = ["python", "-m", launched.training_script, *launched.training_script_args]
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["python", "-m", "train", "list"] | ["python", "-m", "train", "data", "--cache"]:
            pass
        case ["python", "-m", "train", "report" | "compare" as command, *rest]:
            check_command(command, rest)
        case ["python", "-m", "train", "evaluate", *rest]:
            parse_fields(EvaluateConfig, EvaluateConfig(), rest, "test")
        case ["python", "-m", "train", "phases"] | ["python", "-m", "train", "phases", "--clear"]:
            assert "phases" in COMMANDS
        case ["python", "-m", "train", "sample", *rest]:
            parse_fields(SampleConfig, SampleConfig(), rest, "test")
        case ["python", "-m", "train", "interpolate", *rest]:
            parse_fields(InterpolateConfig, InterpolateConfig(), rest, "test")
        case ["python", "-m", "train", "data", name, "--info", *rest]:
            assert parse_fields(InfoConfig, InfoConfig(DataConfig(name)), rest, "test").data.name == name
        case ["python", "-m", "train", game, "--help"]:
            assert game in GAMES
        case ["python", "-m", "train", game, *rest]:
            check_run(game, [word for word in rest if word != DRY_RUN])
        case ["python", "train/potgan.py", *rest]:
            check_run("potgan", rest)
        case ["python", "-m", "train.reproduce", experiment, *rest]:
            assert experiment in EXPERIMENTS
            if experiment in TABLES:
                images.parse(experiment, rest, "test")
        case ["python", "-m", "benchmarks", *rest]:
            benchmark_options(rest)
        case [
            "python",
            "-m",
            "otkernels.info"
            | "benchmarks.on_gpu"
            | "benchmarks.images"
            | "benchmarks.training"
            | "benchmarks.assign_scaling",
            *_,
        ]:
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists()
        case ["python", path] | ["python", path, _]:
            assert (ROOT / path).exists()
        case ["pip", "install", *_] | ["git", *_]:
            pass
        case _:
            pytest.fail(f"the pages show a command that this test does not know: {line}")


def check_command(command: str, rest: list[str]) -> None:
    """The command takes these arguments; their runs are somebody's own."""
    kind = {"report": ReportConfig, "compare": CompareConfig}[command]
    assert parse_fields(kind, kind(), rest, "test").runs


def check_run(game: str, rest: list[str]) -> None:
    """The settings are of the game; a run that is resumed is somebody's own."""
    if rest[0] != "--resume":
        parse(game, rest, "test")


def test_the_readme_is_short_and_its_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert (ROOT / link).exists(), link
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_site_builds_without_a_warning(tmp_path):
    """mkdocs checks pages, anchors and links; strict makes each warning an error, which --quiet would hide."""
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stderr
    assert {line.split()[0] for line in build.stderr.splitlines()} == {"INFO"}, build.stderr
    fetched = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](?:https?:)?//""")
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not fetched.search(text), page  # it is read without a network
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    assert "the c-transform of a potential" in api
