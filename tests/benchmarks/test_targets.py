"""The table of targets from made-up rows."""

from __future__ import annotations

import pytest

from benchmarks import plots, report, targets
from benchmarks.gpu.suites import GPU_SUITES
from tests.benchmarks.gpu_actors import MACHINE, row


def met(rows):
    return {target.target: target.met for target in targets.check(rows, MACHINE)}


def nearest(contestant, microseconds, n, accuracy, m=None, **fields):
    return row("l2_argmin", contestant, microseconds, n=n, m=m or n, accuracy=accuracy, peak_share=0.5, **fields)


def find(rows, *parts):
    (target,) = [target for target in targets.check(rows, MACHINE) if all(part in target.target for part in parts)]
    return target


@pytest.mark.parametrize(("share", "answer"), [(0.71, True), (0.69, False)])
def test_the_share_of_the_product_rate(share, answer):
    mine = nearest("otkernels cuda bf16", 1500.0, 65536, "bf16") | {"peak_share": share}
    assert find([mine], "precision bf16, float32").met is answer
    assert find([mine], "precision bf16, bfloat16").met is None


@pytest.mark.parametrize(("exact", "answer"), [(1499.0, True), (1501.0, False)])
def test_exact_is_compared_with_bf16(exact, answer):
    rows = [
        nearest("otkernels cuda bf16", 1000.0, 65536, "bf16"),
        nearest("otkernels cuda exact", exact, 65536, "exact"),
    ]
    assert find(rows, "exact: at most 1.5 times").met is answer


@pytest.mark.parametrize(("duplicates", "answer"), [(1999.0, True), (2001.0, False)])
def test_the_slowest_data_is_compared_with_normal_clouds(duplicates, answer):
    rows = [
        nearest("otkernels cuda exact", 1000.0, 65536, "exact"),
        nearest("otkernels cuda exact", 1500.0, 65536, "exact", data="clusters"),
        nearest("otkernels cuda exact", duplicates, 65536, "exact", data="duplicates"),
        nearest("otkernels triton exact", 9000.0, 65536, "exact", data="clusters"),  # not the fastest of ours
    ]
    slowest = find(rows, "on any data")
    assert (slowest.met, slowest.measured.endswith("(duplicates)")) == (answer, True)
    assert find(rows, "65536^2 x 128, exact: at most 1.5 times").met is None  # no bf16 row


def test_a_peer_is_compared_with_ours_of_no_less_accuracy_and_the_closest_counts():
    rows = [
        nearest("otkernels cuda exact", 100.0, 1024, "exact"),
        nearest("otkernels cuda bf16", 40.0, 1024, "bf16"),
        nearest("rough peer", 80.0, 1024, "bf16"),  # 2 times the bf16 time
        nearest("fine peer", 170.0, 1024, "float32"),  # 1.7 times the exact time
        nearest("fine peer", 110.0, 1024, "float32", d=64),
        nearest("otkernels cuda exact", 100.0, 1024, "exact", d=64),
    ]
    closest = find(rows, "1024 x 1024, eager")
    assert closest.met is False
    where = "least of 2 d, dtypes and data measured: d = 64, float32, gaussian, otkernels cuda exact against fine peer"
    assert closest.measured == f"1.10x ({where})"
    assert find(rows[:4], "1024 x 1024, eager").met is True


def test_sizes_have_their_own_factors_and_256_has_none():
    rows = [nearest(name, time, n, "exact") for n in (64, 256) for name, time in (("otkernels cuda", 10), ("peer", 49))]
    assert find(rows, "64 x 64, eager").met is False
    assert not any("256 x 256" in target for target in met(rows))
    graphs = [{**r, "call": "graph", "median_s": r["median_s"] * (1 + (r["contestant"] == "peer"))} for r in rows]
    assert find(rows + graphs, "64 x 64, graph").met is True


def test_a_million_rows_must_not_take_a_matrix():
    mine = nearest("otkernels cuda exact", 900.0, 1 << 20, "exact", m=4096)
    assert find([mine], "1M x 4096").met is True
    assert find([mine | {"extra_bytes": 4 << 32}], "1M x 4096").met is False
    assert find([nearest("otkernels cuda exact", 9.0, 64, "exact")], "1M x 4096").met is None


