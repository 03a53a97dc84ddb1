"""A soft decision forest as a layer: regression on Friedman's first problem (Friedman 1991), y = f(5 of 10 features).

    python examples/forest_layer.py

Prints R^2, the share of variance explained, on unseen points, beside that of linear regression.
"""

from __future__ import annotations

import torch
from sklearn.datasets import make_friedman1
from sklearn.linear_model import LinearRegression
from torch import nn

from otkernels.nn import SoftForest


def main(steps: int = 600) -> dict[str, float]:
    torch.manual_seed(0)
    points, targets = make_friedman1(4_000, n_features=10, noise=1.0, random_state=0)
    x = torch.from_numpy(points).float()  # [N, 10], uniform on [0, 1]
    y = torch.from_numpy(targets).float()[:, None]
    train_x, test_x, train_y, test_y = x[:3000], x[3000:], y[:3000], y[3000:]
    mean, std = train_y.mean(), train_y.std()

    # The linear layer turns features into directions to cut along; every node of a tree cuts along one of them.
    model = nn.Sequential(
        nn.BatchNorm1d(10), nn.Linear(10, 112), SoftForest(dim=112, trees=16, depth=3, out_dim=1, learn_thresholds=True)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(train_x), (256,))
        loss = (model(train_x[rows]) - (train_y[rows] - mean) / std).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    model.eval()
    with torch.no_grad():
        error = (model(test_x) * std + mean - test_y).square().mean()
    figures = {
        "soft forest": 1 - (error / test_y.var()).item(),
        "linear regression": LinearRegression().fit(train_x, train_y).score(test_x, test_y),
        "the noise allows": 1 - 1 / test_y.var().item(),
    }
    for name, figure in figures.items():
        print(f"{name:<17}  R^2 {figure:.3f}")
    return figures


if __name__ == "__main__":
    main()
