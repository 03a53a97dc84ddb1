"""What a training iteration of POT-GAN sends and computes over P GPUs, on paper: the table of the guide on processes.

    python -m benchmarks.plan [--game potgan] [--preset cifar10]

Every process has as many images as one GPU now (weak scaling), so the batch and the pairing grow with P. Assumed, not
measured: an iteration of one GPU takes 1 / RATE seconds; a ring sends and receives 2 (P - 1) / P of the gradients at
the link's speed and nothing of it hides behind the computation; the pairing sums N^2 d multiply-adds at PAIRS.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch

from train.recipes import profile

from .report import markdown_row
from .training import make_loop

RATE = 167.0  # iterations a second on one H100, the aim for dcgan at 32 px and batch 64
NODE, NETWORK = 350e9, 40e9  # bytes a second: NVLink within eight GPUs; 400 Gbit/s InfiniBand a GPU beyond
PAIRS = 20e12  # operations a second, two for each multiply-add: a third of an H100's float32 rate without tensor cores
PROCESSES = (1, 2, 4, 8, 16, 32, 64)


def rows(game: str, preset: str) -> list[tuple[str, ...]]:
    """A row for each P: batch, megabytes of gradients, of latents, milliseconds of both and of F, and efficiency."""
    loop = make_loop(game, replace(profile(game, preset), device="cpu"))
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in loop.game.players.items()}
    steps = {turn.player: turn.steps for turn in loop.game.order}
    gradients = sum(4 * sizes[name] * steps[name] for name in steps if name != "forest")
    latent = loop.game.players["forest"].leaves.shape[-1]
    inner = loop.config.game.forest.inner_steps
    found = []
    for count in PROCESSES:
        batch = count * loop.config.batch_size
        link = NODE if count <= 8 else NETWORK
        sent = gradients * 2 * (count - 1) / count
        latents = 4 * 4 * batch * latent * (count - 1) / count  # z_r and z_g, in the turns of F and of the generator
        pairing = 2 * batch**2 * latent * (inner + 1) / PAIRS
        waiting = (sent + latents) / link
        whole = 1 / RATE + waiting + pairing
        numbers = sent / 1e6, latents / 1e6, 1e3 * waiting, 1e3 * pairing
        found.append(
            (str(count), f"{batch:,}", *(f"{number:.3g}" for number in numbers), f"{100 / RATE / whole:.0f} %")
        )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--game", default="potgan", choices=["potgan"])
    parser.add_argument("--preset", default="cifar10")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    header = ("GPUs", "batch", "gradients, MB", "latents, MB", "waiting, ms", "pairing, ms", "efficiency")
    print(markdown_row(header))
    print("|" + "---|" * len(header))
    for row in rows(options.game, options.preset):
        print(markdown_row(row))


if __name__ == "__main__":
    main()
