"""Pairs of point clouds of several kinds: what bounds can hold apart on normal points, they may not on real ones."""

from __future__ import annotations

import torch
from torch import Tensor

CLUSTERS, DISTANCE = 10, 3.0  # centres drawn from N(0, DISTANCE^2)
COPIES = 64
OFFSET = 100.0
LATENT = 64  # dimensions that the ReLU layer's inputs have
CLOUDS = ("gaussian", "clusters", "tight clusters", "duplicates", "offset 100", "relu features")
TWO_LAWS = ("noise to clusters", "8-bit")
ABOUT = (
    "`gaussian`: N(0, 1). `clusters`: ten centres from N(0, 3^2), spread 1; `tight clusters`: spread 0.05. "
    "`duplicates`: 64 copies of each point of y, in random order. `offset 100`: N(100, 1). `relu features`: "
    f"max(0, W z) for normal z in {LATENT} dimensions and W with entries of N(0, 1 / {LATENT})."
)

ABOUT_TWO_LAWS = (
    "`noise to clusters`: x from N(0, 1), y in tight clusters. `8-bit`: ten centres, uniform in [0, 1] for each of x "
    "and y, spread 0.1, clamped to [0, 1] and rounded to multiples of 1 / 255, as colours or patches of two pictures."
)


def draw(kind: str, n: int, m: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [N, D] and y [M, D], float32: of one law, or of two where the kind is one of TWO_LAWS."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device)

    def clustered(count: int, centres: Tensor, spread: float) -> Tensor:
        which = torch.randint(CLUSTERS, (count,), generator=generator, device=generator.device)
        return centres[which] + spread * randn(count, d)

    match kind:
        case "gaussian":
            return randn(n, d), randn(m, d)
        case "clusters" | "tight clusters":
            centres, spread = DISTANCE * randn(CLUSTERS, d), 1.0 if kind == "clusters" else 0.05
            return clustered(n, centres, spread), clustered(m, centres, spread)
        case "duplicates":
            order = torch.randperm(m, generator=generator, device=generator.device) // COPIES
            return randn(n, d), randn(m // COPIES + 1, d)[order]
        case "offset 100":
            return OFFSET + randn(n, d), OFFSET + randn(m, d)
        case "relu features":
            weight = randn(LATENT, d) / LATENT**0.5
            return (randn(n, LATENT) @ weight).relu(), (randn(m, LATENT) @ weight).relu()
        case "noise to clusters":
            return randn(n, d), clustered(m, DISTANCE * randn(CLUSTERS, d), 0.05)
        case "8-bit":
            x, y = (clustered(count, rand(CLUSTERS, d), 0.1).clamp(0, 1) for count in (n, m))
            return (255 * x).round() / 255, (255 * y).round() / 255
    raise ValueError(f"draw: kind must be one of {', '.join(CLOUDS + TWO_LAWS)}, got {kind}")