def test_the_forest_against_the_copy_rate():
    rows = [row("soft_forest", "otkernels cuda", 50.0, n=65536, m=0, bandwidth_share=share, mode=mode)
            for mode, share in (("forward", 0.8), ("forward + backward", 0.6))]  # fmt: skip
    assert list(met(rows).values()) == [True, False]


@pytest.mark.parametrize(("peer", "answer"), [(400.0, True), (390.0, False)])
def test_the_fit_against_microseconds_and_the_composed_graph(peer, answer):
    rows = [
        row("fit_transport", name, time, m=0, call=call, seconds_per_step=1e-6 * time / 5)
        for name, call, time in (("otkernels cuda", "eager", 60.0), ("otkernels cuda", "graph", 40.0),
                                 ("composed ops", "graph", peer))
    ]  # fmt: skip
    assert list(met(rows).values()) == [False, True, answer]


def test_the_fit_on_the_cpu():
    rows = [row("fit_transport", "composed ops", 500.0, m=0, device="cpu", threads=1, ratio_to_ours=5.5)]
    (target,) = targets.check(rows, {})
    assert (target.measured, target.met) == ("5.5x", True)


def test_what_was_not_timed_decides_nothing():
    rows = [row("fit_transport", "otkernels cuda", None, m=0)]
    assert set(met(rows).values()) == {None}
    assert "| not measured |" in report.target_table(targets.check(rows, MACHINE))


def test_the_document_of_a_gpu_carries_its_facts_rates_and_targets():
    rows = [nearest("otkernels cuda exact", 100.0, 64, "exact") | {"gflops": 1234.5}, row("l2_argmin", "absent", None)]
    found = targets.check(rows, MACHINE)
    text = report.document(GPU_SUITES["l2_argmin"], rows, MACHINE, found, ["64 x 64 x 16"])
    for fact in ("Pretend GPU 9000", "driver 1.2", "cuda 13.0", "flash-kmeans not installed", "commit 0123456789ab"):
        assert fact in text
    assert "a bf16 product of 8192^3 at 500 TFLOP/s, a float32 copy of 1024.0 MiB at 2000 GB/s" in text
    assert "Not reached in the time that the run had: 64 x 64 x 16." in text
    lines = [line for line in text.splitlines() if line.startswith(("| 64 x 64 x", "| case"))]
    assert len(lines) == 3
    assert "| 64 x 64 x 128 | eager | otkernels cuda exact | 100 us | 90 us .. 110 us | 1.00x | 1.23 | 50 % |" in text
    assert len({line.count("|") for line in lines}) == 1


def test_a_picture_of_each_op(tmp_path):
    for op in GPU_SUITES:
        rows = [row(op, "otkernels cuda", 10.0, n=n, peak_share=0.5) for n in (64, 1024)] + [row(op, "absent", None)]
        plots.plot(rows, MACHINE, tmp_path / f"{op}.png")
        assert (tmp_path / f"{op}.png").read_bytes().startswith(b"\x89PNG")


def test_data_targets_name_the_kind_where_a_peer_comes_closest():
    def row(data: str, contestant: str, ratio: float, threads: int = 2) -> dict:
        case = {"op": "l2_argmin_data", "n": 4096, "m": 4096, "d": 128, "data": data, "device": "cpu"}
        return case | {"contestant": contestant, "threads": threads, "status": "ok", "ratio_to_ours": ratio}

    rows = [
        row("gaussian", "faiss.knn", 2.6), row("gaussian", "faiss.knn", 0.5, threads=1),
        row("tight clusters", "faiss.knn", 1.25),
        row("gaussian", "torch.cdist + argmin", 4.0), row("clusters", "torch.cdist + argmin", 2.5),
    ]  # fmt: skip
    faiss, cdist = targets.check(rows, {})
    assert faiss.target == "d = 128, 2 threads: faiss.knn takes at least 1.5 times as long on all data"
    assert faiss[1:] == ("1.25x (tight clusters)", False)
    assert cdist.measured == "2.50x (clusters)"
    assert cdist.met
