"""Phases before a game, as POT-GAN's VAE: images get one, points do not, and either part can be stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from models.export import load_game
from models.games import GAMES, PotGan, VaeGame
from models.games.potgan import ForestConfig, PotGanConfig
from models.games.vae import VaeConfig
from models.networks import NetworkConfig
from train.data.config import DataConfig, load
from train.data.datasets import ImageSet
from train.errors import Stopped
from train.run import checkpoint
from train.run.build import make_trainer
from train.run.config import load_config, run_config
from train.run.directory import locked
from train.run.phases import play_phases
from train.run.play import play
from train.run.resume import Resume
from train.scores.config import ScoreConfig

MLP = NetworkConfig(name="mlp", width=8, depth=1, noise_dim=4)
POTGAN = run_config("potgan")
DIGITS = POTGAN(
    data=DataConfig(name="digits", size=8, limit=64),
    iterations=3,
    batch_size=8,
    ema=0.5,
    game=PotGanConfig(networks=MLP, critic_steps=1, forest=ForestConfig(trees=2, depth=2)),
)
VAE = replace(DIGITS.vae, iterations=4, batch_size=8, reuse=False, game=VaeConfig(networks=MLP))
DIGITS = replace(DIGITS, vae=VAE)


@pytest.fixture
def run(tmp_path):
    """A function: train DIGITS in the folder of that name."""

    def start(name: str, resume: bool = False, **changes):
        directory = tmp_path / name
        stored = load_config(directory, "potgan", POTGAN) if resume else None
        continued = None if stored is None else Resume(directory, stored)
        play("potgan", replace(DIGITS, out=str(directory), **changes), continued, "potgan")
        return directory

    return start


def game_state(directory) -> dict:
    _, state = next(checkpoint.valid_states(directory / "checkpoints", pytest.fail))
    return state["game"]


def interrupt_at(monkeypatch, kind, step):
    """Send SIGINT from the ``step``-th optimisation step of a game."""
    original, calls = kind.step, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(kind, "step", interrupted)


def test_a_run_is_scored_and_what_scores_lack_is_said_before_its_first_phase(run, tmp_path):
    scores = ScoreConfig("efficientnet-lite2", n=12, every=2)
    directory = run("scored", scores=scores, data=replace(DIGITS.data, cache=str(tmp_path / "cache")))
    stored = json.loads((directory / "scores.json").read_text())
    assert [row["step"] for row in stored["rows"]] == [2, 3]
    assert (stored["protocol"]["n"], stored["protocol"]["reference"], stored["protocol"]["ema"]) == (12, 64, True)
    assert load_game(directory / "export-best", GAMES)[1] == (1, 8, 8)
    assert "In features" in (directory / "report.html").read_text()
    missing = replace(scores, weights=str(tmp_path / "missing.pth"))
    with pytest.raises(ValueError, match=r"^scores: there is no file of weights .*missing\.pth$"):
        run("refused", scores=missing)
    assert not (tmp_path / "refused" / "vae").exists()


def test_images_get_a_vae_and_pictures_of_both(run):
    directory = run("whole")
    for name in ("vae/samples.png", "samples.png", "reconstructions.png", "vae/metrics.jsonl", "metrics.jsonl"):
        assert (directory / name).stat().st_size > 0, name
    vae, shape = load_game(directory / "vae" / "export", GAMES)
    assert shape == (1, 8, 8)
    trained = game_state(directory)
    frozen = {name: value for name, value in trained.items() if name.startswith("encoder.")}
    assert frozen
    for name, value in frozen.items():
        assert torch.equal(value, vae.state_dict()[f"players.vae.{name}"])


@pytest.mark.parametrize(("kind", "step"), [(VaeGame, 2), (PotGan, 4)])
def test_either_phase_can_be_stopped_and_resumed_to_the_same_end(run, monkeypatch, kind, step):
    whole = run("whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, kind, step)
        with pytest.raises(Stopped):
            run("parts")
    torch.manual_seed(99)
    parts = run("parts", resume=True)
    ours, theirs = game_state(parts), game_state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_that_died_between_the_phases_has_the_same_end(run):
    whole, parts = run("whole"), run("parts")
    shutil.rmtree(parts / "checkpoints")  # as if the game had not begun
    run("parts", resume=True)
    ours, theirs = game_state(parts), game_state(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def die(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["train.run.outputs.write_json", "train.run.outputs.write_run_report"])
def test_a_phase_that_died_after_its_export_makes_up_what_comes_after_it(run, monkeypatch, tmp_path, where):
    with monkeypatch.context() as patch:
        patch.setattr(where, die)
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    folder = tmp_path / "parts" / "vae"
    assert (folder / "export" / "config.json").exists()
    assert not (folder / "report.html").exists()
    run("parts", resume=True)
    for name in ("interpolations.png", "reconstructions.png", "figures.json", "report.html"):
        assert (folder / name).exists(), name


def test_a_run_that_died_when_its_first_phase_began_can_be_resumed(run, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("train.run.phases.locked", die)
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    assert (tmp_path / "parts" / "vae").exists()
    assert (run("parts", resume=True) / "report.html").exists()


def test_a_phase_keeps_its_number_of_threads_when_it_is_resumed_on_a_machine_with_other_cores(run, monkeypatch):
    before = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr("train.run.build.choose_threads", lambda *arguments: 2)
        interrupt_at(patch, VaeGame, 2)
        with pytest.raises(Stopped):
            run("parts")
    monkeypatch.setattr("train.run.build.choose_threads", lambda *arguments: 1)
    _, state = next(checkpoint.valid_states(run("parts", resume=True) / "vae" / "checkpoints", pytest.fail))
    torch.set_num_threads(before)
    assert state["threads"] == 2


def test_a_given_encoder_is_used_without_pre_training(run):
    first = run("first")
    again = run("again", game=replace(DIGITS.game, encoder=str(first / "vae" / "export")))
    assert not (again / "vae").exists()
    assert (again / "reconstructions.png").exists()
    name = "encoder.head.weight"
    assert torch.equal(game_state(again)[name], game_state(first)[name])


def test_the_encoder_is_handed_over_as_an_object(run, monkeypatch):
    """The export is a by-product: nothing is read back within a run."""
    monkeypatch.setattr("train.run.phases.load_game", pytest.fail)
    monkeypatch.setattr("models.games.potgan.load_game", pytest.fail)
    assert (run("whole") / "vae" / "export" / "config.json").exists()


@pytest.mark.parametrize(("images", "shown"), [(1, 1), (5, 5), (13, 8), (100, 32)])
def test_reconstructions_of_few_images_fill_whole_rows(tmp_path, images, shown):
    data = ImageSet("few", torch.randint(256, (images, 1, 8, 8), dtype=torch.uint8), seed=0)
    config = run_config("vae")(game=VaeConfig(networks=MLP))
    trainer = make_trainer("vae", config, data, tmp_path)
    grid, columns = trainer.outputs.pairs()["reconstructions"]
    assert (len(grid), columns) == (2 * shown, min(8, images))
    real = data.preview(shown)
    with trainer.loop.sampling() as game:
        assert torch.equal(grid[:columns], real[:columns])
        torch.testing.assert_close(grid[columns : 2 * columns], game.reconstruct(real)[:columns])


def test_no_vae_iterations_leaves_the_image_itself_as_latent(run):
    directory = run("plain", vae=replace(DIGITS.vae, iterations=0))
    assert not (directory / "vae").exists()
    assert not (directory / "reconstructions.png").exists()


def test_the_vae_phase_is_locked_as_a_run_of_its_own(run, tmp_path, monkeypatch):
    found = []

    def look(self, *arguments):
        with pytest.raises(ValueError, match="is in use by another run"), locked(tmp_path / "whole" / "vae"):
            pass
        found.append(True)
        return step(self, *arguments)

    step = VaeGame.step
    monkeypatch.setattr(VaeGame, "step", look)
    run("whole")
    assert found


def test_an_export_for_samples_of_another_shape_is_refused(run):
    """Where the phase's checkpoints are gone, nothing else would tell."""
    directory = run("whole")
    shutil.rmtree(directory / "checkpoints")
    shutil.rmtree(directory / "vae" / "checkpoints")
    stored = load_config(directory, "potgan", POTGAN)
    larger = replace(stored, data=replace(stored.data, size=16))
    with pytest.raises(ValueError, match=r"vae/export is for samples of \[1, 8, 8\], the data have \[1, 16, 16\]"):
        play("potgan", larger, Resume(directory, stored, other_data=True), "potgan")


def test_what_is_handed_over_holds_no_gradients_and_stays_on_the_games_device(run, monkeypatch):
    handed = []
    build_on = PotGan.build_on.__func__

    def look(kind, config, shape, earlier):
        handed.extend(earlier.values())
        return build_on(kind, config, shape, earlier)

    monkeypatch.setattr(PotGan, "build_on", classmethod(look))
    run("whole")
    assert handed
    assert all(parameter.grad is None for parameter in handed[-1].parameters())


def test_a_phase_leaves_the_data_where_they_were(tmp_path):
    """The game begins with the first batch, whether its phase was played just now or is done."""
    config = replace(DIGITS, out=str(tmp_path))
    data = load(config.data, "cpu", config.seed)
    first = load(config.data, "cpu", config.seed).batch(8)
    before = data.state_dict()
    for resume in (None, Resume(tmp_path, config)):
        assert list(play_phases("potgan", config, data, tmp_path, resume, "")) == ["vae"]
        assert data.state_dict() == before
    assert torch.equal(data.batch(8), first)
