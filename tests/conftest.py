"""What every test shares: the seed of random data, the devices, Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Callable

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton
# A script that puts pytest in the background has it ignore SIGINT, and so would the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """One seed per test, from its name, or OTKERNELS_SEED; printed, so that a failure shows it."""
    number = int(os.environ.get("OTKERNELS_SEED", zlib.crc32(request.node.nodeid.encode())))
    print(f"seed {number}")
    torch.manual_seed(number)
    return number


@pytest.fixture
def randn(seed: int) -> Callable[..., torch.Tensor]:
    """randn(*shape, dtype=float32, device="cpu"): normal numbers, drawn in float64 on the CPU so that devices agree."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    return draw
