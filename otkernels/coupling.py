"""Which noise meets which data point in a flow-matching batch (Tong et al. 2024, OT-CFM).

`ExactOT` and `SemidiscreteOT` stand where flow-matching code has torchcfm's OTPlanSampler. Neither makes the table of
all N x M pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from . import _checks
from ._plans import Pairs, by_label, join, whole
from ._processes import broadcast, gather_rows
from .l2_argmin import l2_argmin
from .semidiscrete import Semidiscrete, semidiscrete

Array = np.ndarray[Any, Any]


class ExactOT:
    """Pairs the rows of two batches by the exact optimal transport plan of squared distances.

        min over plans pi with uniform marginals of sum_ij pi_ij |x0_i - x1_j|^2

    For N = M rows the plan is a permutation (Birkhoff), which `otkernels.assign` finds without the N x M table. For
    N != M it is that of L = lcm(N, M) copies, each row of x0 L / N times and each of x1 L / M times: the plan of the
    original, for the price of an assignment of L points. Batches of 256 and 255 make that 65,280 points and tens of
    seconds: drop a last batch that is smaller.

    The first six arguments are those of torchcfm.optimal_transport.OTPlanSampler(method="exact"), whose name alone need
    be replaced. Points have any shape [N, ...] and are flattened for the distance.

        sampler = ExactOT()
        x0, x1 = sampler.sample_plan(torch.randn(256, 2), batch)  # [256, 2]

    Args:
        method: "exact"; the original's other methods have no counterpart here.
        reg: of those methods; as in the original, the exact plan does not depend on it.
        reg_m: likewise.
        normalize_cost: divides the cost by its largest entry in the original, which changes no exact plan: no effect.
        num_threads: no effect: assign runs on torch.get_num_threads() threads.
        warn: no effect: the original warns and draws from the independent plan where the costs are not finite; here
            that is a ValueError.
        by_label: whether rows of equal labels alone are paired. Needs the labels of both, so that only pairs and
            sample_plan_with_labels can be called; noise is given the labels of its batch. Each label's rows are a
            problem of their own; a label with n rows in x0 and m in x1 has n / N of the mass, uniform on its rows of
            x1. Rows of x1 whose label no row of x0 has are left out.
        distributed: whether the batches of all processes are paired as one; see below.
        group: the torch.distributed process group of these, None for all processes.
        generator: what draws pairs, on the CPU; None for torch's own.
        tolerance: relative gap at which assign may stop; 0 is optimal to rounding.

    With distributed=True every process of the group makes the same calls, each with its own rows, of which every
    process may have another number. The rows are gathered, the group's first process solves the one problem and sends
    the pairs to all, so that processors that round differently cannot disagree. Each process draws from the pairs of
    its own rows of x0; its rows of x1 may come from any process, and carry no gradient. Every row of every process is
    held by each: memory O(N + M) of the whole batch. Where the group is not initialised, distributed=True raises.

    Raises:
        ValueError: an option, a shape or a label is wrong, or points are NaN or infinite (on all processes alike).
    """

    def __init__(
        self,
        method: str = "exact",
        reg: float = 0.05,
        reg_m: float = 1.0,
        normalize_cost: bool = False,
        num_threads: int | str = 1,
        warn: bool = True,
        *,
        by_label: bool = False,
        distributed: bool = False,
        group: dist.ProcessGroup | None = None,
        generator: torch.Generator | None = None,
        tolerance: float = 0.0,
    ) -> None:
        if method != "exact":
            raise ValueError(f"ExactOT: method must be 'exact', got {method!r}")
        self.by_label = by_label
        self.distributed = distributed
        self.group = group
        self.generator = generator
        self.tolerance = tolerance

    def pairs(self, x0: Tensor, x1: Tensor, y0: Tensor | None = None, y1: Tensor | None = None) -> Pairs:
        """The plan of x0 [N, ...] and x1 [M, ...] as its pairs; with distributed=True those of this process's x0.

        Labels y0 [N] and y1 [M] are looked at where by_label=True. source counts this process's rows of x0 and target
        the rows of x1 of all processes, in order of rank.
        """
        return self._solve(x0, x1, y0, y1)[0]

    def get_map(self, x0: Tensor, x1: Tensor) -> Array:
        """The plan of x0 [N, ...] and x1 [M, ...] as a table, float64 [N, M], for code that reads it. Memory N M."""
        pairs, everyone, _ = self._solve(x0, x1)
        table = torch.zeros(len(x0), len(everyone), dtype=torch.float64)
        table[pairs.source.cpu(), pairs.target.cpu()] = pairs.weight.cpu()
        return table.numpy()

    def sample_map(self, pi: Array, batch_size: int, replace: bool = True) -> tuple[Array, Array]:
        """batch_size pairs (i, j) drawn from a table pi [N, M] as get_map returns it: two int64 arrays."""
        source, target = np.nonzero(pi)
        drawn = self._draw(torch.from_numpy(pi[source, target]), batch_size, replace).numpy()
        return source[drawn], target[drawn]

    def sample_plan(self, x0: Tensor, x1: Tensor, replace: bool = True) -> tuple[Tensor, Tensor]:
        """N pairs drawn from the plan of x0 [N, ...] and x1 [M, ...]: the rows x0[i] and x1[j], both [N, ...].

        replace=True draws each pair from all, as the original does: of a permutation's pairs some 37 % are not drawn,
        and others twice or more. replace=False gives each of a permutation's pairs once, in random order.
        """
        return self._sample(x0, x1, None, None, replace)[:2]

    def sample_plan_with_labels(
        self,
        x0: Tensor,
        x1: Tensor,
        y0: Tensor | None = None,
        y1: Tensor | None = None,
        replace: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The same with the labels y0 [N, ...] and y1 [M, ...] of the rows drawn: x0[i], x1[j], y0[i], y1[j].

        Labels that are None stay None. Only with by_label=True do they have a say in who meets whom; then they are
        [N] and [M], both are needed, and every label of y0 must occur in y1.
        """
        return self._sample(x0, x1, y0, y1, replace)

    def sample_trajectory(self, x: Tensor) -> Tensor:
        """Rows of x [N, times, ...], each time's in the order that pairs it exactly with the time before: same shape.

        The first time stays as it is. A tensor, where the original returns an array.
        """
        if self.distributed:
            raise ValueError("ExactOT: distributed must be False for sample_trajectory, got True")
        steps = [x[:, 0]]
        index = torch.arange(len(x), device=x.device)
        for time in range(1, x.shape[1]):
            index = self.pairs(x[:, time - 1], x[:, time]).target[index]
            steps.append(x[index, time])
        return torch.stack(steps, 1)

    def _sample(
        self, x0: Tensor, x1: Tensor, y0: Tensor | None, y1: Tensor | None, replace: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        pairs, everyone, labels = self._solve(x0, x1, y0, y1)
        drawn = self._draw(pairs.weight, len(x0), replace).to(x0.device)
        i, j = pairs.source[drawn], pairs.target[drawn]
        return x0[i], everyone[j], None if y0 is None else y0[i], None if labels is None else labels[j]

    def _draw(self, weight: Tensor, count: int, replace: bool) -> Tensor:
        if count == 0:
            return torch.empty(0, dtype=torch.int64)
        return torch.multinomial(weight.cpu(), count, replace, generator=self.generator)

    def _solve(
        self, x0: Tensor, x1: Tensor, y0: Tensor | None = None, y1: Tensor | None = None
    ) -> tuple[Pairs, Tensor, Tensor | None]:
        """This process's pairs, and the rows of x1 and of y1 that their targets count."""
        self._check(x0, x1, y0, y1)
        first, own, begin = True, len(x0), 0
        if self.distributed:
            first = dist.get_rank(self.group) == 0
            x0, begin = gather_rows(x0, self.group)
            x1, _ = gather_rows(x1, self.group)
            y0 = None if y0 is None else gather_rows(y0, self.group)[0]
            y1 = None if y1 is None else gather_rows(y1, self.group)[0]
            for name, points in (("x0", x0), ("x1", x1)):
                if len(points) == 0:
                    raise ValueError(f"ExactOT: {name} must have rows in some process, got none in all")
        problems = whole(x0, x1)
        if self.by_label and y0 is not None and y1 is not None:
            problems = by_label(x0, x1, y0, y1)
        index = torch.cat([p.solve(self.tolerance) if first else p.unsolved() for p in problems])
        if self.distributed:
            broadcast(index, self.group)
        if (index < 0).any():
            raise ValueError("ExactOT: x0 and x1 must be finite, got points with NaN or infinity")
        pairs = join(problems, index)
        if self.distributed:
            mine = (pairs.source >= begin) & (pairs.source < begin + own)
            weight = pairs.weight[mine]
            pairs = Pairs(pairs.source[mine] - begin, pairs.target[mine], weight / weight.sum())
        return pairs, x1, y1

    def _check(self, x0: Tensor, x1: Tensor, y0: Tensor | None, y1: Tensor | None) -> None:
        if self.distributed and not (dist.is_available() and dist.is_initialized()):
            raise ValueError("ExactOT: distributed must be False while torch.distributed is not initialised, got True")
        _checks.alike("ExactOT", x0=x0, x1=x1)
        for name, points in (("x0", x0), ("x1", x1)):
            if points.dim() < 2 or (len(points) == 0 and not self.distributed):
                raise ValueError(f"ExactOT: {name} must be [N, ...] with N >= 1, got {_checks.shape(points)}")
        if x0[:0].flatten(1).shape != x1[:0].flatten(1).shape:
            raise ValueError(f"ExactOT: x1 must have rows of x0's size, got {_checks.shape(x1)}")
        if self.by_label:
            for name, labels, points in (("y0", y0, x0), ("y1", y1, x1)):
                if labels is None or labels.shape != points.shape[:1]:
                    found = None if labels is None else _checks.shape(labels)
                    raise ValueError(f"ExactOT: {name} must be [{len(points)}] for by_label=True, got {found}")


class SemidiscreteOT:
    """Pairs noise with a fixed set of points by a potential that is fitted once: semidiscrete optimal transport.

        j(x) = argmin_j |x - target_j|^2 - potential_j

    is the optimal map onto the target set for the whole distribution of x, of which `fit` sees a sample, and not for a
    batch: no batch size biases it, and a batch of N costs one l2_argmin. `fit` finds the potential for which the cells
    {x: j(x) = j} have the targets' weights. Of OTPlanSampler it has sample_plan and sample_plan_with_labels. Everything
    is done on the target's device.

        sampler = SemidiscreteOT(data)
        sampler.fit(torch.randn(64 * len(data), 2))
        x0, x1 = sampler.sample_plan(torch.randn(256, 2))

    Args:
        target: [M, ...] the points of the target set, float32 or float64.
        labels: [M, ...] what sample_plan_with_labels returns as the targets' labels; None for none.
        weights: [M] what share of the noise each target gets, as weights_y of semidiscrete; None for equal ones.
        potential: [M] of an earlier fit; None for zeros, with which every x meets its nearest target.

    Attributes:
        target, labels, weights, potential: as above; `potential` is what to save.

    Raises:
        ValueError: a shape, a dtype or a device is wrong.
    """

    def __init__(
        self,
        target: Tensor,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        potential: Tensor | None = None,
    ) -> None:
        _checks.alike("SemidiscreteOT", target=target)
        if target.dim() < 2 or len(target) == 0:
            raise ValueError(f"SemidiscreteOT: target must be [M, ...] with M >= 1, got {_checks.shape(target)}")
        if labels is not None and labels.shape[:1] != target.shape[:1]:
            raise ValueError(f"SemidiscreteOT: labels must be [{len(target)}, ...], got {_checks.shape(labels)}")
        if potential is not None:
            _checks.alike("SemidiscreteOT", target=target, potential=potential)
            if potential.shape != target.shape[:1]:
                shape = f"[M] with M={len(target)}"
                raise ValueError(f"SemidiscreteOT: potential must be {shape}, got {_checks.shape(potential)}")
        self.target = target
        self.labels = labels
        self.weights = weights
        self.potential = target.new_zeros(len(target)) if potential is None else potential

    def fit(self, noise: Tensor, *, resume: bool = False, **options: Any) -> Semidiscrete:
        """Fits the potential to noise [N, ...]; returns what `otkernels.semidiscrete` does, for its marginal_error.

        Noise has the target's dtype and device. The cells' masses are those of these N points: with N / M points a
        cell, a cell's mass under fresh noise is off by typically sqrt(M / N) of itself, 12 % for 64 points a cell.
        options go to semidiscrete, batch=... among them. resume=True starts from the present potential, where otherwise
        a coarser problem gives the start, and no potential that was there is used.
        """
        start = self.potential if resume else None
        found = semidiscrete(noise.flatten(1), self._rows(), None, self.weights, start=start, **options)
        if found.potential.isnan().any():
            raise ValueError("SemidiscreteOT: noise and target must be finite, got points with NaN or infinity")
        self.potential = found.potential
        return found

    def index(self, x0: Tensor) -> Tensor:
        """Which target each row of x0 [N, ...] meets: int64 [N]; -1 for a row with NaN."""
        return l2_argmin(x0.detach().flatten(1), self._rows(), self.potential).index

    def sample_plan(self, x0: Tensor, x1: Tensor | None = None, replace: bool = True) -> tuple[Tensor, Tensor]:
        """x0 [N, ...] as it is, and the target of each of its rows [N, ...].

        x1 and replace are there so that calls for OTPlanSampler need no change: targets come from the whole set, not
        from the batch x1, and rows of x0 that are independent draws of noise need not be drawn again.
        """
        return x0, self.target[self._found(x0)]

    def sample_plan_with_labels(
        self,
        x0: Tensor,
        x1: Tensor | None = None,
        y0: Tensor | None = None,
        y1: Tensor | None = None,
        replace: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The same with y0 as it is, and the targets' labels, which the constructor was given (None if it was not).

        y1, the labels of the batch x1, is not looked at, and labels have no say in who is paired.
        """
        index = self._found(x0)
        return x0, self.target[index], y0, None if self.labels is None else self.labels[index]

    def _rows(self) -> Tensor:
        return self.target.detach().flatten(1)

    def _found(self, x0: Tensor) -> Tensor:
        index = self.index(x0)
        if (index < 0).any():
            raise ValueError("SemidiscreteOT: x0 must be finite, got points with NaN or infinity")
        return index
