"""Toy metrics against closed forms: every tolerance is a number of standard errors that the test derives."""

from __future__ import annotations

import math

import pytest
import torch

from train.data.distributions import GaussianMixture, ball3d, ring8
from train.scores.toy import kernel_log_density, reverse_kl, reverse_kl_floor, toy_metrics


def draw(target: GaussianMixture, n: int, seed: int) -> torch.Tensor:
    return target.sample(n, torch.Generator().manual_seed(seed))


def gaussian(dim: int, std: float, shift: float = 0.0) -> GaussianMixture:
    return GaussianMixture("gaussian", ((shift,) + (0.0,) * (dim - 1),), std)


def closed_form(dim: int, std: float, shift: float, bandwidth: float) -> tuple[float, float]:
    """KL(N(shift e_1, a I) || N(0, b I)), a = std^2 + h^2, b = 1 + h^2, and the standard deviation of its integrand.

    log p/q at shift e_1 + sqrt(a) u is  d/2 log(b/a) - |u|^2/2 + |shift e_1 + sqrt(a) u|^2 / (2b), a quadratic form
    with mean  d/2 (log(b/a) + a/b - 1) + shift^2/(2b)  and variance  d/2 (a/b - 1)^2 + shift^2 a/b^2.
    """
    a, b = std**2 + bandwidth**2, 1 + bandwidth**2
    mean = dim / 2 * (math.log(b / a) + a / b - 1) + shift**2 / (2 * b)
    variance = dim / 2 * (a / b - 1) ** 2 + shift**2 * a / b**2
    return mean, math.sqrt(variance)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize(("std", "shift"), [(1.0, 1.0), (0.5, 0.0), (1.5, 2.0)])
def test_reverse_kl_of_a_gaussian(dim, std, shift):
    n, bandwidth = 4000, 0.4
    expected, deviation = closed_form(dim, std, shift, bandwidth)
    kl, error = reverse_kl(draw(gaussian(dim, std, shift), n, seed=11), gaussian(dim, 1.0), bandwidth=bandwidth, seed=3)
    # The draws y_i are independent with law p = N(shift e_1, a I): the average of log p/q has variance deviation^2 / n.
    # The kernel density p' of n samples adds log p'/p, whose mean is E KL(p' || p) <= E chi^2(p' || p)
    # = (E[k_h(y - g) / p(y)] - 1) / n = ((a / h^2)^d - 1) / n (Mehler), and whose variance is at most E chi^2, over n.
    bias = (((std**2 + bandwidth**2) / bandwidth**2) ** dim - 1) / n
    assert abs(kl - expected) < bias + 5 * (deviation / math.sqrt(n) + math.sqrt(bias / n))
    # a sample deviation is off by sqrt((kurtosis - 1) / 4n), 3 % for the kurtosis 15 of chi^2_1; five of these
    assert error == pytest.approx(deviation / math.sqrt(n), rel=0.15)


def test_kernel_density_equals_the_mixture_it_stands_for():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(7, dtype=torch.float64)),
        torch.distributions.Independent(torch.distributions.Normal(samples, 0.3), 1),
    )
    # float64 throughout; the exponents are below 1e3: 1e3 * 2^-53 * a few operations
    torch.testing.assert_close(kernel_log_density(y, samples, 0.3), mixture.log_prob(y), atol=1e-11, rtol=0)


def test_chunks_do_not_show(monkeypatch):
    samples = draw(ring8(), 700, seed=1).double()
    whole = kernel_log_density(samples, samples, 0.1)
    monkeypatch.setattr("train.scores.toy.CHUNK_NUMBERS", 5000)  # seven rows at a time
    torch.testing.assert_close(kernel_log_density(samples, samples, 0.1), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("target", [ring8(), ball3d()])
def test_target_density_is_that_of_its_samples_with_noise(target):
    """The convolved density fits samples with the kernel's noise, E_q[log q] being the largest of all E_q[log p]."""
    bandwidth, n = 0.3, 20_000
    noisy = draw(target, n, seed=2).double()
    noisy += bandwidth * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(target.modes, dtype=torch.float64)),
        torch.distributions.Independent(
            torch.distributions.Normal(target.centres(dtype=torch.float64), math.hypot(target.std, bandwidth)), 1
        ),
    )
    ours = target.log_density(noisy, bandwidth)
    torch.testing.assert_close(ours, mixture.log_prob(noisy), atol=1e-11, rtol=0)
    assert ours.mean() > target.log_density(noisy, bandwidth=0.0).mean()
    assert ours.mean() > target.log_density(noisy, bandwidth=0.6).mean()


