"""assign in the compiled extension: small problems by the whole matrix, large ones by each row's best columns."""

from __future__ import annotations

import torch
from torch import Tensor

from .._checks import widen
from . import matrix, sparse

MOST_DENSE = 1 << 17  # entries of a cost matrix beyond which lists are faster


def assign(x: Tensor, y: Tensor, potential: Tensor | None, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, N, D], y [B, M, D] finite, N <= M, potential [B, M] or None -> index [B, N], u [B, N], v [B, M].

    Matrices and augmenting paths are the host's; a GPU finds the lists (l2_topk) and prices them.
    """
    x, y = widen(x), widen(y)
    potential = None if potential is None else widen(potential)
    if x.shape[1] * y.shape[1] <= MOST_DENSE:
        return matrix.solve(x, y, potential)
    parts = [
        sparse.solve(x[entry], y[entry], None if potential is None else potential[entry], tolerance)
        for entry in range(x.shape[0])
    ]
    index, u, v = (torch.stack(part).to(x.device) for part in zip(*parts, strict=True))
    return index, u, v
