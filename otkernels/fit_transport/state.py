"""What Adam remembers between calls of fit_transport."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor


class AdamState(NamedTuple):
    """Adam's moments, shaped like what it trains, and its count of steps: a float32 scalar on the same device.

    The fields are named as in `torch.optim.Adam`'s state: `AdamState(**optimizer.state[leaves])` shares its tensors,
    and `optimizer.state[leaves] = state._asdict()` hands them back.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor

    @classmethod
    def zeros_like(cls, leaves: Tensor) -> AdamState:
        """The state before the first step."""
        step = torch.zeros((), dtype=torch.float32, device=leaves.device)
        return cls(torch.zeros_like(leaves), torch.zeros_like(leaves), step)


# torch.load(weights_only=True) and torch.export.save know it by this name
torch.serialization.add_safe_globals([AdamState])
pytree._register_namedtuple(AdamState, serialized_type_name="otkernels.AdamState")
