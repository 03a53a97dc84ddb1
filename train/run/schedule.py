"""How the learning rates move over a run."""

from __future__ import annotations

import math
from typing import Literal

Decay = Literal["constant", "linear", "cosine"]


def factor(decay: Decay, warmup: int, step: int, iterations: int) -> float:
    """What every learning rate is multiplied by at iteration ``step`` of ``iterations``, counted from 0.

    decay: constant is 1; linear falls to 0 as 1 - s, with s = step / iterations; cosine as (1 + cos(pi s)) / 2
    (Loshchilov & Hutter 2017, one cycle). warmup: over that many iterations the factor also rises in a line from
    1 / warmup to 1.
    """
    share = step / iterations
    decayed = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[decay]
    return decayed if step >= warmup else decayed * (step + 1) / warmup
