"""Pictures of samples and losses, as small PNG files; colours that the colour-blind can tell apart (Okabe and Ito)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter
from mpl_toolkits.mplot3d import Axes3D
from PIL import Image
from torch import Tensor

from train.data.distributions import GaussianMixture
from train.report.curves import Chart
from train.run.files import write_atomically
from train.run.log import read_history

BLUE, ORANGE, GREEN, PURPLE, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
SHOWN_POINTS = 5000  # more hide each other and swell the file
SHOWN_DOTS = 30  # a curve of more points has none
DPI = 110
MIN_GRID_PIXELS = 512  # a grid of small images is enlarged by a whole factor up to about this width


def image_grid(images: Tensor, path: Path, *, columns: int | None = None) -> None:
    """Write ``grid_picture`` of images [N, C, H, W] to ``path``."""
    _write(grid_picture(images, columns=columns), path)


def grid_picture(images: Tensor, *, columns: int | None = None) -> Image.Image:
    """Images [N, C, H, W] in [-1, 1], C = 1 or 3, row by row; columns defaults to the square root of N.

    Small images are enlarged by a whole factor without smoothing, so that a pixel of the file is a pixel of the image.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"image_grid: images must be [N > 0, 1 or 3, H, W], got {list(images.shape)}")
    broken = int(images.isnan().flatten(1).any(1).sum())
    if broken:
        raise ValueError(f"image_grid: {broken} of {len(images)} images hold NaN")
    n, _, height, width = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = math.ceil(n / columns)
    factor = max(1, MIN_GRID_PIXELS // (columns * width))
    pixels = images.detach().float().cpu().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    pixels = pixels.expand(n, 3, height, width).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    height, width, gap = height * factor, width * factor, 2
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def scatter_ring(samples: Tensor, target: GaussianMixture, path: Path, *, title: str = "") -> None:
    """Samples [n, 2] over the target's circles of 1 and 3 sigma."""
    side_by_side({title: samples}, target, path)


def scatter_ball(samples: Tensor, target: GaussianMixture, path: Path, *, title: str = "") -> None:
    """Samples [n, 3] inside the target's 3-sigma sphere (transparent light blue), as in POT-GAN's Fig. 3."""
    side_by_side({title: samples}, target, path)


def side_by_side(samples: Mapping[str, Tensor], target: GaussianMixture, path: Path) -> None:
    """One panel for each named set of samples [n, dim], dim 2 or 3, all on the same axes; the first 5,000 are drawn."""
    for name, points in samples.items():
        if points.ndim != 2 or points.shape[1] != target.dim or target.dim not in (2, 3):
            raise ValueError(f"side_by_side: {name!r} must be [n, {target.dim}], got {list(points.shape)}")
    figure = Figure(figsize=(4.6 * len(samples), 5.1), dpi=DPI)
    figure.subplots_adjust(left=0.09 / len(samples), right=1 - 0.04 / len(samples), bottom=0.12, top=0.9, wspace=0.12)
    for i, (name, points) in enumerate(samples.items()):
        shown = points.detach().double().cpu().numpy()[:SHOWN_POINTS]  # [n, dim]
        projection = "3d" if target.dim == 3 else None
        axes = figure.add_subplot(1, len(samples), i + 1, projection=projection)
        where = "the picture" if target.dim == 2 else "the sphere"
        outside = (_draw_ring if target.dim == 2 else _draw_ball)(axes, shown, target)
        note = f"{outside:,} of {len(shown):,} points lie outside {where}" if outside else ""
        axes.set_title(f"{name}\n{note}", fontsize=11, y=1.0 if target.dim == 2 else 1.05)
    figure.legend(handles=_legend(target), loc="lower center", ncols=3, frameon=False, fontsize=10)
    _save(figure, path)


def loss_curves(metrics: Path, path: Path) -> None:
    """One panel per player and one line per named term of a metrics.jsonl, whose keys read player/term."""
    rows = read_history(metrics)
    players: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        player, _, term = key.partition("/")
        if term and term != "lr" and player not in ("metrics", "scores"):
            players.setdefault(player, []).append(key)
    if not players:
        raise ValueError(f"loss_curves: {metrics} holds no losses")
    figure = Figure(figsize=(8, 0.6 + 2.4 * len(players)), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(players), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (player, keys) in zip(panels, players.items(), strict=True):
        for key, colour in zip(keys, _cycle(COLOURS, len(keys)), strict=True):
            points = [(row["step"], math.nan if row[key] is None else row[key]) for row in rows if key in row]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, label=_words(key.partition("/")[2]))
        axes.set_title(_words(player), loc="left", fontsize=11)
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=10)
    panels[-1].set_xlabel("iteration")
    _save(figure, path)


