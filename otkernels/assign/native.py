"""assign in the compiled extension: small problems by the whole matrix, large ones by each row's best columns."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .._checks import widen
from . import matrix, sparse
from .certificate import Certified, Solution, certified
from .lists import LOW

MOST_DENSE = 1 << 20  # entries of a cost matrix (8 MiB) beyond which lists are faster
MOST_DENSE_LOW = 1 << 18  # the same in few dimensions, where searches are long
FEW, MOST_OF_FEW = 256, 1 << 24  # rows for which lists are not, and entries (128 MiB) that their matrix may have


def assign(x: Tensor, y: Tensor, potential: Tensor | None, tolerance: float) -> Certified:
    """x [B, N, D], y [B, M, D], N <= M, potential [B, M] or None -> index [B, N], u [B, N], v [B, M], primal, dual [B].

    Matrices and augmenting paths are the host's; a GPU finds the lists (l2_topk) and prices them.
    """
    x, y = widen(x), widen(y)
    potential = None if potential is None else widen(potential)
    n, m, d = x.shape[1], y.shape[1], x.shape[2]
    most = MOST_DENSE_LOW if d <= LOW else MOST_DENSE
    if n * m <= most or (n <= FEW and n * m <= MOST_OF_FEW):
        return matrix.solve(x, y, potential)
    return certified(functools.partial(_by_lists, tolerance), x, y, potential)


def _by_lists(tolerance: float, x: Tensor, y: Tensor, potential: Tensor | None) -> Solution:
    parts = [
        sparse.solve(x[entry], y[entry], None if potential is None else potential[entry], tolerance)
        for entry in range(x.shape[0])
    ]
    index, u, v = (torch.stack(part).to(x.device) for part in zip(*parts, strict=True))
    return index, u, v
