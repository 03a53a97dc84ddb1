"""``python -m train.reproduce rates``: how fast two samples of one law approach each other in W1 (POT-GAN, section 3).

Theorem 1 (Eq. 7) bounds E[W1(P, P_n)] by a multiple of n^(-1/d), Proposition 1 (Eq. 8) multiplies two such bounds. P is
uniform on the cube [0, 1]^d here: the theorem is Weed and Bach's, whose laws live on a compact set, and the cube has
dimension d exactly. Measured is E[W1(P_n, P'_n)] of two independent samples: it lies between E[W1(P, P_n)] and twice
that (Jensen, triangle inequality), so its exponent is the same. Between n and n equal masses W1 is an assignment.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from train.cli import parse_fields
from train.data.datasets import stream_seed
from train.provenance import describe, version
from train.reproduce.statistics import mean_and_error, pm
from train.run.files import write_atomically
from train.run.log import duration, read_rows

Row = dict[str, Any]


@dataclass(frozen=True)
class RatesConfig:
    """The exponent of E[W1(P_n, P'_n)] in n, P uniform on [0, 1]^d, beside -1/d of POT-GAN's Theorem 1.

    A second run with the same out measures only the pairs (d, n) that are missing; other settings need another out.
    """

    dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Dimensions d, at least 2 (for d = 1 the rate is n^(-1/2), not Eq. 7's)."""
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
    """Points n in each sample; one repeat of 8192 takes about 15 s and 0.6 GB."""
    points: int = 2**16
    """A pair (d, n) is measured points // n times, but at least 2 and at most max_repeats times."""
    max_repeats: int = 256
    """Upper limit of the repeats."""
    tail: int = 1024
    """The second fit uses n >= tail, as the rate is asymptotic."""
    seed: int = 0
    """The points of a repeat follow from (seed, d, n, number of the repeat) alone."""
    out: str = "results/rates"
    """Folder of rates.jsonl, rates.json, rates.md and rates.png."""

    def __post_init__(self) -> None:
        for name in ("dims", "sizes"):
            values = getattr(self, name)
            if not values or min(values) < 2 or len(set(values)) < len(values):
                raise ValueError(f"rates: {name} must be distinct and at least 2, got {values}")
        for name, least in (("points", 1), ("max_repeats", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"rates: {name} must be at least {least}, got {getattr(self, name)}")
        if sum(n >= self.tail for n in self.sizes) < 2:
            raise ValueError(f"rates: tail must leave at least two of the sizes {self.sizes}, got {self.tail}")

    def repeats(self, n: int) -> int:
        """How often a pair (d, n) is measured."""
        return min(self.max_repeats, max(2, self.points // n))


class Fit(NamedTuple):
    """log(mean distance) = exponent * log n + constant, with the exponent's standard error from the sampling noise."""

    exponent: float
    error: float
    misfit: float | None  # chi^2 per degree of freedom, about 1 on a straight line; None for a line through two points


class Curve(NamedTuple):
    """Means over the repeats and their standard errors in dimension d; arrays [number of sizes], n ascending."""

    d: int
    n: np.ndarray
    w1: np.ndarray
    error: np.ndarray
    nearest: np.ndarray
    nearest_error: np.ndarray


Fits = dict[int, dict[str, Fit]]  # dimension -> what was fitted -> line


def main(argv: Sequence[str], prog: str) -> None:
    """Measure what ``out`` lacks, then write the report."""
    from train.reproduce import rates_report

    config = parse_fields(RatesConfig, RatesConfig(), argv, prog)
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    rows = collect(config, folder / "rates.jsonl", f"{prog} {shlex.join(argv)}".strip())
    curves = [curve(rows, d) for d in sorted(config.dims)]
    fits = {c.d: fit_all(c, config.tail) for c in curves}
    named = {d: {name: fit._asdict() for name, fit in lines.items()} for d, lines in fits.items()}
    write_text(folder / "rates.json", json.dumps({"config": asdict(config), "fits": named, "rows": rows}) + "\n")
    write_text(folder / "rates.md", rates_report.document(config, rows, curves, fits))
    rates_report.draw(curves, fits, config.tail, folder / "rates.png")
    print(f"wrote {folder / 'rates.md'}, .json, .jsonl, .png")


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def collect(config: RatesConfig, path: Path, command: str) -> list[Row]:
    """The row of every (d, n), small n first; what ``path`` lacks is measured and appended, row by row."""
    stored: list[Row] = read_rows(path) if path.exists() else []
    rows = {(row["d"], row["n"]): row for row in stored}
    cells = [(d, n) for n in sorted(config.sizes) for d in sorted(config.dims)]
    for d, n in cells:
        wanted = {"seed": config.seed, "repeats": config.repeats(n)}
        found = {key: rows[d, n][key] for key in wanted} if (d, n) in rows else wanted
        if found != wanted:
            raise ValueError(f"rates: {path} must hold {wanted} for d = {d}, n = {n}, got {found}; choose another out")
    missing = [cell for cell in cells if cell not in rows]
    whole = "".join(json.dumps(row) + "\n" for row in stored)  # without a last line that a kill cut short
    write_text(path, whole)
    machine = {**describe(command, "train"), "scipy": version("scipy")}
    for d, n in missing:
        row = rows[d, n] = measure(d, n, config.repeats(n), config.seed) | {"machine": machine}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"d = {d:<3} n = {n:<5} W1 = {pm(*mean_and_error(row['w1']))}  {duration(row['seconds'])}", flush=True)
    return [rows[cell] for cell in cells]


def measure(d: int, n: int, repeats: int, seed: int) -> Row:
    """W1 of every repeat; mean and standard error of the distance to the nearest; seconds of processor time."""
    start = time.process_time()
    pairs = np.empty((repeats, 2))
    for r in range(repeats):
        random = np.random.default_rng(stream_seed(stream_seed(stream_seed(seed, d), n), r))
        pairs[r] = distances(random.random((n, d)), random.random((n, d)))
    row: Row = {"d": d, "n": n, "seed": seed, "repeats": repeats, "seconds": round(time.process_time() - start, 2)}
    return row | {"w1": pairs[:, 0].tolist(), "nearest": mean_and_error(pairs[:, 1])}


def distances(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """W1 between points x [n, d] and y [n, d] of mass 1/n each, and a lower bound of it: mean_i min_j |x_i - y_j|.

    By scipy on the matrix: the cost is the distance itself, and otkernels.assign minimises its square.
    """
    if x.ndim != 2 or x.shape != y.shape or len(x) == 0:
        raise ValueError(f"distances: x and y must both be [n > 0, d], got {list(x.shape)} and {list(y.shape)}")
    cost = cdist(x, y)  # [n, n]
    return float(cost[linear_sum_assignment(cost)].mean()), float(cost.min(1).mean())


def curve(rows: Iterable[Row], d: int) -> Curve:
    """One dimension's rows, which come with n ascending."""
    lines = [(row["n"], *mean_and_error(row["w1"]), *row["nearest"]) for row in rows if row["d"] == d]
    return Curve(d, *np.array(lines).T)


def fit_exponent(n: np.ndarray, mean: np.ndarray, error: np.ndarray) -> Fit:
    """Least squares of log mean on log n, weights (mean / error)^2: log's derivative carries the error over."""
    weight, x, y = (mean / error) ** 2, np.log(n), np.log(mean)
    x = x - np.average(x, weights=weight)
    y = y - np.average(y, weights=weight)
    spread = (weight * x * x).sum()
    exponent = (weight * x * y).sum() / spread
    chi2 = (weight * (y - exponent * x) ** 2).sum()
    return Fit(float(exponent), float(spread**-0.5), float(chi2 / (len(n) - 2)) if len(n) > 2 else None)


def fit_all(c: Curve, tail: int) -> dict[str, Fit]:
    """Lines through W1 and the nearest distance; in d = 2 also through the true rate, with the weights of W1."""
    late = c.n >= tail
    n, w1, error = c.n[late], c.w1[late], c.error[late]
    fits = {
        "all": fit_exponent(c.n, c.w1, c.error),
        "tail": fit_exponent(n, w1, error),
        "nearest": fit_exponent(n, c.nearest[late], c.nearest_error[late]),
    }
    if c.d == 2:
        rate = np.sqrt(np.log(n) / n)
        fits["log factor"] = fit_exponent(n, rate, rate * error / w1)._replace(error=0.0, misfit=None)
    return fits