def overlay(charts: Sequence[Chart], path: Path) -> None:
    """A row for each chart and a column for each of its axes: lines with their bands, and one legend for all."""
    axes_of = charts[0].axes
    names = {line.name: line.colour for chart in charts for line in chart.lines}
    figure = Figure(figsize=(4.6 * len(axes_of), 0.9 + 2.3 * len(charts)), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(charts), len(axes_of), squeeze=False, sharey="row")
    for row, chart in zip(panels, charts, strict=True):
        for axes, (axis, label) in zip(row, axes_of.items(), strict=True):
            for line in chart.lines:
                colour, marker = COLOURS[line.colour % len(COLOURS)], "o" if len(line.y) <= SHOWN_DOTS else ""
                axes.plot(line.x[axis], _gaps(line.y), marker, ls="-", ms=2.5, color=colour, linewidth=1.2)
                if line.low is not None and line.high is not None:
                    axes.fill_between(
                        line.x[axis], _gaps(line.low), _gaps(line.high), color=colour, alpha=0.22, linewidth=0
                    )
            axes.set(
                xlabel=f"{label} (s)" if axis == "seconds" else label, yscale="log" if chart.logarithmic else "linear"
            )
            axes.grid(color="0.9", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        title = f"{chart.title}  ({chart.hint})" if chart.hint else chart.title
        row[0].set_title(_plain(title), loc="left", fontsize=11)
    handles = [Line2D([], [], color=COLOURS[k % len(COLOURS)], label=_plain(name)) for name, k in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), frameon=False, fontsize=10)
    _save(figure, path)


def _plain(text: str) -> str:
    """Text that holds no formula: matplotlib takes what stands between two dollars for one."""
    return text.replace("$", r"\$")


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def clouds(
    snapshots: Mapping[str, Mapping[str, Tensor]], curves: Mapping[str, Sequence[tuple[float, float]]], path: Path
) -> None:
    """A row of scatter plots, title -> cloud's name -> points [n, 2], above curves, name -> (step, value > 0) pairs.

    The first cloud is blue, the second orange, the third green; every curve is a panel.
    """
    figure = Figure(figsize=(2.4 * len(snapshots), 5.3), dpi=DPI)
    left = 0.3 / len(snapshots)
    grid = figure.add_gridspec(2, 1, height_ratios=(1.0, 0.75), left=left, right=0.99, bottom=0.1, hspace=0.32)
    above, below = grid[0].subgridspec(1, len(snapshots)), grid[1].subgridspec(1, len(curves), wspace=0.25)
    reach = 3.2
    for i, (title, named) in enumerate(snapshots.items()):
        axes = figure.add_subplot(above[i])
        for (name, points), colour in zip(named.items(), (BLUE, RED, GREEN), strict=False):
            x, y = points.detach().cpu().double().T.numpy()
            axes.scatter(x, y, s=3, color=colour, alpha=0.35, linewidths=0, label=name)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        axes.set_title(title, fontsize=10)
        axes.label_outer()
    for i, (name, values) in enumerate(curves.items()):
        axes = figure.add_subplot(below[i])
        axes.plot(*zip(*values, strict=True), color=PURPLE, linewidth=1.2)
        axes.set(yscale="log", xlabel="iteration")
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    dots = [
        Line2D([], [], linestyle="", marker="o", markersize=4, color=colour, label=name)
        for name, colour in zip(next(iter(snapshots.values())), (BLUE, RED, GREEN), strict=False)
    ]
    figure.legend(handles=dots, loc="upper center", ncols=len(dots), frameon=False, fontsize=10)
    _save(figure, path)


