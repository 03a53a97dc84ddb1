"""Four ways to match a cloud x with a cloud y on the same points: nearest, one-to-one, entropic, semidiscrete.

    python examples/matchings.py [PICTURE.png]

Prints for each the mean squared distance of its pairs, and how much of y's mass is in place: 1 means that every
y_j gets 1 / N of the pairs. Semidiscrete pairs are right on average over the law of x, not on this sample of it.
"""

from __future__ import annotations

import sys

import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from otkernels import assign, l2_argmin, semidiscrete

N = 48


def law(n: int) -> Tensor:
    return torch.randn(n, 2) * torch.tensor([1.0, 0.6])


def one_hot(index: Tensor) -> Tensor:
    """The plan [N, N] in which each x_i goes to y_index(i) as a whole."""
    return torch.nn.functional.one_hot(index, N) / N


def entropic(x: Tensor, y: Tensor, blur: float = 0.3, steps: int = 300) -> Tensor:
    """Sinkhorn's iterations for the plan of min sum plan |x - y|^2 + blur^2 sum plan log plan, all N x N of it."""
    exponent = -torch.cdist(x, y).square() / blur**2
    f, g = torch.zeros(N, 1), torch.zeros(1, N)
    for _ in range(steps):
        f = -(exponent + g).logsumexp(1, keepdim=True)
        g = -(exponent + f).logsumexp(0, keepdim=True)
    return (exponent + f + g).exp() / N


def main(picture: str | None = None) -> dict[str, dict[str, float]]:
    torch.manual_seed(2)
    angle = torch.rand(N) * 2 * torch.pi
    x, y = law(N), 1.8 * torch.stack([angle.cos(), angle.sin()], 1) + 0.15 * torch.randn(N, 2)
    fitted = semidiscrete(law(20_000), y)
    plans = {
        "nearest": one_hot(l2_argmin(x, y).index),
        "one-to-one": one_hot(assign(x, y).index),
        "entropic": entropic(x, y),
        "semidiscrete": one_hot(l2_argmin(x, y, fitted.potential).index),
    }
    figures = {}
    axes = Figure(figsize=(12, 3.3), layout="constrained").subplots(1, 4, sharex=True, sharey=True)
    for axis, (name, plan) in zip(axes, plans.items(), strict=True):
        cost = (plan * torch.cdist(x, y).square()).sum().item()
        figures[name] = {
            "mean squared distance": cost,
            "mass in place": 1 - (plan.sum(0) - 1 / N).abs().sum().item() / 2,
        }
        print(f"{name:<12}  " + "  ".join(f"{key} {value:.3f}" for key, value in figures[name].items()))
        i, j = (plan > 0.01 / N).nonzero().T
        strength = (plan[i, j] * N).clamp(0, 1).tolist()
        axis.add_collection(LineCollection(list(torch.stack([x[i], y[j]], 1).numpy()), colors="gray", alpha=strength))
        axis.scatter(*x.T, s=10, color="tab:blue", label="x")
        axis.scatter(*y.T, s=10, color="tab:orange", label="y")
        axis.set(title=name, aspect="equal")
    across, up = torch.linspace(-2.4, 2.4, 300), torch.linspace(-2.4, 2.4, 300)
    grid = torch.cartesian_prod(up, across).flip(1)  # rows of the picture go up
    cell = l2_argmin(grid, y, fitted.potential).index.view(300, 300)
    for part in range(N):
        axes[3].contour(across, up, cell == part, levels=[0.5], colors="tab:orange", linewidths=0.4)
    axes[0].legend(loc="upper left")
    if picture:
        axes[0].figure.savefig(picture, dpi=100)
    return figures


if __name__ == "__main__":
    main(*sys.argv[1:])
