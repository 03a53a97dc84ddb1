"""What one step of fit_transport must satisfy, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from otkernels import soft_forest
from otkernels.fit_transport import reference
from tests.otkernels.forests import first_bounds, lost_to_underflow
from tests.otkernels.nearest import costs, in_units

# N, M, d, T, D, d_out: one of each; ragged; the paper's; the toy's; deep; N < M and N > M
SHAPES = [
    (1, 1, 1, 1, 0, 1),
    (5, 7, 3, 2, 2, 4),
    (64, 64, 128, 18, 3, 128),
    (100, 100, 2, 16, 3, 2),
    (33, 70, 20, 3, 5, 37),
    (70, 33, 5, 1, 9, 130),
]


def unit(dtype: torch.dtype) -> float:
    """The roundoff of what is judged, and float64's own of what it is compared with."""
    return torch.finfo(dtype).eps / 2 + 2.0**-53


def gradient_and_bound(
    z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, index: Tensor, pairing: str
) -> tuple[Tensor, Tensor]:
    """In float64: the gradient to the leaves under given pairs, and what the inputs' dtype may be off by.

    A share errs by 3 ulp (soft_forest.h), so mu by (4 D) 2u, a sum of K terms by K u, a difference and the weight by u
    each; errors of F pass through the pairs and mu^T into the gradient, whose own sum has M terms. Second order: + 8.
    """
    u = unit(z_r.dtype)
    z_r, z_g, thresholds, leaves = (t.double() for t in (z_r, z_g, thresholds, leaves))
    grad, spread = _pulled(z_r, z_g, thresholds, leaves, index, pairing, u)
    backward = reference.forest.soft_forest_backward
    return backward(grad, z_g, thresholds, leaves)[2], backward(spread, z_g, thresholds, leaves)[2]


def _pulled(
    z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, index: Tensor, pairing: str, u: float
) -> tuple[Tensor, Tensor]:
    """The gradient to F(z_g) under given pairs, all in float64, and what roundoff ``u`` may put it off by."""
    n, m, trees, depth = z_r.shape[-2], z_g.shape[-2], leaves.shape[-3], leaves.shape[-2].bit_length() - 1
    routing = 8 * depth + 8

    def pull(pairs: Tensor) -> Tensor:  # F -> its gradient, given per pair what is summed [B, N, o]
        at = (index if pairing == "cover" else each)[..., None].expand_as(z_r)
        return torch.zeros(len(z_r), m, z_r.shape[-1], dtype=torch.float64).scatter_add(1, at, 2 / n * pairs)

    each = torch.arange(n).expand_as(index)
    transformed = soft_forest(z_g, thresholds, leaves, impl="reference")
    error = (trees * leaves.shape[-2] + routing) * u * soft_forest(z_g, thresholds, leaves.abs(), impl="reference")
    real, generated = (each, index) if pairing == "cover" else (index, each)
    difference = transformed.gather(1, generated[..., None].expand_as(z_r)) - z_r.gather(
        1, real[..., None].expand_as(z_r)
    )
    slack = error.gather(1, generated[..., None].expand_as(z_r)) + 4 * u * difference.abs() * (n + 1)
    return pull(difference), (m + routing) * u * pull(difference.abs()) + pull(slack)