def runs_by_row(panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], path: Path) -> None:
    """A dot per run on a logarithmic axis: panel title -> row -> colour's name -> figures; bars are the means."""
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    kinds = list(dict.fromkeys(kind for panel in panels.values() for row in panel.values() for kind in row))
    figure = Figure(figsize=(1.8 + 3.9 * len(panels), 1.3 + 0.3 * len(rows)), dpi=DPI, layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for kind, colour in zip(kinds, _cycle(COLOURS, len(kinds)), strict=True):
            shift = 0.18 * (2 * kinds.index(kind) - len(kinds) + 1)
            for row, figures in panel.items():
                values, y = list(figures.get(kind, ())), rows.index(row) + shift
                axes.plot(values, [y] * len(values), "o", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
                axes.plot([np.mean(values)] if values else [], [y] if values else [], "|", color=colour, markersize=10)
        axes.set(xscale="log", xlabel="reverse KL of each run (nats)", yticks=range(len(rows)), yticklabels=rows)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.invert_yaxis()
        axes.set_title(title, fontsize=11)
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.label_outer()
    dots = [
        Line2D([], [], linestyle="", marker="o", color=colour, label=kind)
        for kind, colour in zip(kinds, _cycle(COLOURS, len(kinds)), strict=True)
    ]
    figure.legend(handles=dots, loc="outside lower center", ncols=len(kinds), frameon=False, fontsize=10)
    _save(figure, path)


def _draw_ring(axes: Axes, points: np.ndarray, target: GaussianMixture) -> int:
    """Returns how many points the picture leaves out."""
    limit = _reach(target, 4)
    axes.scatter(points[:, 0], points[:, 1], s=4, color=BLUE, alpha=0.35, linewidths=0, zorder=2)
    angle = np.linspace(0, 2 * math.pi, 121)
    for centre in target.means:
        for sigmas, style in ((1, "-"), (3, "--")):
            radius = sigmas * target.std
            x, y = centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)
            axes.plot(x, y, style, color=RED, linewidth=0.9, zorder=3)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return int((~(np.abs(points) <= limit).all(1)).sum())


def _draw_ball(axes: Axes3D, points: np.ndarray, target: GaussianMixture) -> int:
    """Returns how many points the picture leaves out: those outside the sphere, as in the paper's figure."""
    inside = (np.linalg.norm(points[:, None] - np.array(target.means), axis=2) <= 3 * target.std).any(1)
    limit = _reach(target, 3)
    kept = points[inside]
    axes.scatter(kept[:, 0], kept[:, 1], kept[:, 2], s=3, color=BLUE, alpha=0.4, linewidths=0, depthshade=False)
    across, down = np.meshgrid(np.linspace(0, 2 * math.pi, 49), np.linspace(0, math.pi, 25))
    for centre in target.means:
        x = np.cos(across) * np.sin(down), np.sin(across) * np.sin(down), np.cos(down)
        sphere = [c + 3 * target.std * axis for c, axis in zip(centre, x, strict=True)]
        axes.plot_surface(*sphere, color=SKY, alpha=0.15, linewidth=0, shade=False)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), zlim=(-limit, limit))
    axes.set_box_aspect((1, 1, 1))
    axes.tick_params(labelsize=9)
    return int((~inside).sum())


def _legend(target: GaussianMixture) -> list[Artist]:
    dot = Line2D([], [], linestyle="", marker="o", markersize=4, color=BLUE, label="samples")
    if target.dim == 3:
        return [dot, Patch(color=SKY, alpha=0.4, label="3 sigma")]
    one = Line2D([], [], color=RED, label="1 sigma")
    return [dot, one, Line2D([], [], color=RED, linestyle="--", label="3 sigma")]


def _reach(target: GaussianMixture, sigmas: float) -> float:
    """Half the width of a picture that shows every mode as far as ``sigmas`` standard deviations."""
    return max(abs(value) for mean in target.means for value in mean) + sigmas * target.std


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", ": ")


def _cycle(colours: Sequence[str], n: int) -> list[str]:
    return [colours[i % len(colours)] for i in range(n)]


def _save(figure: Figure, path: Path) -> None:
    """A figure without pyplot: drawn by Agg wherever it runs, and freed with its last reference; 256 colours do."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    _write(Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE), path)


def _write(picture: Image.Image, path: Path) -> None:
    """A PNG that is whole or absent."""
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))
