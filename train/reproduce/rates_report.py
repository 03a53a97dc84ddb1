"""The page and the picture about the rates of W1."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from train.reproduce.rates import Curve, Fits, RatesConfig, Row
from train.reproduce.statistics import pm
from train.run.files import write_atomically
from train.run.log import duration


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

    from train.report.plots import BLUE, COLOURS, DPI, GREEN, ORANGE, RED

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
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))
