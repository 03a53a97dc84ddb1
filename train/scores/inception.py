"""Inception-v3 as torch-fidelity has it, whose features are what published FID, KID and inception scores mean."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from train.scores.extractors import Features
from train.scores.fold import fold_batch_norm
from train.scores.weights import Published, check_finite, fitting

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
WEIGHTS = Published(URL_INCEPTION_V3, SHA256)
OUTPUTS = ["2048", "logits_unbiased"]  # what torch-fidelity takes for FID and KID, and for the inception score


def published() -> Path:
    """torch-fidelity's file of weights, downloaded if it is missing."""
    return WEIGHTS.fetch()


def build(weights: Mapping[str, Tensor], path: Path, device: torch.device) -> nn.Module:
    """The network with ``weights``, which were read from ``path``, for use on ``device``."""
    file = io.BytesIO()  # torch-fidelity unpickles what it is given: not the file, but what was safely read from it
    torch.save(dict(weights), file)
    file.seek(0)
    with fitting(path):
        network = FeatureExtractorInceptionV3("inception-v3-compat", OUTPUTS, file)
    check_finite(network, path)
    return InceptionFeatures(network.eval())


class InceptionFeatures(nn.Module):
    """The 2,048 features of the last pool, and the logits without their bias, of uint8 images [n, 3, H, W]."""

    def __init__(self, network: FeatureExtractorInceptionV3) -> None:
        super().__init__()
        fold_batch_norm(network, {"conv": "bn"})
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Features:
        """See the class."""
        return Features(*self.network(images))
