"""The parent of a GPU run: order under a time budget, rows as they come, lost processes, interruption, reports."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap

import pytest
import torch

from benchmarks import __main__ as program
from benchmarks import fit_transport, options, output
from benchmarks.contestants import Case
from benchmarks.gpu import run
from benchmarks.gpu.child import Child, LostError
from benchmarks.gpu.suites import GPU_SUITES
from tests.benchmarks.gpu_actors import MACHINE, row


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(output.plots, "plot", lambda rows, machine, path: path.touch())  # pictures have a test below
    return options.parse(["--minutes", "1", "--output", str(tmp_path)])


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class PretendChild:
    """Answers each case with a row of each contestant after `seconds`; `events` are raised, by number of question."""

    def __init__(self, clock: Clock, seconds: float, events: dict[int, BaseException] | None = None) -> None:
        self.clock, self.seconds, self.events, self.asked = clock, seconds, events or {}, []
        self.closed = False

    def ask(self, do: str, **request):
        if do == "describe":
            return {"machine": dict(MACHINE)}
        self.asked.append(request | {"skip": dict(request["skip"])})
        self.clock.now += self.seconds
        if len(self.asked) in self.events:
            raise self.events[len(self.asked)]
        case = request["case"]
        suite = GPU_SUITES[request["op"]]
        names = [c.name for c in suite.contestants if c.suits(Case(**case)) and c.name not in request["skip"]]
        rows = [row(request["op"], name, 100.0) | case for name in names]
        return {"rows": rows + [row(request["op"], name, None) | case for name in request["skip"]]}

    def close(self):
        self.closed = True


def first_lines(output_dir, op):
    return [json.loads(line) for line in (output_dir / f"{op}-pretend-gpu-9000.jsonl").read_text().splitlines()]


def test_cases_with_targets_come_first_and_every_case_once(chosen):
    cases, head = run.plan(chosen)
    labels = [f"{suite.op} {case.label()}" for suite, case in cases]
    assert len(set(labels)) == len(labels) == 4 + 8 + 7 * 4 * 2 + 5 + 4 * 3
    assert labels[:5] == [
        "fit_transport d = 128, T = 18, N = 64",
        "soft_forest forward, N = 65536",
        "soft_forest forward + backward, N = 65536",
        "l2_argmin 65536 x 65536 x 128",
        "l2_argmin 65536 x 65536 x 128 bfloat16",
    ]
    assert {f"l2_argmin {n} x {m} x 128" for n, m in ((64, 64), (1024, 1024), (4096, 4096), (16384, 16384))} <= set(
        labels[:head]
    )
    assert "l2_argmin 1048576 x 4096 x 128" in labels[:head]


def test_the_run_ends_with_its_time_and_says_what_it_did_not_reach(chosen, capsys):
    clock = Clock()
    child = PretendChild(clock, seconds=7.0)
    assert run.run(chosen, child, clock) == 0
    assert len(child.asked) == 9  # the ninth starts at 56 s of 60
    assert child.closed
    assert "time is over: 76 cases are not measured" in capsys.readouterr().out
    whole = json.loads((chosen.output / "l2_argmin-pretend-gpu-9000.json").read_text())
    assert len(whole["not_reached"]) == 56 + 5 - 6
    assert "Not reached in the time that the run had: " in (chosen.output / "l2_argmin-pretend-gpu-9000.md").read_text()


def test_time_is_divided_among_the_cases_left(chosen):
    clock = Clock()
    child = PretendChild(clock, seconds=0.5)
    run.run(chosen, child, clock)
    assert len(child.asked) == 85
    head = run.plan(chosen)[1]
    assert all(run.LEAST <= request["budget"] <= run.MOST for request in child.asked)
    assert child.asked[head - 1]["allow"] == pytest.approx(60 - 0.5 * (head - 1))  # all that is left, to compile
    assert child.asked[head]["allow"] == pytest.approx((60 - 0.5 * head) / (85 - head))


def test_a_run_that_is_interrupted_reports_the_finished_cases(chosen, monkeypatch):
    clock = Clock()
    child = PretendChild(clock, 1.0, {3: KeyboardInterrupt()})
    monkeypatch.setattr(program, "parse", lambda argv: chosen)
    monkeypatch.setattr(program.gpu, "run", lambda parsed, run=run.run: run(parsed, child, clock))
    assert program.main([]) == program.INTERRUPTED
    assert child.closed
    names = sorted(path.name for path in chosen.output.iterdir())
    stems = ("fit_transport-pretend-gpu-9000", "soft_forest-pretend-gpu-9000")
    assert names == sorted(
        [f"{stem}.{ending}" for stem in stems for ending in ("json", "jsonl", "md", "png")]
        + [f"{op}-pretend-gpu-9000.jsonl" for op in ("l2_argmin", "l2_topk")]  # nothing to report yet
    )


def test_a_contestant_that_takes_the_process_down_is_left_out_of_its_case(chosen, capsys):
    clock, name = Clock(), GPU_SUITES["fit_transport"].contestants[0].name
    child = PretendChild(clock, 1.0, {1: LostError("an illegal memory access", f"{name}, graph")})
    assert run.run(chosen, child, clock) == 1
    assert child.asked[0]["case"] == child.asked[1]["case"]
    assert child.asked[1]["skip"] == {name: "an illegal memory access"}
    assert child.asked[2]["skip"] == {}
    rows = first_lines(chosen.output, "fit_transport")[1:]
    assert [(r["contestant"], r["status"]) for r in rows[:2]] == [("composed ops", "ok"), (name, "failed")]


def test_a_contestant_that_did_so_twice_is_left_out_of_the_rest(chosen):
    clock, name = Clock(), "otkernels cuda bf16"
    at = 3  # the first questions are about the other ops
    child = PretendChild(clock, 0.1, {at + 1: LostError("hangs", name), at + 3: LostError("hangs", name)})
    run.run(chosen, child, clock)
    assert [name in request["skip"] for request in child.asked[at : at + 6]] == [False, True, False, True, True, True]
    assert all("earlier cases" in r["skip"][name] for r in child.asked[at + 4 :] if r["op"] == "l2_argmin")


def test_a_case_whose_inputs_do_not_fit_fails_whole_and_the_run_goes_on(chosen):
    clock = Clock()
    child = PretendChild(clock, 1.0, {2: LostError("out of memory", "inputs")})
    run.run(chosen, child, clock)
    rows = first_lines(chosen.output, "soft_forest")[1:]
    assert {r["reason"] for r in rows[:4]} == {"out of memory"}
    assert {r["status"] for r in rows[4:]} == {"ok"}


def test_a_case_costs_so_many_processes_and_no_more(chosen):
    names = [contestant.name for contestant in GPU_SUITES["l2_argmin"].contestants]
    events = {4 + number: LostError("hangs", names[number]) for number in range(run.TRIES)}
    child = PretendChild(Clock(), 0.1, events)
    run.run(chosen, child, child.clock)
    rows = first_lines(chosen.output, "l2_argmin")[1:]
    assert [r["reason"] for r in rows[: run.TRIES]] == ["hangs"] * run.TRIES
    assert rows[run.TRIES]["reason"] == "not measured: 4 contestants took the process down"


def test_a_gpu_that_cannot_be_used_is_one_line(chosen, capsys):
    child = PretendChild(Clock(), 1.0)
    child.ask = lambda **request: (_ for _ in ()).throw(LostError("no driver", None))
    assert run.run(chosen, child, Clock()) == 1
    assert capsys.readouterr().out == "the GPU could not be used: no driver\n"


def test_rows_carry_the_share_of_this_gpus_own_rates(chosen):
    run.run(chosen, PretendChild(Clock(), 1.0), Clock())
    large = next(r for r in first_lines(chosen.output, "l2_argmin")[1:] if (r["n"], r["d"]) == (16384, 128))
    assert large["gflops"] == pytest.approx(2 * 16384**2 * 128 / 100e-6 * 1e-9)
    assert large["peak_share"] == pytest.approx(large["gflops"] / 500e3)
    forest = first_lines(chosen.output, "soft_forest")[1]
    assert forest["bandwidth_share"] == pytest.approx(2 * 4 * 65536 * 128 / 100e-6 * 1e-9 / 2000)
    fit = first_lines(chosen.output, "fit_transport")[1]
    assert fit["seconds_per_step"] == pytest.approx(20e-6)


def test_a_report_is_made_from_rows_of_a_run_that_was_killed(tmp_path):
    suite = GPU_SUITES["l2_argmin"]
    path = tmp_path / "l2_argmin-pretend-gpu-9000.jsonl"
    rows = output.Rows(path, suite, suite.cases, MACHINE)  # no end: the process was killed
    rows.write(row("l2_argmin", "otkernels cuda exact", 10.0))
    with path.open("a") as file:
        file.write('{"op": "l2_argmin", "n": 64, "cut sho')
    assert program.main(["--report", str(path)]) == 0
    assert "| 64 x 64 x 128 | eager | otkernels cuda exact | 10 us |" in path.with_suffix(".md").read_text()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(path.with_suffix(".json").read_text())["machine"] == MACHINE


@pytest.mark.parametrize(
    "text", ["", '{"contestant": "otkernels"}\n', '{"op": "l2_argmin", "machine": {}, "cases": []}\n']
)
def test_a_file_without_rows_or_machine_is_one_clear_line(text, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert program.main(["--report", str(path)]) == 2
    assert capsys.readouterr().err.startswith("python -m benchmarks: rows.jsonl: ")


def test_asking_for_a_gpu_where_there_is_none_is_one_clear_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        options.parse(["--device", "cuda"])
    assert stop.value.code == 2
    message = "python -m benchmarks --device cuda: torch sees no CUDA device on this machine\n"
    assert capsys.readouterr().err == message


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch):
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert options.parse([]).device == device
    assert dataclasses.asdict(options.parse(["--quick"]))["minutes"] == 1.0


def program_that(body: str) -> Child:
    """A child that runs `body` for each question, with `say` to answer."""
    source = "import json, os, sys, time\ndef say(**fields): print(json.dumps(fields), flush=True)\n"
    source += "for line in sys.stdin:\n" + textwrap.indent(textwrap.dedent(body), "    ")
    return Child((sys.executable, "-c", source), first=20.0)


def test_a_child_is_asked_again_after_it_answered():
    child = program_that("say(begin='a', limit=20); say(rows=[json.loads(line)['number']])")
    assert [child.ask(number=number)["rows"] for number in (1, 2)] == [[1], [2]]
    child.close()


def test_a_child_that_dies_hangs_or_gives_up_names_the_contestant_and_is_replaced():
    child = program_that("""
        how = json.loads(line)["how"]
        if how == "fine": say(rows=[])
        say(begin="a", limit=20)
        say(begin="b", limit=0.5 if how == "hang" else 20)
        if how == "hang": time.sleep(60)
        if how == "give up": say(lost="illegal memory access")
        os._exit(7)
    """)
    for how, why in (("hang", "no sign of life"), ("die", "ended with code 7"), ("give up", "illegal memory access")):
        with pytest.raises(LostError, match=why) as lost:
            child.ask(how=how)
        assert lost.value.contestant == "b"
    assert child.ask(how="fine") == {"rows": []}
    child.close()


def test_the_measuring_process_answers_in_full_and_keeps_what_libraries_print_apart():
    # the real worker, with CPU tensors for a GPU
    source = """
        import sys
        from benchmarks.gpu import device, facts, worker
        device.Cuda = device.Host
        facts.describe = lambda command: print("a library talks") or {"command": command}
        sys.exit(worker.main())
    """
    child = Child((sys.executable, "-c", textwrap.dedent(source)), first=120.0)
    try:
        assert child.ask(do="describe", command="this") == {"machine": {"command": "this"}}
        case = dataclasses.asdict(fit_transport.case_of(64, 2))
        request = {"op": "fit_transport", "case": case, "budget": 0.01, "allow": 1.0, "skip": {}}
        rows = child.ask(do="measure", **request)["rows"]
        assert {r["contestant"]: r["status"] for r in rows} == {"otkernels cuda": "failed", "composed ops": "ok"}
        assert all(r["device"] == "cuda" and r["n"] == 64 for r in rows)
        with pytest.raises(LostError, match="AttributeError"):  # a question that no case answers
            child.ask(do="measure", **request | {"skip": None})
    finally:
        child.close()
