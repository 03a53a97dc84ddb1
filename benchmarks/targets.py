"""What the kernels are to reach, and what rows say of it. The GPU's targets are meant for an NVIDIA H200."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .contestants import OURS

Row = dict[str, Any]
PRODUCT_SHARE, EXACT_FACTOR, COPY_SHARE = 0.7, 1.5, 0.7
DATA_TIMES = 2.0  # of the exact mode on normal clouds, whatever the data
PEER_FACTORS = {64: 5.0}  # of the fastest peer's time, by n
PEER_FACTOR, PEER_FROM = 1.5, 1024
DATA_FACTORS = {"faiss.knn": 1.5, "torch.cdist + argmin": 2.0}  # of the peer's time, from DATA_FROM dimensions on
DATA_FROM = 128
STEP_SECONDS, STEP_FACTOR, CPU_STEP_FACTOR = 10e-6, 10.0, 5.0
ASSIGN_PEER = "scipy"  # for 64 points
ASSIGN_FACTORS = {(64, 128): 1.0, (1024, 2): 3.0, (1024, 128): 3.0, (4096, 2): 10.0, (4096, 128): 10.0}  # by n and d
ASSIGN_LIMITS = {(16384, 2): (15, 1), (16384, 128): (15, 1), (65536, 2): (360, 2), (65536, 128): (180, 2)}  # s, GiB
ACCURACY = ("exact", "float32", "tf32", "bf16")  # best first


class Target(NamedTuple):
    """met is None where the rows do not say."""

    target: str
    measured: str
    met: bool | None


def check(rows: Sequence[Row], machine: dict[str, Any]) -> list[Target]:
    """The targets of the op that the rows are of."""
    timed = [row for row in rows if row["status"] == "ok"]
    checks: dict[tuple[str, str], Callable[[list[Row]], Iterable[Target]]] = {
        ("l2_argmin", "cuda"): nearest,
        ("soft_forest", "cuda"): forest,
        ("fit_transport", "cuda"): fit_on_gpu,
        ("fit_transport", "cpu"): fit_on_cpu,
        ("l2_argmin_data", "cpu"): nearest_by_data,
        ("assign", "cpu"): one_to_one,
    }
    chosen = checks.get((rows[0]["op"], rows[0]["device"]))
    return list(chosen(timed)) if chosen else []


def judged(target: str, value: float | None, form: str, met: Callable[[float], bool], note: str = "") -> Target:
    if value is None:
        return Target(target, "-", None)
    return Target(target, form.format(value) + note, met(value))


def nearest(rows: list[Row]) -> Iterator[Target]:
    of_all_data = [row for row in ours(rows) if (row["n"], row["m"], row["d"]) == (65536, 65536, 128)]
    large = [row for row in of_all_data if not row["data"]]
    for dtype in ("float32", "bfloat16"):
        row = fastest(row for row in large if row["accuracy"] == "bf16" and row["dtype"] == dtype)
        yield judged(
            f"65536^2 x 128, precision bf16, {dtype} input: at least {PRODUCT_SHARE:.0%} of the bf16 product rate",
            value(row, "peak_share"), "{:.0%}", lambda share: share >= PRODUCT_SHARE, by(row),
        )  # fmt: skip
    single = [row for row in large if row["dtype"] == "float32"]
    exact, rounded = (fastest(row for row in single if row["accuracy"] == name) for name in ("exact", "bf16"))
    yield judged(
        f"65536^2 x 128, exact: at most {EXACT_FACTOR} times the bf16 time",
        exact["median_s"] / rounded["median_s"] if exact and rounded else None,
        "{:.2f}x", lambda factor: factor <= EXACT_FACTOR, by(exact),
    )  # fmt: skip
    named = [row for row in of_all_data if row["data"] and row["accuracy"] == "exact"]
    kinds = (fastest(row for row in named if row["data"] == data) for data in {row["data"] for row in named})
    slowest = max(filter(None, kinds), key=lambda row: row["median_s"], default=None)
    yield judged(
        f"65536^2 x 128, exact: at most {DATA_TIMES} times the normal clouds' time on any data",
        slowest["median_s"] / exact["median_s"] if slowest and exact else None,
        "{:.2f}x", lambda factor: factor <= DATA_TIMES, f" ({slowest['data']})" if slowest else "",
    )  # fmt: skip
    yield from against_peers(rows)
    million = [row for row in ours(rows) if row["n"] > 500_000]
    most = max((row["extra_bytes"] for row in million), default=None)
    pairs = million[0]["n"] * million[0]["m"] if million else 0
    yield judged(
        "1M x 4096 without an N x M buffer: extra memory below a byte per pair",
        None if most is None else most / 2**20, "{:.0f} MiB", lambda mebibytes: mebibytes * 2**20 < pairs,
    )  # fmt: skip


def against_peers(rows: list[Row]) -> Iterator[Target]:
    """Per size and kind of call the case where a peer comes closest, of how many cases."""
    for n, m in sorted({(row["n"], row["m"]) for row in rows}):
        factor = PEER_FACTORS.get(n, PEER_FACTOR)
        if n not in PEER_FACTORS and n < PEER_FROM:
            continue
        for call in ("eager", "graph"):
            found = list(leads([row for row in rows if (row["n"], row["m"], row["call"]) == (n, m, call)]))
            if call == "eager" or found:
                lead, mine, peer = min(found, key=lambda each: each[0], default=(None, {}, {}))
                cases = len({(each["d"], each["dtype"], each["data"]) for _, _, each in found})
                yield judged(
                    f"{n} x {m}, {call}: at least {factor:g} times faster than the fastest peer",
                    lead, "{:.2f}x", lambda times, least=factor: times >= least,
                    f" (least of {cases} d, dtypes and data measured: d = {peer.get('d')}, {peer.get('dtype')}, "
                    f"{peer.get('data') or 'gaussian'}, "
                    f"{mine.get('contestant')} against {peer.get('contestant')})",
                )  # fmt: skip


def leads(rows: list[Row]) -> Iterator[tuple[float, Row, Row]]:
    """Per case and peer: its time over that of our fastest at no worse an accuracy, and the two rows."""
    for peer in rows:
        if peer["contestant"].startswith(OURS):
            continue
        rank = ACCURACY.index(peer["accuracy"])
        mine = fastest(
            row for row in ours(rows)
            if all(row[key] == peer[key] for key in ("d", "dtype", "data")) and ACCURACY.index(row["accuracy"]) <= rank
        )  # fmt: skip
        if mine:
            yield peer["median_s"] / mine["median_s"], mine, peer


def forest(rows: list[Row]) -> Iterator[Target]:
    for mode in ("forward", "forward + backward"):
        row = fastest(row for row in ours(rows) if row["n"] == 65536 and row["mode"] == mode)
        yield judged(
            f"N = 65536, {mode}: at least {COPY_SHARE:.0%} of the copy rate",
            value(row, "bandwidth_share"), "{:.0%}", lambda share: share >= COPY_SHARE, by(row),
        )  # fmt: skip


def fit_on_gpu(rows: list[Row]) -> Iterator[Target]:
    small = [row for row in rows if (row["n"], row["d"]) == (64, 128)]
    mine = {call: fastest(row for row in ours(small) if row["call"] == call) for call in ("eager", "graph")}
    for call, row in mine.items():
        yield judged(
            f"N = 64, d = 128, T = 18, D = 3, {call}: under {1e6 * STEP_SECONDS:g} us an inner step",
            value(row, "seconds_per_step", 1e6), "{:.2f} us", lambda us: us < 1e6 * STEP_SECONDS, by(row),
        )  # fmt: skip
    peer = fastest(row for row in small if not row["contestant"].startswith(OURS) and row["call"] == "graph")
    row = mine["graph"]
    yield judged(
        f"the same: {STEP_FACTOR:g} times faster than the composed ops replayed from a CUDA graph",
        peer["median_s"] / row["median_s"] if peer and row else None,
        "{:.1f}x", lambda factor: factor >= STEP_FACTOR, by(row),
    )  # fmt: skip


def fit_on_cpu(rows: list[Row]) -> Iterator[Target]:
    for threads in sorted({row["threads"] for row in rows}):
        small = [row for row in rows if (row["n"], row["d"], row["threads"]) == (64, 128, threads)]
        peer = fastest(row for row in small if row["contestant"] == "composed ops")
        yield judged(
            f"N = 64, d = 128, T = 18, D = 3, {threads} thread{'s' * (threads > 1)}: {CPU_STEP_FACTOR:g} times faster "
            "than the composed ops",
            value(peer, "ratio_to_ours"), "{:.1f}x", lambda factor: factor >= CPU_STEP_FACTOR,
        )  # fmt: skip


def nearest_by_data(rows: list[Row]) -> Iterator[Target]:
    """Per dimension and peer the kind of data where the peer comes closest, on the most threads that were measured."""
    most = max(row["threads"] for row in rows)
    for d in sorted({row["d"] for row in rows}):
        for peer, factor in DATA_FACTORS.items():
            least = factor if d >= DATA_FROM else 1.0
            timed = [row for row in rows if (row["d"], row["threads"], row["contestant"]) == (d, most, peer)]
            row = min(
                (row for row in timed if row["ratio_to_ours"]), key=lambda row: row["ratio_to_ours"], default=None
            )
            yield judged(
                f"d = {d}, {most} thread{'s' * (most > 1)}: {peer} takes at least {least:g} times as long on all data",
                value(row, "ratio_to_ours"), "{:.2f}x", lambda times, least=least: times >= least,
                f" ({row['data']})" if row else "",
            )  # fmt: skip


def one_to_one(rows: list[Row]) -> Iterator[Target]:
    """On the most threads that were measured: times of the fastest peer, and limits where no peer goes."""
    most = max(row["threads"] for row in rows)
    on = f"{most} thread{'s' * (most > 1)}"
    rows = [row for row in rows if row["threads"] == most]
    for (n, d), factor in ASSIGN_FACTORS.items():
        peers = [ASSIGN_PEER] if n == 64 else {row["contestant"] for row in rows} - {OURS}
        peer = fastest(row for row in rows if (row["n"], row["d"]) == (n, d) and row["contestant"] in peers)
        who = ASSIGN_PEER if n == 64 else "the fastest peer"
        yield judged(
            f"{n} x {d}, {on}: {who} takes at least {factor:g} times as long",
            value(peer, "ratio_to_ours"), "{:.2f}x", lambda times, least=factor: times >= least,
            f" ({peer['contestant']})" if peer else "",
        )  # fmt: skip
    for (n, d), (most_seconds, most_gib) in ASSIGN_LIMITS.items():
        mine = fastest(row for row in ours(rows) if (row["n"], row["d"]) == (n, d))
        size = f"{n} x {d}, {on}"
        yield judged(
            f"{size}: at most {most_seconds} s",
            value(mine, "median_s"), "{:.1f} s", lambda time, limit=most_seconds: time <= limit,
        )  # fmt: skip
        yield judged(
            f"{size}: at most {most_gib} GiB of extra memory",
            value(mine, "extra_bytes", 2.0**-30), "{:.2f} GiB", lambda memory, limit=most_gib: memory <= limit,
        )  # fmt: skip


def ours(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["contestant"].startswith(OURS)]


def fastest(rows: Iterable[Row]) -> Row | None:
    return min(rows, key=lambda row: row["median_s"], default=None)


def by(row: Row | None) -> str:
    return f" ({row['contestant']}, {row['call']})" if row else ""


def value(row: Row | None, key: str, scale: float = 1.0) -> float | None:
    return None if row is None or row[key] is None else scale * row[key]