def one_step_error(
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    index: Tensor,
    cost: Tensor,
    *,
    pairing: str,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> float:
    """How far one step lies from its definition, in units of what rounding allows: at most 1 is right.

    The index attains the minimum, exp_avg shows the gradient, and leaves follow from the moments by Adam's formula.
    before: z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq and step; after: the last four, all on the CPU and finite.
    """
    u, tiny = unit(before[0].dtype), torch.finfo(before[0].dtype).smallest_normal
    lead = before[0].shape[:-2]

    def one_batch(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.reshape(-1, *t.shape[len(lead) :]) for t in tensors]

    z_r, z_g, leaves, m0, v0 = one_batch([*before[:2], *before[3:6]])
    moved, m1, v1, index, cost = one_batch([*after[:3], index, cost])
    thresholds = before[2].expand(*lead, *before[2].shape[-2:]).reshape(len(leaves), *before[2].shape[-2:])
    assert after[3].item() == before[6].item() + 1, "the count of steps did not grow by one"
    errors = _pair_errors(z_r, z_g, thresholds, leaves, index, cost[:, 0], pairing)

    grad, bound = gradient_and_bound(z_r, z_g, thresholds, leaves, index, pairing)
    bound = bound + tiny
    (beta1, beta2), count = betas, after[3].item()
    wanted = m0.double() + (1 - beta1) * (grad - m0.double())
    errors.append(in_units((m1 - wanted).abs(), (1 - beta1) * bound + 4 * u * (m0.abs() + grad.abs()) + tiny))
    wanted = beta2 * v0.double() + (1 - beta2) * grad**2
    square = (1 - beta2) * (2 * grad.abs() + bound) * bound
    errors.append(in_units((v1 - wanted).abs(), square + 8 * u * (v0 + grad**2) + tiny))
    correction1, correction2 = 1 - beta1**count, 1 - beta2**count
    root = (v1.double() / correction2) ** 0.5 + eps
    step = lr / correction1 * m1.double() / root
    errors.append(in_units((moved - (leaves.double() - step)).abs(), 2 * u * leaves.abs() + 16 * u * step.abs() + tiny))
    return max(errors)


def cost_error(
    z_r: Tensor,
    z_g: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
    found: Sequence[Tensor],
    grad_z: Tensor,
    pairing: str,
) -> float:
    """How far transport_cost's results ``found`` and the gradient of the costs' sum lie from their definitions.

    In units of what rounding allows; all with one dimension of batches, on the CPU and finite.
    """
    cost, used, index = found
    errors = _pair_errors(z_r, z_g, thresholds, leaves, index, cost, pairing)
    u, exact = unit(z_r.dtype), [t.double() for t in (z_r, z_g, thresholds, leaves)]
    share = torch.tensor([len(row.unique()) / z_g.shape[1] for row in index], dtype=torch.float64)
    errors.append(in_units((used - share).abs(), 2 * u * share))
    grad, spread = _pulled(*exact, index, pairing, u)
    depth, d_out = leaves.shape[2].bit_length() - 1, leaves.shape[3]
    wanted = reference.forest.soft_forest_backward(grad, *exact[1:])[0]
    bound, moved = (first_bounds(g, *exact[1:], dtype=z_r.dtype)[1] for g in (grad, spread))
    # first_bounds has for a node what moves its gradient, times at least this
    bound = bound + moved / (u * (12 * (depth + 2) + d_out + 3))
    lost = lost_to_underflow(depth, grad, leaves, dtype=z_r.dtype)
    errors.append(in_units((grad_z - wanted).abs(), bound + lost))
    return max(errors)


def _pair_errors(
    z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, index: Tensor, cost: Tensor, pairing: str
) -> list[float]:
    """Of index, which attains the minimum, and of cost, which is that of its pairs."""
    u, tiny = unit(z_r.dtype), torch.finfo(z_r.dtype).smallest_normal
    assert ((index >= 0) & (index < z_g.shape[1])).all(), "an index is out of range"
    transformed = soft_forest(z_g.double(), thresholds.double(), leaves.double(), impl="reference")
    distances = costs(z_r, transformed)  # [B, N, M]
    # F errs by (K + 8 D + 8) u sum mu |leaf| / T, a distance by 2 sqrt(d) |x - F| times that
    trees, width, d_out = leaves.shape[1:]
    off = (trees * width + 8 * width.bit_length() + 8) * u * leaves.abs().amax((1, 2, 3)).double() * d_out**0.5
    largest = distances.amax((1, 2))
    slack = (4 * off * (largest**0.5 + off) + 4 * (d_out + 4) * u * largest + tiny)[:, None]  # [B, 1]
    errors = [in_units(distances.gather(2, index[..., None])[..., 0] - distances.amin(2), slack)]
    if pairing == "literal":
        distances = distances.mT  # |z_r[j] - F[i]|^2
    chosen = distances.gather(2, index[..., None])[..., 0]
    errors.append(in_units((cost.double() - chosen.mean(1)).abs(), slack[:, 0] + (len(chosen[0]) + 1) * u * largest))
    return errors
