"""K-means by l2_argmin: Lloyd's algorithm from k-means++ seeds, without the N x K matrix of distances.

    python examples/kmeans.py

Prints the inertia (the sum of squared distances to the nearest centre) beside scikit-learn's from the same seeds.
"""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from torch import Tensor

from otkernels import l2_argmin


def seeds(x: Tensor, clusters: int) -> Tensor:
    """k-means++: each new centre is a point drawn in proportion to its squared distance from the centres so far."""
    centres = x[torch.randint(len(x), (1,))]
    distance = l2_argmin(x, centres).value  # [N]
    while len(centres) < clusters:
        new = x[torch.multinomial(distance, 1)]
        centres = torch.cat([centres, new])
        distance = torch.minimum(distance, l2_argmin(x, new).value)
    return centres


def lloyd(x: Tensor, centres: Tensor, most: int = 300) -> tuple[Tensor, float]:
    """Assigns points and averages clusters in turn until no point changes its cluster; returns centres and inertia."""
    previous = None
    for _ in range(most):
        value, index = l2_argmin(x, centres)
        if previous is not None and torch.equal(index, previous):
            break
        sums = torch.zeros_like(centres).index_add_(0, index, x)
        counts = torch.bincount(index, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)  # an empty cluster stays where it is
        previous = index
    return centres, value.double().sum().item()


def main(points: int = 20_000) -> dict[str, float]:
    torch.manual_seed(0)
    x = torch.from_numpy(make_blobs(points, n_features=32, centers=64, cluster_std=6.0, random_state=0)[0]).float()
    start = seeds(x, 64)
    _, inertia = lloyd(x, start)
    other = KMeans(64, init=start.numpy(), n_init=1, max_iter=300, tol=0).fit(x.numpy()).inertia_
    difference = abs(inertia / other - 1)
    print(f"otkernels     inertia {inertia:.6e}")
    print(f"scikit-learn  inertia {other:.6e}")
    print(f"relative difference {difference:.1e}")
    return {"inertia": inertia, "scikit-learn's inertia": other, "relative difference": difference}


if __name__ == "__main__":
    main()
