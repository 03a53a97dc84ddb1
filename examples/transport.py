"""Algorithm 1 of POT-GAN (Avraham et al. 2019) on two point clouds: a soft forest learns to carry one onto the other.

    python examples/transport.py [PICTURE.png]

Prints the matched cost, the mean squared distance from a target point to the nearest moved point, at the first and at
the last step. This is the cost that Algorithm 1 lowers: every target point gets a moved point near it, but a moved
point need not lie near a target point. The exact one-to-one assignment shows how far apart the two clouds remain.
The picture shows both clouds, the pairs of the last step, and the source before and after it was moved.
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import make_moons
from torch import Tensor

from otkernels import AdamState, FitTransport, assign, fit_transport, soft_forest

TREES, DEPTH = 32, 4


def one_to_one(x: Tensor, y: Tensor) -> float:
    """min over permutations s of mean_i |x_i - y_s(i)|^2, the squared 2-Wasserstein distance of two equal clouds."""
    return assign(x, y).primal.item() / len(x)


def main(picture: str | None = None, steps: int = 600) -> dict[str, float]:
    torch.manual_seed(0)
    source = torch.randn(512, 2)
    target = torch.from_numpy(make_moons(512, noise=0.05, random_state=0)[0]).float() * 2 - torch.tensor([1.0, 0.5])

    nodes = 2**DEPTH - 1
    feature = torch.arange(TREES * nodes) % 2  # the coordinate that each node reads
    sharpness = 4.0  # routes are sigmoid(sharpness * z - threshold)
    z = sharpness * source
    thresholds = z[torch.randint(512, feature.shape), feature].view(TREES, nodes)  # cuts where the points are
    leaves = torch.zeros(TREES, 2**DEPTH, 2)
    state = AdamState.zeros_like(leaves)

    def fit(iters: int, lr: float) -> FitTransport:
        return fit_transport(target, z, thresholds, leaves, state, iters=iters, lr=lr, betas=(0.5, 0.9))

    first, last = fit(steps // 2, 0.2), fit(steps // 2, 0.02)
    moved = soft_forest(z, thresholds, leaves)
    figures = {
        "matched cost, first step": first.cost[0].item(),
        "matched cost, last step": last.cost[-1].item(),
        "one-to-one, source": one_to_one(target, source),
        "one-to-one, moved": one_to_one(target, moved),
    }
    for name, figure in figures.items():
        print(f"{name:<24}  {figure:.4f}")
    if picture:
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure

        axes = Figure(figsize=(12, 3.2), layout="constrained").subplots(1, 4, sharex=True, sharey=True)
        clouds = {"source": (axes[0], source), "target": (axes[1], target), "moved": (axes[3], moved)}
        for title, (axis, points) in clouds.items():
            axis.scatter(*points.T, s=6, color="tab:orange" if title == "target" else "tab:blue")
            axis.set(title=title, aspect="equal")
        pairs = torch.stack([source[last.index], target], 1)[::8]  # [64, 2 ends, 2]
        axes[2].add_collection(LineCollection(list(pairs.numpy()), linewidths=0.5, color="gray"))
        axes[2].scatter(*pairs[:, 0].T, s=6, color="tab:blue")
        axes[2].scatter(*pairs[:, 1].T, s=6, color="tab:orange")
        axes[2].set(title="every eighth pair", aspect="equal")
        axes[0].figure.savefig(picture, dpi=120)
    return figures


if __name__ == "__main__":
    main(*sys.argv[1:])
