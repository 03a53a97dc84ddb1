"""A run on small images and one on points, trained once for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.networks import NetworkConfig
from train.data.config import DataConfig
from train.run.config import run_config
from train.run.play import play
from train.scores import toy

MLP = NetworkConfig(name="mlp", width=8, depth=1, noise_dim=4)


def trained(game: str, directory: Path, data: DataConfig, **changes) -> Path:
    kind = run_config(game)
    config = kind(data=data, game=kind().game.__class__(networks=MLP), out=str(directory), batch_size=8, **changes)
    play(game, config, None, game)
    return directory


@pytest.fixture(scope="session")
def image_run(tmp_path_factory) -> Path:
    data = DataConfig(name="digits", size=8, limit=64)
    directory = tmp_path_factory.mktemp("runs") / "images"
    return trained("gan", directory, data, iterations=6, checkpoint_every=3, ema=0.5, seed=3)


@pytest.fixture(scope="session")
def point_run(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "toy_metrics", lambda samples, target: {})  # they take seconds
        return trained("gan", tmp_path_factory.mktemp("runs") / "points", DataConfig(name="ring8"), iterations=3)
