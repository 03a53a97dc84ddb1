"""What all games share in a profile: the data set, the run's settings on it, and every game's networks ("networks").

DATA is a profile of tuned settings on that data set; DATA-paper is what the papers state, where we have both.
"""

from __future__ import annotations

from typing import Any

# The studies of the toys (docs) say how the toy values were found.
_TOY_NETWORKS = {"name": "mlp", "width": 64, "depth": 3, "noise_dim": 2, "init": "he"}
_TOY = {
    "iterations": 6000,
    "batch_size": 128,
    "lr": 4e-3,
    "betas": (0.5, 0.9),
    "lr_decay": "linear",
    "ema": 0.998,
    "networks": _TOY_NETWORKS,
}
# POT-GAN states rate, betas and batch for images, and nothing for its toys; networks and iterations are ours.
_TOY_PAPER = {
    "iterations": 20_000,
    "batch_size": 64,
    "lr": 2e-4,
    "betas": (0.5, 0.9),
    "lr_decay": "constant",
    "networks": _TOY_NETWORKS,
}
SMALL = {"name": "dcgan", "width": 32, "noise_dim": 128}
CPU = {"name": "dcgan", "width": 16, "noise_dim": 128}
RESNET = {"name": "resnet", "width": 128, "noise_dim": 128}  # 3P-WGAN's, those of WGAN-GP's CIFAR-10 experiment

# Narrow networks and a budget of minutes on a CPU: what the papers state of rates and weights can be tried there, too.
_FOLDER_CPU = {
    "data": {"name": "folder", "size": 32},
    "iterations": 1500,
    "ema": 0.99,
    "log_every": 25,
    "sample_every": 250,
    "checkpoint_every": 250,
    "networks": CPU,
}

# The papers' networks and number of iterations. They state no average of the weights; its benefit is known (Yazici et
# al. 2019, arXiv:1806.04498), its first updates forget faster, and samples of the weights as they are can still be had.
_FULL: dict[str, dict[str, Any]] = {
    "cifar10": {"data": {"name": "cifar10", "size": 32}},
    "cifar10-resnet": {"data": {"name": "cifar10", "size": 32}, "networks": RESNET},
    "flowers102": {"data": {"name": "flowers102", "size": 64}},
    "flowers102-32": {"data": {"name": "flowers102", "size": 32}},
    "cub200": {"data": {"name": "cub200", "size": 64}},
    "celeba": {"data": {"name": "celeba", "size": 64}},
    "folder32": {"data": {"name": "folder", "size": 32}},
    "folder64": {"data": {"name": "folder", "size": 64}},
}
FULL_SIZE = tuple(_FULL)

SHARED: dict[str, dict[str, Any]] = {
    "ring8": {"data": {"name": "ring8"}, **_TOY},
    "ball3d": {"data": {"name": "ball3d"}, **_TOY},
    "ring8-paper": {"data": {"name": "ring8"}, **_TOY_PAPER},
    "ball3d-paper": {"data": {"name": "ball3d"}, **_TOY_PAPER},
    "digits": {"data": {"name": "digits"}, "iterations": 20_000, "ema": 0.999, "networks": SMALL},
    "fashion-mnist": {"data": {"name": "fashion-mnist"}, "iterations": 50_000, "ema": 0.999, "networks": SMALL},
    "folder32-cpu": {**_FOLDER_CPU, "lr": 1e-3},
    "folder32-cpu-paper": {**_FOLDER_CPU, "lr": 2e-4},
    **{name: {**values, "ema": 0.9999} for name, values in _FULL.items()},
}
