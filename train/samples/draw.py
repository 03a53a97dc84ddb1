"""Samples by number: the i-th of a seed is the same in every batch size, on every device, however many are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from models.games import Game
from models.processes import here
from train.data.datasets import stream_seed

BLOCK = 64
SAMPLES_STREAM = 2**33  # past the streams that training draws from


def noise(game: Game, start: int, stop: int, seed: int) -> Tensor:
    """The noise of samples start, ..., stop - 1: [stop - start, noise_dim] on the game's device.

    It is drawn on the CPU, in blocks of 64 with a random stream each.
    """
    first, last = start // BLOCK, (stop - 1) // BLOCK
    blocks = [
        game.draw_noise(BLOCK, torch.Generator().manual_seed(stream_seed(seed, SAMPLES_STREAM + number)))
        for number in range(first, last + 1)
    ]
    return torch.cat(blocks)[start - first * BLOCK : stop - first * BLOCK]


@torch.no_grad()
def batches(game: Game, n: int, seed: int, batch_size: int) -> Iterator[Tensor]:
    """The first n samples of ``seed``, up to ``batch_size`` at a time: [at most batch_size, ...], float32.

    Several processes draw as many each at a time, and all get the samples of all.

    game: in eval mode. Batches of another size, or another device, change a sample by rounding alone. ValueError if
    samples are not finite.
    """
    processes = here()
    for start in range(0, n, batch_size * processes.size):
        count = min(batch_size * processes.size, n - start)
        first, end = processes.part(count)
        samples = processes.gather(game.sample(noise(game, start + first, start + end, seed)))[:count]
        if not samples.isfinite().all():
            raise ValueError(f"samples: samples {start} to {start + count - 1} of seed {seed} are not all finite")
        yield samples
