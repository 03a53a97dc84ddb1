"""The rows of the papers' tables on images: a game each, and what sets it apart from its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAPER = "-paper"


@dataclass(frozen=True)
class ImageRow:
    """A line of a table."""

    label: str
    game: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the row has instead of those of the game's recipe."""
    variant: str = ""
    """What the name of the preset ends with in this row: "-paper" takes the settings that the papers state."""
    stated: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Inception score and FID in the paper, by data set."""


@dataclass(frozen=True)
class ImageTable:
    """A table of a paper, with the rows that we add."""

    title: str
    rows: Mapping[str, ImageRow]
    main: tuple[str, ...]
    """Rows that have several seeds and are drawn as curves."""
    against: str
    """The row that each other row is compared with."""
    questions: tuple[tuple[str, str, str], ...] = ()
    """What the table is to tell: a question, the row that it is about, the row which that is compared with."""


def _potgan(what: str, **game: Any) -> ImageRow:
    return ImageRow(f"POT-GAN, {what}", "potgan", {"game": game})


def _mover(what: str, mover: str) -> ImageRow:
    return ImageRow(f"3P-WGAN, h = {what}", "3p-wgan", {"game": {"mover": mover}})


# Inception score and FID of POT-GAN's Table 2, as we read it.
_DCGAN = {"cifar10": (6.16, 37.7), "flowers102": (2.33, 88.2), "cub200": (3.93, 76.3)}
_VEEGAN = {"cifar10": (6.25, 35.6), "flowers102": (2.11, 299.0), "cub200": (3.74, 173.9)}
_WAE_GAN = {"cifar10": (4.18, 87.7), "flowers102": (2.30, 145.9), "cub200": (3.42, 143.3)}
_WGAN_GP = {"cifar10": (6.58, 34.4), "flowers102": (3.42, 98.7), "cub200": (4.51, 70.4)}
_POTGAN = {"cifar10": (6.87, 32.5), "flowers102": (3.53, 65.7), "cub200": (4.78, 58.6)}

_SHARED = {
    "wgan-gp-stated": ImageRow("WGAN-GP, stated settings", "wgan-gp", variant=PAPER, stated=_WGAN_GP),
    "potgan-stated": ImageRow("POT-GAN, stated settings", "potgan", variant=PAPER, stated=_POTGAN),
    "wgan-gp": ImageRow("WGAN-GP", "wgan-gp", stated=_WGAN_GP),
    "potgan": ImageRow("POT-GAN", "potgan", stated=_POTGAN),
}
_FS = {
    "potgan-identity": _potgan("F = identity", transform="identity"),
    "potgan-affine": _potgan("F = affine", transform="affine"),
    "potgan-mlp": _potgan("F = MLP", transform="mlp"),
}

TABLES: dict[str, ImageTable] = {
    "table2": ImageTable(
        "POT-GAN's Table 2 and Figs. 4 and 5",
        {
            **_SHARED,
            "dcgan": ImageRow("DCGAN", "dcgan", stated=_DCGAN),
            "veegan": ImageRow("VEEGAN", "veegan", stated=_VEEGAN),
            "wae-gan": ImageRow("WAE-GAN", "wae-gan", stated=_WAE_GAN),
            "potgan-identity": _FS["potgan-identity"],
            "potgan-assignment": _potgan("assignment", pairing="assignment"),
            "potgan-0.01": _potgan("weight 0.01", transport_weight=0.01),
            "potgan-0.1": _potgan("weight 0.1", transport_weight=0.1),
            "potgan-1": _potgan("weight 1", transport_weight=1.0),
            "potgan-literal": _potgan("literal pairs", pairing="literal"),
            "potgan-sinkhorn": _potgan("Sinkhorn", pairing="sinkhorn"),
            "potgan-affine": _FS["potgan-affine"],
            "potgan-mlp": _FS["potgan-mlp"],
        },
        main=tuple(_SHARED),
        against="wgan-gp",
        questions=(
            (
                "Does the transport term help, with the settings that the paper states?",
                "potgan-stated",
                "wgan-gp-stated",
            ),
            ("Does the transport term help, with the best settings that we found?", "potgan", "wgan-gp"),
            ("Does the forest beat plain distances between latents?", "potgan", "potgan-identity"),
            ("What does one-to-one pairing do?", "potgan-assignment", "potgan"),
        ),
    ),
    "three-player-table1": ImageTable(
        "3P-WGAN's Table 1 and Figs. 2 to 4",
        {
            "wgan": ImageRow("WGAN", "wgan", stated={"cifar10": (4.57, 74.6)}),
            "dcgan": ImageRow("DCGAN", "dcgan", stated={"cifar10": (6.40, 37.7)}),
            "wgan-gp": ImageRow("WGAN-GP", "wgan-gp", stated={"cifar10": (7.86, 29.3)}),
            "sngan": ImageRow("SNGAN", "sngan"),
            "3p-wgan": ImageRow("3P-WGAN", "3p-wgan", stated={"cifar10": (7.38, 28.8)}),
            "3p-wgan-identity": _mover("identity", "identity"),
            "3p-wgan-noisy-identity": _mover("noisy identity", "noisy-identity"),
            "3p-wgan-input-noise": _mover("network of x + noise", "input-noise"),
            "3p-wgan-output-noise": _mover("network of x, + noise", "output-noise"),
        },
        main=("wgan-gp", "3p-wgan"),
        against="wgan-gp",
    ),
    "f-ablation": ImageTable(
        "POT-GAN's supplement: the choice of F",
        {"wgan-gp": _SHARED["wgan-gp"], "potgan": _SHARED["potgan"], **_FS},
        main=("wgan-gp", "potgan", *_FS),
        against="potgan-identity",
    ),
}