def test_true_samples_reach_the_floor():
    n = 3000
    metrics = toy_metrics(draw(ring8(), n, seed=5), ring8())
    assert metrics["reverse_kl_floor"] == reverse_kl_floor(ring8(), n)
    # two independent draws of one figure: each varies by its reported error and, through its samples, as much again
    assert abs(metrics["reverse_kl"] - metrics["reverse_kl_floor"]) < 5 * 2 * metrics["reverse_kl_error"]
    assert reverse_kl_floor(ring8(), 6000) < reverse_kl_floor(
        ring8(), 1500
    )  # the bias of a kernel density is about 1/n
    assert (metrics["modes_covered"], metrics["modes"], metrics["n"], metrics["bandwidth"]) == (8, 8, n, 0.1)
    share = 1 - math.exp(-9 / 2)  # P(|x| <= 3 sigma) in two dimensions
    assert metrics["within_3_sigma_target"] == pytest.approx(share, abs=1e-12)
    assert abs(metrics["within_3_sigma"] - share) < 5 * math.sqrt(share * (1 - share) / n)


def test_ball_share():
    metrics = toy_metrics(draw(ball3d(), 2000, seed=5), ball3d(), bandwidth=0.3)
    share = math.erf(3 / math.sqrt(2)) - math.sqrt(2 / math.pi) * 3 * math.exp(-9 / 2)  # Maxwell's distribution at 3
    assert metrics["within_3_sigma_target"] == pytest.approx(share, abs=1e-12)
    assert abs(metrics["within_3_sigma"] - share) < 5 * math.sqrt(share * (1 - share) / 2000)
    assert metrics["modes_covered"] == 1


@pytest.mark.parametrize("missing", [1, 3])
def test_missing_modes_are_seen(missing):
    target = ring8()
    some = GaussianMixture("some", target.means[missing:], target.std)
    metrics = toy_metrics(draw(some, 3000, seed=5), target)
    assert metrics["modes_covered"] == 8 - missing
    # all mass on K - k of K equal, nearly disjoint modes: KL = log(K / (K - k)) plus the floor
    expected = math.log(8 / (8 - missing)) + metrics["reverse_kl_floor"]
    assert abs(metrics["reverse_kl"] - expected) < 5 * 2 * metrics["reverse_kl_error"]


def test_a_few_stray_samples_do_not_cover_a_mode():
    target = ring8()
    samples = draw(GaussianMixture("seven", target.means[1:], target.std), 4000, seed=5)
    due = 0.1 * 4000 * (1 - math.exp(-4.5)) / 8  # 49.4
    for stray, covered in ((49, 7), (50, 8)):
        samples[:stray] = torch.tensor(target.means[0])
        assert toy_metrics(samples, target)["modes_covered"] == covered, due


def test_three_sigma_is_three_sigma():
    centre = torch.tensor(ring8().means[2], dtype=torch.float64)
    distances = torch.tensor([0.0, 1.0, 2.99, 3.01], dtype=torch.float64) * 0.2
    samples = centre + distances[:, None] * torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert toy_metrics(samples, ring8())["within_3_sigma"] == 0.75


def test_far_samples_keep_the_figures_finite():
    samples = draw(ring8(), 500, seed=5)
    samples[0] = 1e6
    metrics = toy_metrics(samples, ring8())
    assert all(math.isfinite(value) for value in metrics.values())
    # one sample at squared distance r^2 of 2e12 costs r^2 / (2 * 0.05) / 500 nats; its neighbours cost next to nothing
    assert metrics["reverse_kl"] == pytest.approx(2e12 / 0.1 / 500, rel=1e-4)
    assert metrics["within_3_sigma"] < 1


def test_repeatable():
    samples = draw(ring8(), 1000, seed=5)
    assert toy_metrics(samples, ring8(), seed=4) == toy_metrics(samples.clone(), ring8(), seed=4)
    assert toy_metrics(samples, ring8(), seed=4) != toy_metrics(samples, ring8(), seed=5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_an_error(bad):
    samples = draw(ring8(), 100, seed=5)
    samples[3, 1] = samples[70, 0] = bad
    with pytest.raises(ValueError, match="toy_metrics: 2 of 100 samples hold NaN or Inf"):
        toy_metrics(samples, ring8())


@pytest.mark.parametrize("shape", [(100, 3), (100,), (1, 2), (0, 2)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"toy_metrics: samples must be \[n, 2\] with n >= 2, got \["):
        toy_metrics(torch.zeros(shape), ring8())


def test_wrong_bandwidth():
    with pytest.raises(ValueError, match="bandwidth must be positive, got 0"):
        toy_metrics(torch.zeros(10, 2), ring8(), bandwidth=0.0)


def test_the_last_seed_of_64_bits_has_a_floor():
    assert reverse_kl_floor(ring8(), 64, seed=2**64 - 1) > 0
