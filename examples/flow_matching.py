"""Flow matching with exact batch couplings (Tong et al. 2024, OT-CFM): torchcfm's code, with its sampler and with ours.

    python examples/flow_matching.py [PICTURE.png]

Trains the same small velocity field from 8 Gaussians to two moons twice; only `matcher.ot_sampler` differs. Prints the
mean loss of the last fifth, the 2-Wasserstein distance of 1,000 generated points from 1,000 of the moons, the sampler's
milliseconds for a batch of 256, and the distance of two samples of the moons. Needs torchcfm.
"""

from __future__ import annotations

import sys
import time

import torch
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torchcfm import ExactOptimalTransportConditionalFlowMatcher
from torchcfm.optimal_transport import OTPlanSampler

from otkernels import assign
from otkernels.coupling import ExactOT


def gaussians(n: int) -> Tensor:
    angle = torch.randint(8, (n,)) * torch.pi / 4
    return 5 * torch.stack([angle.cos(), angle.sin()], 1) + 0.3 * torch.randn(n, 2)


def moons(n: int) -> Tensor:
    return torch.from_numpy(make_moons(n, noise=0.1, random_state=int(torch.randint(2**31, ())))[0]).float() * 3 - 1


def train(sampler: OTPlanSampler | ExactOT, steps: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    hidden = [layer for _ in range(2) for layer in (nn.Linear(64, 64), nn.SiLU())]
    field = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), *hidden, nn.Linear(64, 2))
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.1)
    matcher.ot_sampler = sampler  # the one line
    losses = torch.zeros(steps)
    for k in range(steps):
        t, x, velocity = matcher.sample_location_and_conditional_flow(gaussians(256), moons(256))
        loss = (field(torch.cat([x, t[:, None]], 1)) - velocity).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[k] = loss.detach()
    return field, losses


def main(picture: str | None = None, steps: int = 800) -> dict[str, dict[str, float]]:
    figures = {"the moons": {"W2": (assign(moons(1000), moons(1000)).primal.item() / 1000) ** 0.5}}
    axes = Figure(figsize=(10, 3), layout="constrained").subplots(1, 3)
    for axis, sampler in zip(axes[1:], [OTPlanSampler(method="exact"), ExactOT()], strict=True):
        name = type(sampler).__name__
        field, losses = train(sampler, steps)
        x, fresh, batches = gaussians(1000), moons(1000), [(gaussians(256), moons(256)) for _ in range(20)]
        with torch.no_grad():
            for k in range(50):
                x = x + field(torch.cat([x, torch.full((1000, 1), k / 50)], 1)) / 50
        distance, start = (assign(x, fresh).primal.item() / 1000) ** 0.5, time.perf_counter()
        _ = [sampler.sample_plan(*batch) for batch in batches]
        milliseconds = 1e3 * (time.perf_counter() - start) / len(batches)
        figures[name] = {"loss": losses[-steps // 5 :].mean().item(), "W2": distance, "ms": milliseconds}
        axes[0].plot(losses.unfold(0, 20, 20).mean(1), label=name)
        axis.scatter(*x.T, s=3)
        axis.set(title=f"generated, pairs by {name}", aspect="equal")
    for name, row in figures.items():
        print(f"{name:<13}  " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if picture:
        axes[0].set(title="loss, means of 20 steps", yscale="log")
        axes[0].legend()
        axes[0].figure.savefig(picture, dpi=100)
    return figures


if __name__ == "__main__":
    main(*sys.argv[1:])
