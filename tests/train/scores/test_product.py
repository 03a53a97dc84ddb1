"""The product in float32: within its error bound of the one in float64, by oneDNN and without it."""

import pytest
import torch

from train.scores.product import product


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (3, 5, 7), (104, 300, 1280), (33, 1, 2048), (0, 4, 8), (4, 0, 8)])
def test_product(monkeypatch: pytest.MonkeyPatch, onednn: bool, n: int, m: int, d: int) -> None:
    if not onednn:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    seed = 1000 * n + m + d
    print(f"seed {seed}")
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(count, d, generator=draw) + 3 for count in (n, m))
    found = product(x, y)
    assert found.shape == (n, m)
    assert found.dtype == torch.float32
    bound = d * 2.0**-24 * (x.double().abs() @ y.double().abs().T)  # Higham 2002, section 3.1, to first order
    error = (found.double() - x.double() @ y.double().T).abs()
    assert bool((error <= bound * (1 + d * 2.0**-23)).all())


def test_rows_of_a_larger_tensor() -> None:
    x = torch.arange(60.0).view(10, 6)
    torch.testing.assert_close(product(x[2:9:3], x[1:3]), x[2:9:3] @ x[1:3].T, rtol=0, atol=0)
