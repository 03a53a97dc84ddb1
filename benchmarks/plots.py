"""Time relative to ours against the problem's size: one panel per thread count and per kind of case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contestants import OURS

MARKERS = "os^Dvx"


def plot(rows: list[dict[str, Any]], machine: dict[str, Any], path: Path) -> None:
    """Writes a PNG. Above 1 is slower than ours; a contestant without a point was not timed there."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    threads = sorted({row["threads"] for row in rows})
    kinds = list(dict.fromkeys(_kind(row) for row in sorted(rows, key=lambda row: row["d"])))
    names = [name for name in dict.fromkeys(row["contestant"] for row in rows) if name != OURS]
    figure, axes = plt.subplots(
        len(threads), len(kinds), figsize=(4.2 * len(kinds) + 1, 3.2 * len(threads) + 1), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for i, count in enumerate(threads):
        for j, kind in enumerate(kinds):
            _panel(axes[i, j], [r for r in rows if r["threads"] == count and _kind(r) == kind], names)
            axes[i, j].set_title(f"{kind}, {count} thread{'s' * (count > 1)}", fontsize=10)
        axes[i, 0].set_ylabel("time / ours (log)")
    handles = {handle.get_label(): handle for ax in axes.flat for handle in ax.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(f"{rows[0]['op']}: time relative to {OURS}, higher is slower\n{machine['cpu']}, {machine['date']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(ax: Any, rows: list[dict[str, Any]], names: list[str]) -> None:
    from matplotlib.ticker import LogLocator

    sizes = list(dict.fromkeys(_size(row) for row in rows))
    ax.axhline(1, color="black", linewidth=1.5, label=OURS)
    for color, name in enumerate(names):
        points = [
            (sizes.index(_size(row)), row["ratio_to_ours"])
            for row in rows
            if row["contestant"] == name and row.get("ratio_to_ours")
        ]
        style = {"color": f"C{color}", "marker": MARKERS[color % len(MARKERS)]}
        ax.plot([x for x, _ in points], [y for _, y in points], label=name, **style)
    ax.set_yscale("log")
    ax.set_xticks(range(len(sizes)), sizes, fontsize=8)
    ax.set_xlim(-0.3, len(sizes) - 0.7)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.grid(alpha=0.3, which="both")


def _kind(row: dict[str, Any]) -> str:
    return row["mode"] if row["m"] == 0 else f"d = {row['d']}"


def _size(row: dict[str, Any]) -> str:
    return f"N = {row['n']}" if row["m"] == 0 else f"{row['n']} x {row['m']}"
