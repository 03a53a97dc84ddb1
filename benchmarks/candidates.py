"""A model of l2_argmin's exact mode on a GPU: which stage decides the rows of each kind of data, without a GPU.

    python -m benchmarks.candidates [--rows 128] [--columns 65536] [--dimensions 16 128 512 2048]

Products, bounds and lists are those of csrc/l2_argmin (l2_argmin.h has the bound, cuda_candidates.h the lists,
schedule.h the stages), with one list a row and no rounding of sums. Its default size takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import clouds

UNIT = 2.0**-24
BLOCK, CAPACITY, CROWDED = 128, 64, 32  # columns of a block; candidates that a list holds, and keeps
PATIENCE = (lambda m: 2 + m // 2048, lambda m: 2 + m // 160)  # settlings of a list after which a row gives up, by stage


class Outcome(NamedTuple):
    """Of one stage, over the rows: mean candidates and settlings of a list, and the share that gives up."""

    candidates: float
    settlings: float
    gave_up: float


class Points(NamedTuple):
    """Points as a sum of two float16 numbers and a rest: [..., D] each."""

    high: Tensor
    high_rest: Tensor
    low_rest: Tensor


def split(points: Tensor, largest: Tensor) -> Points:
    """By float16 numbers of points scaled so that `largest` lies in [2^14, 2^15)."""
    scale = 2.0 ** (14 - largest.log2().floor())
    high = (points * scale).half().float() / scale
    rest = points - high
    return Points(high, rest, rest - (rest * scale).half().float() / scale)


def stages(x: Tensor, y: Tensor) -> Iterator[Outcome]:
    """x [N, D], y [M, D], M a multiple of BLOCK: the first stage's outcome, and the second's for the same rows."""
    centre = y[:: len(y) // 16][:16].mean(0)
    x, blocks = x - centre, (y - centre).view(-1, BLOCK, y.shape[1])
    xs, ys = split(x, x.abs().amax(1, keepdim=True)), split(blocks, blocks.abs().amax((1, 2), keepdim=True))
    terms = math.ceil(x.shape[1] / 64) * 64 + 16
    squares = blocks.square().sum(2)  # [M / BLOCK, BLOCK]
    long = x.norm(dim=1) + xs.high_rest.norm(dim=1)
    longest = (blocks.norm(dim=2) + ys.high_rest.norm(dim=2)).amax(1)
    for stage in range(2):
        rest_x, rest_y = (points.low_rest if stage else points.high_rest for points in (xs, ys))
        products = (x if stage else xs.high).double() @ (blocks if stage else ys.high).flatten(0, 1).double().T
        scores = products.float().view(len(x), *squares.shape) - squares / 2
        lost = rest_x.norm(dim=1) + stage * 2**-9 * xs.high_rest.norm(dim=1)
        errors = (
            1.01 * (lost[:, None] * longest + long[:, None] * rest_y.norm(dim=2).amax(1))
            + 5 * terms * UNIT * long[:, None] * longest
            + 1.25 * terms * UNIT * squares.amax(1)
            + 4 * UNIT * x.square().sum(1, keepdim=True)
        )
        yield collect(scores, errors, PATIENCE[stage](len(y)))


def collect(scores: Tensor, errors: Tensor, patience: int) -> Outcome:
    """scores [N, blocks, BLOCK] and their bounds [N, blocks], block after block, the first one's candidates last."""
    best = scores.amax(2) - errors  # [N, blocks]
    order = [*range(1, scores.shape[1]), 0]
    low = torch.cat((best[:, :1], best[:, order]), 1).cummax(1).values[:, 1:]  # before the candidates of each block
    reached = scores[:, order] >= (low - errors[:, order])[..., None]
    settlings, gave_up = torch.zeros(len(scores)), torch.zeros(len(scores))
    for row in range(len(scores)):
        entries: list[tuple[float, float]] = []  # score, bound
        for at in reached[row].any(1).nonzero().flatten().tolist():
            found, error = scores[row, order[at]][reached[row, at]].tolist(), float(errors[row, order[at]])
            entries += [(score, error) for score in found]
            if len(entries) > CAPACITY:
                gave_up[row] = 1
                break
            if len(entries) <= CROWDED:
                continue
            entries = [entry for entry in entries if entry[0] >= float(low[row, at]) - entry[1]]
            if len(entries) > CROWDED:
                entries, settlings[row] = entries[:1], settlings[row] + 1
            if settlings[row] > patience:
                gave_up[row] = 1
                break
    return Outcome(reached.sum((1, 2)).float().mean().item(), settlings.mean().item(), gave_up.mean().item())


def text(of: Outcome) -> str:
    return f"{of.candidates:.0f} collected, {of.settlings:.1f} settlings, {of.gave_up:.0%} give up"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidates", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--columns", type=int, default=65536, help=f"a multiple of {BLOCK}; default 65536")
    parser.add_argument("--dimensions", type=int, nargs="+", default=(16, 128, 512, 2048))
    options = parser.parse_args(argv)
    form = "{:<16}{:>6}   {:<36}{:<36}"
    print(form.format("data", "d", "first stage", "second stage, for the same rows").rstrip())
    for d in options.dimensions:
        for data in clouds.CLOUDS:
            generator = torch.Generator().manual_seed(0)
            x, y = clouds.draw(data, options.rows, options.columns, d, generator)
            texts = (
                f"{o.candidates:.0f} collected, {o.settlings:.1f} settlings, {o.gave_up:.0%} give up"
                for o in stages(x, y)
            )
            print(form.format(data, d, *texts).rstrip(), flush=True)


if __name__ == "__main__":
    main()
