"""The toy distributions, with everything a metric needs to know about them in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianMixture:
    """An equally weighted mixture of K isotropic Gaussians: p(x) = 1/K sum_k N(x; mean_k, std^2 I).

    Hashable, so that figures that depend on the target alone can be remembered.
    """

    name: str
    means: tuple[tuple[float, ...], ...]
    std: float

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        return len(self.means[0])

    @property
    def modes(self) -> int:
        """K, the number of Gaussians."""
        return len(self.means)

    def centres(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        """The means as a tensor [K, dim]."""
        return torch.tensor(self.means, device=device, dtype=dtype)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent points [n, dim], float32, on the generator's device."""
        device = generator.device
        component = torch.randint(self.modes, (n,), generator=generator, device=device)
        noise = torch.randn(n, self.dim, generator=generator, device=device)
        return self.centres(device)[component] + self.std * noise

    def log_density(self, x: Tensor, bandwidth: float = 0.0) -> Tensor:
        """log (p * k_h)(x) [n], x's dtype, for x [n, dim] and the Gaussian kernel k_h of deviation h = ``bandwidth``.

        The convolution of two Gaussians is a Gaussian whose variances add, so this is exact.
        """
        variance = self.std**2 + bandwidth**2
        squared = (x[:, None] - self.centres(x.device, x.dtype)).square().sum(-1)  # [n, K]
        normaliser = math.log(self.modes) + 0.5 * self.dim * math.log(2 * math.pi * variance)
        return torch.logsumexp(-squared / (2 * variance), dim=1) - normaliser


def ring8() -> GaussianMixture:
    """8 Gaussians in the plane: centres on a circle of radius 2, covariance 0.04 I (3P-WGAN's statement of the toy)."""
    angles = [2 * math.pi * k / 8 for k in range(8)]
    return GaussianMixture("ring8", tuple((2 * math.cos(a), 2 * math.sin(a)) for a in angles), 0.2)


def ball3d() -> GaussianMixture:
    """The standard normal distribution in three dimensions (POT-GAN's 3-D Gaussian ball)."""
    return GaussianMixture("ball3d", ((0.0, 0.0, 0.0),), 1.0)
