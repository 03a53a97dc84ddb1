"""Rows as a Markdown table."""

from __future__ import annotations

from typing import Any

from .contestants import SETS, Case, Suite

FACTS = ("cpu", "isa", "python", "torch", "numpy", "otkernels", "faiss-cpu", "scikit-learn", "commit", "date")


def table(suite: Suite, rows: list[dict[str, Any]]) -> str:
    """One line per row; a contestant that was not timed shows why where its time would be."""
    header = ["threads", "case", "contestant", "median", "quartiles", "time / ours", "extra memory", suite.error_name]
    if suite.flops:
        header[6:6] = ["GFLOP/s", "of FMA peak"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(_cells(suite, row)) + " |" for row in rows])


def _cells(suite: Suite, row: dict[str, Any]) -> list[str]:
    cells = [str(row["threads"]), case_of(row).label(), row["contestant"]]
    if row["status"] == "ok":
        cells += [
            seconds(row["median_s"]),
            f"{seconds(row['first_quartile_s'])} .. {seconds(row['third_quartile_s'])}",
            "-" if row["ratio_to_ours"] is None else f"{row['ratio_to_ours']:.2f}x",
        ]
    else:
        cells += ["wrong: not timed" if row["status"] == "wrong" else _plain(row["reason"]), "-", "-"]
    if suite.flops:
        cells += [
            f"{row['gflops']:.1f}" if row.get("gflops") else "-",
            f"{100 * row['peak_share']:.0f} %" if row.get("peak_share") else "-",
        ]
    error = row.get("error")
    return [*cells, size(row.get("extra_bytes")), "-" if error is None else f"{error:.1e}"]


def document(suite: Suite, rows: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The table with what it was measured on and how."""
    facts = ", ".join(f"{name} {machine[name]}" if name != "cpu" else str(machine[name]) for name in FACTS)
    method = (
        "Each contestant lives in its own process and they take turns in random order; a turn lasts about 10 ms or one "
        f"call, over {SETS} input sets. Median and quartiles over the turns; `time / ours` is the median of the "
        "rounds' ratios. Extra memory: peak growth of the resident set during the first call of a fresh process (of a "
        "later call for what compiles first)."
    )
    return "\n\n".join(
        (
            f"# {suite.op} on the {rows[0]['device'].upper()}",
            f"`{machine['command']}` on {facts}; {machine['cores']} cores, "
            f"load {machine['load_before']} before the start. "
            f"{peak_sentence(machine['fma_peak'])}",
            suite.about,
            method,
            table(suite, rows) + "\n",
        )
    )


def peak_sentence(peak: dict[str, Any]) -> str:
    """The machine's multiply-add peak in words."""
    if "skipped" in peak:
        return f"FMA peak not measured: {peak['skipped']}."
    parts = (
        f"{rates['median_gflops']:.0f} (median) and {rates['max_gflops']:.0f} (largest) GFLOP/s on {threads} "
        f"thread{'s' * (threads != '1')}"
        for threads, rates in peak["threads"].items()
    )
    return f"FMA peak, {peak['vector_bits']}-bit float32: " + ", ".join(parts) + "."


def case_of(row: dict[str, Any]) -> Case:
    return Case(row["op"], row["n"], row["m"], row["d"], row["mode"])


def seconds(value: float) -> str:
    """Three digits and a unit: 12.3 us, 4.56 ms, 7.89 s."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def size(count: int | None) -> str:
    """Mebibytes with one digit, or a dash where it was not measured."""
    return "-" if count is None else f"{count / 2**20:.1f} MiB"


def _plain(text: str) -> str:
    return text.replace("|", "/")
