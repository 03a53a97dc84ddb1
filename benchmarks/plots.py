"""The picture of a comparison: on the CPU times relative to ours, on a GPU times and their floor, against the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contestants import OURS

Row = dict[str, Any]
MARKERS = "os^Dvx*P<>hp"
COLORS = (*(f"C{number}" for number in range(10)), "black", "gold")


def plot(rows: list[Row], machine: dict[str, Any], path: Path) -> None:
    """Writes a PNG: a column of panels per kind of case, a row per thread count, or per dtype and kind of call."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    on_gpu = rows[0]["device"] == "cuda"
    lines = list(dict.fromkeys(_line(row) for row in rows))
    kinds = list(dict.fromkeys(_kind(row) for row in sorted(rows, key=lambda row: row["d"])))
    names = [name for name in dict.fromkeys(row["contestant"] for row in rows) if on_gpu or name != OURS]
    figure, axes = plt.subplots(
        len(lines), len(kinds), figsize=(4.2 * len(kinds) + 1, 3.2 * len(lines) + 1.4), sharey="row", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for i, line in enumerate(lines):
        for j, kind in enumerate(kinds):
            chosen = [row for row in rows if _line(row) == line and _kind(row) == kind]
            _panel(axes[i, j], chosen, names, machine.get("roofline"))
            axes[i, j].set_title(f"{kind}, {line}", fontsize=10)
        heights = [height for row in rows if _line(row) == line and (height := _height(row))]
        if on_gpu and heights:  # where launching takes the time, the floor lies far below
            axes[i, 0].set_ylim(min(heights) / 3, 2 * max(heights))
        axes[i, 0].set_ylabel("microseconds (log)" if on_gpu else "time / ours (log)")
    handles = {handle.get_label(): handle for ax in axes.flat for handle in ax.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    what = "time of a call, lower is faster" if on_gpu else f"time relative to {OURS}, higher is slower"
    figure.suptitle(f"{rows[0]['op']}: {what}\n{machine['gpu' if on_gpu else 'cpu']}, {machine['date']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(ax: Any, rows: list[Row], names: list[str], roofline: dict[str, Any] | None) -> None:
    """A contestant without a point was not timed there."""
    from matplotlib.ticker import LogLocator

    ordered = sorted(rows, key=lambda row: row["n"] * max(1, row["m"]))
    sizes = list(dict.fromkeys(_tick(row) for row in ordered))
    by_data = bool(rows) and _by_data(rows[0])  # kinds have no order that a line could follow
    if roofline is None:
        ax.axhline(1, color="black", linewidth=1.5, label=OURS)
    else:
        _floor(ax, ordered, sizes, roofline)
    for color, name in enumerate(names):
        points = [
            (sizes.index(_tick(row)), _height(row)) for row in ordered if row["contestant"] == name and _height(row)
        ]
        mine = roofline is not None and name.startswith(OURS)
        line = "-" if mine or roofline is None else "--"
        style = {"color": COLORS[color % len(COLORS)], "marker": MARKERS[color % len(MARKERS)], "markersize": 5}
        ax.plot(
            [x for x, _ in points], [y for _, y in points], label=name, linewidth=2 if mine else 1,
            linestyle="" if by_data else line, **style,
        )  # fmt: skip
    ax.set_yscale("log")
    slant = {"rotation": 30, "ha": "right"} if len(sizes) > 4 else {}
    ax.set_xticks(range(len(sizes)), sizes, fontsize=8, **slant)
    ax.set_xlim(-0.3, max(1, len(sizes)) - 0.7)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.grid(alpha=0.3, which="both")


def _floor(ax: Any, rows: list[Row], sizes: list[str], roofline: dict[str, Any]) -> None:
    """The time that the op would take at the measured product or copy rate, where rows carry their share of it."""
    floors = {}
    for row in rows:
        share = row.get("peak_share", row.get("bandwidth_share"))
        if share:
            floors[sizes.index(_tick(row))] = 1e6 * row["median_s"] * share
    if floors:
        at = sorted(floors)
        ax.plot(at, [floors[x] for x in at], color="black", linestyle=":", label="at the measured product or copy rate")


def _height(row: Row) -> float | None:
    if row["device"] == "cpu":
        return row.get("ratio_to_ours")
    return 1e6 * row["median_s"] if row["status"] == "ok" else None


def _line(row: Row) -> str:
    if row["device"] == "cpu":
        return f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    return f"{row['dtype']}, {row['call']}"


def _kind(row: Row) -> str:
    if row["m"] == 0:
        return str(row["mode"])
    return f"{row['n']} x {row['m']}, d = {row['d']}" if _by_data(row) else f"d = {row['d']}"


def _tick(row: Row) -> str:
    if _by_data(row):
        return str(row["data"])
    return f"N = {row['n']}" if row["m"] == 0 else f"{row['n']} x {row['m']}"


def _by_data(row: Row) -> bool:
    """Whether the suite varies the kind of data at a fixed size."""
    return str(row["op"]).endswith("_data")
