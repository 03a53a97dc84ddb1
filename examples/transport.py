"""Algorithm 1 of POT-GAN (Avraham et al. 2019) on two point clouds: a soft forest learns to carry one onto the other.

    python examples/transport.py [PICTURE.png]

Prints the matched cost, the mean squared distance from a target point to the nearest moved point, at the first and at
the last step. This is the cost that Algorithm 1 lowers: every target point gets a moved point near it, but a moved
point need not lie near a target point. The exact one-to-one assignment shows how far apart the two clouds remain.
"""

from __future__ import annotations

import sys

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import make_moons
from torch import Tensor

from otkernels import AdamState, fit_transport, soft_forest

TREES, DEPTH = 32, 4


def one_to_one(x: Tensor, y: Tensor) -> float:
    """min over permutations s of mean_i |x_i - y_s(i)|^2, the squared 2-Wasserstein distance of two equal clouds."""
    cost = torch.cdist(x, y).square()
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].mean().item()


def main(picture: str | None = None) -> None:
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

    def step(iters: int, lr: float) -> Tensor:
        return fit_transport(target, z, thresholds, leaves, state, iters=iters, lr=lr, betas=(0.5, 0.9)).cost

    cost = torch.cat([step(300, 0.2), step(300, 0.02)])
    moved = soft_forest(z, thresholds, leaves)
    print(f"matched cost, first step  {cost[0]:.4f}")
    print(f"matched cost, last step   {cost[-1]:.4f}")
    print(f"one-to-one, source        {one_to_one(target, source):.4f}")
    print(f"one-to-one, moved         {one_to_one(target, moved):.4f}")
    if picture:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(9, 3.2), layout="constrained").subplots(1, 3, sharex=True, sharey=True)
        for axis, title, points in zip(axes, ("source", "target", "moved"), (source, target, moved), strict=True):
            axis.scatter(*points.T, s=6, color="tab:blue" if title != "target" else "tab:orange")
            axis.set(title=title, aspect="equal")
        axes[0].figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
