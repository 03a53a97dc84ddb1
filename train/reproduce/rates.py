"""``python -m train.reproduce rates``: how fast two samples of one law approach each other in W1 (POT-GAN, section 3).

Theorem 1 (Eq. 7) bounds E[W1(P, P_n)] by a multiple of n^(-1/d), Proposition 1 (Eq. 8) multiplies two such bounds. P is
uniform on the cube [0, 1]^d here: the theorem is Weed and Bach's, whose laws live on a compact set, and the cube has
dimension d exactly. Measured is E[W1(P_n, P'_n)] of two independent samples: it lies between E[W1(P, P_n)] and twice
that (Jensen, triangle inequality), so its exponent is the same. Between n and n equal masses W1 is an assignment.
"""

from __future__ import annotations

import itertools
import json
import math
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from train.checkpoint import write_atomically
from train.cli import parse_fields
from train.data import stream_seed
from train.log import duration, read_rows
from train.provenance import describe, version

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
    config = parse_fields(RatesConfig, RatesConfig(), argv, prog)
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    rows = collect(config, folder / "rates.jsonl", f"{prog} {shlex.join(argv)}".strip())
    curves = [curve(rows, d) for d in sorted(config.dims)]
    fits = {c.d: fit_all(c, config.tail) for c in curves}
    named = {d: {name: fit._asdict() for name, fit in lines.items()} for d, lines in fits.items()}
    (folder / "rates.json").write_text(json.dumps({"config": asdict(config), "fits": named, "rows": rows}) + "\n")
    (folder / "rates.md").write_text(document(config, rows, curves, fits), encoding="utf-8")
    draw(curves, fits, config.tail, folder / "rates.png")
    print(f"wrote {folder / 'rates.md'}, .json, .jsonl, .png")


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
    write_atomically(path, lambda part: part.write_text(whole, encoding="utf-8"))
    machine = {**describe(command, "train"), "scipy": version("scipy")}
    for d, n in missing:
        row = rows[d, n] = measure(d, n, config.repeats(n), config.seed) | {"machine": machine}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"d = {d:<3} n = {n:<5} W1 = {pm(*mean_error(row['w1']))}  {duration(row['seconds'])}", flush=True)
    return [rows[cell] for cell in cells]


def measure(d: int, n: int, repeats: int, seed: int) -> Row:
    """W1 of every repeat; mean and standard error of the distance to the nearest; seconds of processor time."""
    start = time.process_time()
    pairs = np.empty((repeats, 2))
    for r in range(repeats):
        random = np.random.default_rng(stream_seed(stream_seed(stream_seed(seed, d), n), r))
        pairs[r] = distances(random.random((n, d)), random.random((n, d)))
    row: Row = {"d": d, "n": n, "seed": seed, "repeats": repeats, "seconds": round(time.process_time() - start, 2)}
    return row | {"w1": pairs[:, 0].tolist(), "nearest": mean_error(pairs[:, 1])}


def distances(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """W1 between points x [n, d] and y [n, d] of mass 1/n each, and a lower bound of it: mean_i min_j |x_i - y_j|."""
    if x.ndim != 2 or x.shape != y.shape or len(x) == 0:
        raise ValueError(f"distances: x and y must both be [n > 0, d], got {list(x.shape)} and {list(y.shape)}")
    cost = cdist(x, y)  # [n, n]
    return float(cost[linear_sum_assignment(cost)].mean()), float(cost.min(1).mean())


def mean_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def curve(rows: Iterable[Row], d: int) -> Curve:
    """One dimension's rows, which come with n ascending."""
    lines = [(row["n"], *mean_error(row["w1"]), *row["nearest"]) for row in rows if row["d"] == d]
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


def pm(value: float, error: float) -> str:
    """Value and standard error, to two digits of the error."""
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in (heading, ["---:"] * len(heading), *rows))


def document(config: RatesConfig, rows: Sequence[Row], curves: Sequence[Curve], fits: Fits) -> str:
    """rates.md."""
    machines = {json.dumps(row["machine"]): row["machine"] for row in rows}.values()
    facts = "cpu", "system", "python", "numpy", "scipy", "commit", "date"
    origins = "\n".join(f"`{m['command']}`: " + ", ".join(f"{key} {m[key]}" for key in facts) for m in machines)
    late = f"n >= {config.tail}"
    excess = {d: (f["tail"].exponent + 1 / d) / f["tail"].error for d, f in fits.items()}
    steeper = ", ".join(f"{d}" for d in fits if excess[d] < -2) or "none"
    flatter = ", ".join(f"{d}" for d in fits if excess[d] > 2) or "none"
    logarithm = f", over {late} a slope of {fits[2]['log factor'].exponent:.3f}" if 2 in fits else ""
    sizes = enumerate(sorted(config.sizes))
    means = [(n, config.repeats(n), *(pm(c.w1[i], c.error[i]) for c in curves)) for i, n in sizes]
    return f"""# Convergence rates of W1: POT-GAN's Proposition 1, measured

{origins}; one thread, seed {config.seed}, processor time {duration(sum(row["seconds"] for row in rows))}.

E[W1(P_n, P'_n)] between two independent samples of n points, P uniform on [0, 1]^d, by exact assignment. It lies
between E[W1(P, P_n)] of Eq. 7 and twice that, so its exponent is the same. ± is one standard error over the repeats.

![W1 against n, and the fitted exponents against Eq. 7](rates.png)

## Exponents

{exponent_table(curves, fits, late)}
Weighted least squares of log W1 on log n. The standard errors know the sampling noise only; chi²/dof well above 1 says
that the curve bends. By more than two standard errors, the slope over {late} is steeper than -1/d for
d = {steeper}, flatter for d = {flatter}. In d = 2 the rate is (log n / n)^(1/2){logarithm}.

Why slopes differ at these n: W1 is at least "nearest", the mean distance from a point to the nearest of the other
sample. Far from the cube's faces that is about r, the radius of the ball of volume 1/n, and falls as n^(-1/d). Where r
is not small beside half the cube's side, 0.5, the ball sticks out: the distance exceeds r, the more so the smaller n
is, and falls faster, as does W1 where it is little more ("W1 / nearest"). Eq. 7 bounds W1 for large n.

## The product of two rates

Eq. 8: the rate in d_r dimensions times the rate in d_z <= d_r, exponent -(d_r + d_z) / (d_r d_z) = -(1/d_r + 1/d_z).
Eq. 9 keeps the part of d_z alone; its share of the exponent is d_r / (d_r + d_z). Sums of the exponents above:

{product_table(fits, late)}
## W1

{table(("n", "repeats", *(f"d = {c.d}" for c in curves)), means)}"""


