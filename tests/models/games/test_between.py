"""Noise between two draws follows the law of the draws."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from models.games import Gan, ThreePlayerWgan
from models.games.gan import GanConfig
from models.games.three_player_wgan import ThreePlayerWganConfig
from models.networks import NetworkConfig

MLP = NetworkConfig(name="mlp", width=4, depth=1, noise_dim=3)
GAMES = {
    "normal": Gan.build(GanConfig(networks=MLP), (2,)),
    "uniform": ThreePlayerWgan.build(ThreePlayerWganConfig(networks=MLP, batch_norm="none"), (2,)),
    "normal-3p": ThreePlayerWgan.build(ThreePlayerWganConfig(networks=MLP, batch_norm="none", noise="normal"), (2,)),
}


@pytest.mark.parametrize("law", list(GAMES))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_each_point_of_the_way_follows_the_law_of_the_noise(law, share, seed):
    """Kolmogorov and Smirnov's test at 1e-6; a straight line fails it by far at n = 20,000."""
    generator = torch.Generator().manual_seed(seed)
    start, end = (GAMES[law].draw_noise(20_000, generator) for _ in range(2))
    between = GAMES[law].between(start, end, share)
    assert (between.shape, between.dtype) == (start.shape, start.dtype)
    cdf = stats.uniform(-1, 2).cdf if law == "uniform" else stats.norm.cdf
    for column in between.T:
        assert stats.kstest(column.numpy(), cdf).pvalue > 1e-6
    straight = torch.lerp(start, end, 0.5)
    assert stats.kstest(straight[:, 0].numpy(), cdf).pvalue < 1e-6


@pytest.mark.parametrize("law", list(GAMES))
def test_the_way_begins_and_ends_at_its_ends(law, seed):
    generator = torch.Generator().manual_seed(seed)
    start, end = (GAMES[law].draw_noise(100, generator) for _ in range(2))
    start[0] = -1.0  # a uniform draw may be that
    torch.testing.assert_close(GAMES[law].between(start, end, 0.0), start, rtol=0, atol=1e-6)
    torch.testing.assert_close(GAMES[law].between(start, end, 1.0), end, rtol=0, atol=1e-6)
