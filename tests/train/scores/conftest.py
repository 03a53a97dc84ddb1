"""An extractor that takes no time, and Inception-v3 with weights that were drawn."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as theirs
from torch import Tensor, nn

from train.scores.extractors import Extractor, Features, Kind, load_extractor

TINY = Kind("tiny", "FD[tiny]", "none", dim=6, resize="none", extra="none")


class TinyNetwork(nn.Module):
    """A fixed random map of the average colours of a grid of 2 x 2 cells."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("matrix", torch.randn(12, 10, generator=generator) / 4)
        self.seen = 0

    def forward(self, images: Tensor) -> Features:
        self.seen += len(images)
        cells = nn.functional.adaptive_avg_pool2d(images.float() / 64 - 2, 2).flatten(1)
        values = (cells @ self.matrix).relu()
        return Features(values[:, :6], values[:, 6:])


@pytest.fixture
def tiny() -> Extractor:
    return Extractor(TINY, TinyNetwork(), hashlib.sha256(b"tiny").hexdigest(), torch.device("cpu"), 8)


@pytest.fixture(scope="session")
def efficientnet() -> Extractor:
    return load_extractor("efficientnet-lite2")


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory) -> Path:
    """A file of Inception-v3's tensors, drawn so that features of different images differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):  # so that folding it is seen
            module.bias.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def draw(seed):
    """draw(n, ...): n random uint8 images [n, 3, 32, 32]: blocks of colours, with noise on top."""
    generator = torch.Generator().manual_seed(seed)

    def images(n: int, *, noise: float = 20, cells: int = 4, shape: tuple[int, int, int] = (3, 32, 32)) -> Tensor:
        colours = torch.rand(n, shape[0], cells, cells, generator=generator) * 255
        smooth = nn.functional.interpolate(colours, size=shape[1:], mode="bilinear")
        grain = torch.randn(n, *shape, generator=generator) * noise
        return (smooth + grain).clamp(0, 255).to(torch.uint8)

    return images


@pytest.fixture
def read_scores():
    return lambda path: json.loads(path.read_text(encoding="utf-8"))