def exponent_table(curves: Sequence[Curve], fits: Fits, late: str) -> str:
    """Exponents beside -1/d, and what the nearest neighbour says of them."""
    lines, last = [], int(curves[0].n[-1])
    for d, _, w1, _, nearest, _ in curves:
        cells = []
        for slope, error, misfit in (fits[d]["all"], fits[d]["tail"], fits[d]["nearest"]):
            cells += [pm(slope, error), "" if misfit is None else f"{misfit:.1f}"]
        radius = math.exp((math.lgamma(d / 2 + 1) - math.log(last)) / d) / math.sqrt(math.pi)
        lines.append((d, f"{-1 / d:.4f}", *cells, f"{w1[-1] / nearest[-1]:.3f}", f"{radius:.3f}"))
    heading = ("d", "-1/d", "W1, all n", "chi²/dof", f"W1, {late}", "chi²/dof", f"nearest, {late}", "chi²/dof")
    return table((*heading, f"W1 / nearest, n = {last}", f"r, n = {last}"), lines)


def product_table(fits: Fits, late: str) -> str:
    """Eq. 8's exponent beside sums of measured ones: the largest d_r with every d_z, the least d_z with every d_r."""
    lines = []
    for z, r in itertools.combinations(fits, 2):
        if r == max(fits) or z == min(fits):
            both = [(fits[z][name], fits[r][name]) for name in ("all", "tail")]
            sums = [pm(a.exponent + b.exponent, math.hypot(a.error, b.error)) for a, b in both]  # independent
            share = both[1][0].exponent / (both[1][0].exponent + both[1][1].exponent)
            lines.append((r, z, f"{-1 / r - 1 / z:.4f}", *sums, f"{r / (r + z):.0%}", f"{share:.0%}"))
    heading = ("d_r", "d_z", "-(1/d_r + 1/d_z)", "sum of fits, all n", f"sum of fits, {late}")
    return table((*heading, "share of d_z", "fitted share"), lines)


def draw(curves: Sequence[Curve], fits: Fits, tail: int, path: Path) -> None:
    """W1 against n beside slopes -1/d; fitted exponents against -1/d. Logarithmic axes, as 1/d halves from d to d."""
    from matplotlib.figure import Figure  # slow to import

    from train.plots import BLUE, COLOURS, DPI, GREEN, ORANGE, RED

    figure = Figure(figsize=(10.5, 4.6), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.minorticks_off()
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for i, c in reversed(list(enumerate(curves))):  # the legend reads from top to bottom, as the curves do
        style = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1}
        left.errorbar(c.n, c.w1, c.error, marker="o", markersize=4, label=f"d = {c.d}", **style)
        left.plot(c.n, c.w1[0] * (c.n / c.n[0]) ** (-1 / c.d), linestyle=":", **style)
    left.plot([], [], ":", color="0.4", label="slope -1/d")
    left.set_xticks(curves[0].n, [f"{n:.0f}" for n in curves[0].n])
    left.set(xlabel="n, points in each sample", ylabel="W1 between two samples", title="Uniform on $[0, 1]^d$")
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    inverse = [1 / d for d in fits]
    right.plot(inverse, inverse, ":", color="0.4", label="-1/d (Eq. 7)")
    labels = "W1, all n", f"W1, n >= {tail}", f"nearest, n >= {tail}", "d = 2: $(\\log n / n)^{1/2}$"
    marks = zip(("all", "tail", "nearest", "log factor"), labels, "osDv", (BLUE, ORANGE, GREEN, RED), strict=True)
    for i, (name, label, marker, colour) in enumerate(marks):
        points = [(1.1 ** (i - 1) / d, -f[name].exponent, f[name].error) for d, f in fits.items() if name in f]
        x, y, error = np.array(points).reshape(-1, 3).T
        right.errorbar(x, y, error, marker=marker, markersize=5, color=colour, linestyle="", label=label)
    for axis in (right.xaxis, right.yaxis):
        axis.set_ticks(inverse, [f"-1/{d}" for d in fits])
    right.set(xlabel="-1/d (marks side by side)", ylabel="fitted exponent", title="Exponent of n")
    right.legend(frameon=False)
    figure.savefig(path)
