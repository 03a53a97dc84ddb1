"""Rows as a Markdown table, and the document around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from .contestants import SETS, Case, Suite
from .targets import Target

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]

CPU_FACTS = ("cpu", "isa", "python", "torch", "numpy", "otkernels", "faiss-cpu", "scikit-learn", "commit", "date")
GPU_FACTS = (
    "gpu", "driver", "cuda", "cpu", "python", "torch", "triton", "otkernels", "flash-kmeans", "flash-sinkhorn",
    "pykeops", "commit", "date",
)  # fmt: skip
UNNAMED = ("cpu", "gpu")  # facts that speak for themselves

CPU_METHOD = (
    "Each contestant lives in its own process and they take turns in random order; a turn lasts about 10 ms or one "
    f"call, over {SETS} input sets. Median and quartiles over the turns; `time / ours` is the median of the rounds' "
    "ratios. Extra memory: peak growth of the resident set during the first call of a fresh process (of a later call "
    "for what compiles first)."
)
GPU_METHOD = (
    "All contestants run in one process and take turns in random order; a turn lasts about 10 ms or one call, between "
    "two CUDA events. Inputs rotate among up to 64 sets, enough to pass the L2 cache where memory allows, and "
    "something else is read through the L2 before each pass through the sets, outside the timed region. `eager`: the "
    "call as it is written; up to N = 1024, where launching counts, the GPU is idle when a pass begins. `graph`: up "
    "to 32 calls replayed from one CUDA graph, for sizes up to 1024. Median and quartiles over the turns; `time / "
    "ours` is the median of the rounds' ratios to the first implementation of ours that was timed at the same kind of "
    "call. Extra memory: peak growth of torch's allocator during a call, outputs included. Results are judged before "
    "they are timed; warm-up and compilation are not timed."
)


def columns(suite: Suite, device: str) -> list[Column]:
    """Header and cell of every column."""
    shown: list[Column] = [("case", lambda row: case_of(row).label())]
    if device == "cpu":
        shown.insert(0, ("threads", lambda row: str(row["threads"])))
    else:
        shown.append(("call", lambda row: row["call"]))
    shown += [("contestant", lambda row: row["contestant"]), ("median", median), ("quartiles", quartiles)]
    if suite.steps > 1:
        shown.append(("per inner step", lambda row: figure(row, "seconds_per_step", seconds)))
    shown.append(("time / ours", lambda row: figure(row, "ratio_to_ours", "{:.2f}x".format)))
    if suite.flops and device == "cpu":
        shown += [("GFLOP/s", lambda row: figure(row, "gflops", "{:.1f}".format)), share("of FMA peak", "peak_share")]
    elif suite.flops:
        shown.append(("TFLOP/s", lambda row: figure(row, "gflops", lambda rate: f"{1e-3 * rate:.3g}")))
        shown.append(share("of bf16 product rate", "peak_share"))
    if suite.bytes and device == "cuda":
        shown += [("GB/s", lambda row: figure(row, "gbps", "{:.0f}".format)), share("of copy rate", "bandwidth_share")]
    shown.append(("extra memory", lambda row: size(row.get("extra_bytes"))))
    return [*shown, (suite.error_name, lambda row: figure(row, "error", "{:.1e}".format))]


def share(header: str, key: str) -> Column:
    return header, lambda row: figure(row, key, lambda value: f"{100 * value:.0f} %")


def figure(row: Row, key: str, form: Callable[[Any], str]) -> str:
    """The number, or a dash where there is none."""
    return "-" if row.get(key) is None else form(row[key])


def median(row: Row) -> str:
    """The time; for a contestant that was not timed, why."""
    if row["status"] == "ok":
        return seconds(row["median_s"])
    return "wrong: not timed" if row["status"] == "wrong" else plain(row["reason"])


def quartiles(row: Row) -> str:
    if row["status"] != "ok":
        return "-"
    return f"{seconds(row['first_quartile_s'])} .. {seconds(row['third_quartile_s'])}"


def table(suite: Suite, rows: list[Row]) -> str:
    """One line per row; a contestant that was not timed shows why where its time would be."""
    shown = columns(suite, rows[0]["device"])
    lines = [markdown_row(header for header, _ in shown), "|" + "---|" * len(shown)]
    return "\n".join(lines + [markdown_row(cell(row) for _, cell in shown) for row in rows])


def target_table(targets: Sequence[Target]) -> str:
    """target / measured / met."""
    answers = {True: "yes", False: "no", None: "not measured"}
    lines = [markdown_row(("target", "measured", "met")), "|---|---|---|"]
    return "\n".join(lines + [markdown_row((t.target, t.measured, answers[t.met])) for t in targets])


def markdown_row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def document(
    suite: Suite, rows: list[Row], machine: dict[str, Any], targets: Sequence[Target], missing: Sequence[str]
) -> str:
    """The table with what it was measured on and how, the targets, and the cases that the time did not suffice for."""
    on_gpu = rows[0]["device"] == "cuda"
    names = GPU_FACTS if on_gpu else (*CPU_FACTS[:-2], *suite.packages, *CPU_FACTS[-2:])
    facts = ", ".join(str(machine[name]) if name in UNNAMED else f"{name} {machine[name]}" for name in names)
    unknown = {"skipped": "the run did not come to its end"}
    limits = roofline_sentence(machine["roofline"]) if on_gpu else peak_sentence(machine.get("fma_peak", unknown))
    load = f"{machine['cores']} cores, load {machine['load_before']} before the start"
    parts = [
        f"# {suite.op} on the {'GPU' if on_gpu else 'CPU'}",
        f"`{machine['command']}` on {facts}; {load}. {limits}",
    ]
    parts += [suite.about, GPU_METHOD if on_gpu else CPU_METHOD]
    if targets:
        parts.append(target_table(targets))
    if missing:
        parts.append(f"Not reached in the time that the run had: {'; '.join(missing)}.")
    return "\n\n".join((*parts, table(suite, rows) + "\n"))


def roofline_sentence(roofline: dict[str, Any]) -> str:
    """This GPU's own rates in words."""
    return (
        f"Measured in the same run: a bf16 product of {roofline['product_size']}^3 at "
        f"{roofline['product_tflops']:.0f} TFLOP/s, a float32 copy of {size(roofline['copy_bytes'])} at "
        f"{roofline['copy_gbps']:.0f} GB/s (read + written)."
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


def line(row: Row) -> str:
    """One row for the terminal."""
    where = f"{row['threads']} thr" if row["device"] == "cpu" else f"{row['call']:<5}"
    head = f"{row['op']}  {where}  {case_of(row).label():<36} {row['contestant']:<22}"
    if row["status"] != "ok":
        return f"{head} {row['status']}: {row.get('reason', row.get('error'))}"
    ratio = "" if row["ratio_to_ours"] is None else f"{row['ratio_to_ours']:8.2f}x"
    shares = (("peak_share", "% of the peak rate"), ("bandwidth_share", "% of the copy rate"))
    of_peak = "".join(f"{100 * row[key]:6.0f} {text}" for key, text in shares if key in row)
    return f"{head} {seconds(row['median_s']):>9}{ratio}{size(row['extra_bytes']):>12}{of_peak}"


def case_of(row: Row) -> Case:
    return Case(**{field.name: row[field.name] for field in dataclasses.fields(Case) if field.name in row})


def seconds(value: float) -> str:
    """Three digits and a unit: 12.3 us, 4.56 ms, 7.89 s."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def size(count: int | None) -> str:
    """Mebibytes with one digit, or a dash where it was not measured."""
    return "-" if count is None else f"{count / 2**20:.1f} MiB"


def plain(text: str) -> str:
    """Text that cannot break a table."""
    return text.replace("|", "/")
