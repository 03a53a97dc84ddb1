"""How many CPU threads a run uses."""

from __future__ import annotations

import torch
from torch import nn

from models.networks.network import has_convolutions

# As OMP_NUM_THREADS or the machine says; a run that takes fewer must not decide for the next one in the process.
MOST = torch.get_num_threads()
# Multiply-adds of one pass through all players below which a second thread loses. Measured on two cores of an AMD EPYC,
# torch 2.11.0, 2026-11-26, for GAN and WGAN-GP on the ring with hidden layers of 64 to 1,024 units and batches of 64 to
# 1,024: two threads are 0.2 to 0.9 times as fast as one up to 69 million, and 1.1 to 2.0 times from 269 million on.
SMALL = 150_000_000


def choose_threads(game: nn.Module, batch_size: int) -> int:
    """One thread for networks so small that a second one only waits, else ``MOST``.

    Two runs beside each other on two cores then do not wait for each other's threads. A convolution uses its weights
    at every pixel, so it is never small.
    """
    weights = sum(parameter.numel() for parameter in game.parameters())
    return MOST if has_convolutions(game) or weights * batch_size >= SMALL else 1
