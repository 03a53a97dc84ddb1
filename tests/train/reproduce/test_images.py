"""The tables on images: which cells, what is kept and compared, and what the page says."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from train.cli import guarded
from train.data.fingerprint import image_fingerprint
from train.errors import TrainingError
from train.reproduce import image_cells, image_planner, images, images_report
from train.reproduce.__main__ import main
from train.reproduce.children import Children
from train.reproduce.image_cells import cells
from train.reproduce.image_tables import TABLES, ImageRow, ImageTable
from train.reproduce.images import parse
from train.run.config import load_config, run_config

TINY = ["--preset", "folder32-cpu", "--data.path", "/some/where", "--scores.extractor", "efficientnet-lite2"]
ROWS = ["--rows", "wgan-gp", "potgan", "dcgan"]
REAL = torch.arange(96, dtype=torch.uint8).view(2, 3, 4, 4)


def wanted(name, *arguments):
    return list(cells(TABLES[name], parse(name, [*TINY, *arguments], "test")))


@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_shares_data_budget_networks_and_scores_and_has_the_main_rows_seeds(name):
    found = wanted(name, "--iterations", "7")
    shared = {
        (repr(cell.config.data), repr(cell.config.scores), cell.config.iterations, cell.config.batch_size)
        for cell in found
    }
    assert len(shared) == 1
    assert {cell.config.iterations for cell in found} == {7}
    networks = {(cell.config.game.networks.name, cell.config.game.networks.width) for cell in found}
    assert networks == {("dcgan", 16)}
    for row in TABLES[name].rows:
        seeds = [cell.seed for cell in found if cell.row == row]
        assert seeds in ([], [0, 1, 2] if row in TABLES[name].main else [0])  # [] where it is another row's twin
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)
    assert all(cell.config.seed == cell.seed for cell in found)


def test_a_row_equal_to_an_earlier_one_is_left_out():
    plain, other = ImageRow("WGAN-GP", "wgan-gp"), ImageRow("WGAN-GP, lr", "wgan-gp", {"lr": 0.5})
    table = ImageTable("", {"one": plain, "twin": plain, "other": other}, main=("other",), against="one")
    found = [(cell.row, cell.seed) for cell in cells(table, parse("table2", TINY, "test"))]
    assert found == [("one", 0), ("other", 0), ("other", 1), ("other", 2)]


def test_rows_of_stated_settings_take_the_papers_profile_and_need_one():
    stated = {cell.row: cell.config for cell in wanted("table2") if cell.seed == 0}
    assert stated["potgan-stated"].lr == 2e-4
    assert stated["potgan-stated"].game.transport_weight == 0.01
    assert "potgan-stated" not in {
        cell.row for cell in cells(TABLES["table2"], parse("table2", ["--preset", "cifar10"], "test"))
    }


def test_unknown_rows_and_presets_are_named():
    with pytest.raises(ValueError, match=r"^reproduce: rows must be of wgan-gp-stated, .*, got nothing-such$"):
        wanted("table2", "--rows", "nothing-such")
    with pytest.raises(ValueError, match=r"^reproduce: preset must be one of digits, .*, got 'nowhere'$"):
        parse("table2", ["--preset", "nowhere"], "test")
    with pytest.raises(ValueError, match=r"^reproduce: preset must be one of digits, .*, got 'demo'$"):
        parse("table2", ["--preset", "demo"], "test")  # of points
    with pytest.raises(ValueError, match=r"^reproduce: seeds must be at least 1, got 0$"):
        parse("table2", ["--seeds", "0"], "test")
    with pytest.raises(ValueError, match=r"^reproduce: scores.extractor must be set: inception, "):
        main(["table2", "--preset", "folder32-cpu"])


FIDS = {"wgan-gp": (50.0, 52.0, 57.0), "potgan": (47.0, 50.0, 53.0), "dcgan": (60.0,)}


class Processes:
    """Stands in for the runs: leaves what a finished one leaves, and remembers which were started."""

    def __init__(self, failing=()):
        self.started, self.failing, self.commands, self.plans = [], failing, [], []
        self.protocol = {
            "extractor": "some",
            "frechet distance": "FID[some]",
            "n": 10,
            "fingerprint": image_fingerprint(REAL),
        }
        self.without = ""  # a score that the extractor does not give

    def __call__(self, command, output):
        folder = Path(command[5])
        self.started.append(folder.name)
        self.commands.append(command[6:])
        assert command[2:5:2] == ["train", "--resume"]
        if folder.name in self.failing:
            output.write("one line\nerror: it broke\n")
            return 1
        game = command[3]
        config = load_config(folder, game, run_config(game))
        row, _, seed = folder.name.rpartition("-")
        fid = FIDS[row][int(seed)]
        last = {"fid": fid, "kid": 0.01, "inception_score": 2.0, "precision": 0.5, "recall": 0.25, "density": 1.5}
        rows = [{"step": step, "seconds": step / 2, **last, "coverage": 0.75, "fid": 2 * fid} for step in (1, 2)]
        rows.append({**rows[-1], "step": config.iterations, "seconds": 90.0, "fid": fid})
        for score in rows:
            score.pop(self.without, None)
        (folder / "scores.json").write_text(json.dumps({"protocol": self.protocol, "rows": rows}))
        Image.new("RGB", (40, 40), "red").save(folder / "samples.png")
        if game == "potgan":
            (folder / "pictures" / "moved").mkdir(parents=True)
            for colour, path in (("green", "pictures/moved/00000003.png"), ("blue", "moved.png")):
                Image.new("RGB", (40, 40), colour).save(folder / path)
        return 0


@pytest.fixture
def processes(monkeypatch):
    made = Processes()
    monkeypatch.setattr(Children, "run", made)
    monkeypatch.setattr(images, "plan", lambda name, argv: made.plans.append((name, len(made.started))))
    monkeypatch.setattr(images, "load_images", lambda config: REAL + int(config.path.endswith("elsewhere")))
    return made


def play(folder, *arguments):
    places = ["--runs", str(folder / "runs"), "--out", str(folder / "out")]
    main(["table2", *TINY, *ROWS, "--iterations", "9", *places, *arguments])
    return (folder / "out" / "table2.md").read_text()


def test_cells_are_trained_once_and_kept_without_paths(tmp_path, processes, capsys):
    page = play(tmp_path)
    names = [f"{row}-{seed}" for row, fids in FIDS.items() for seed in range(len(fids))]
    assert sorted(processes.started) == sorted(names)
    assert play(tmp_path) == page
    assert len(processes.started) == 7
    assert processes.plans == [("table2", 0)]  # before the first cell, and not where nothing is missing
    assert "7 cells, 7 of them kept already" in capsys.readouterr().out
    kept = (tmp_path / "out" / "cells" / "wgan-gp-1.json").read_text()
    assert str(tmp_path) not in kept
    assert "/some" not in kept
    assert json.loads(kept)["config"]["data"]["path"] == "where"
    assert page.startswith("# POT-GAN's Table 2 and Figs. 4 and 5: where, 32 px\n")
    assert json.loads(kept)["scores"][-1]["fid"] == 52.0
    assert not (tmp_path / "out" / "cells" / "wgan-gp-1.png").exists()  # one picture a row
    assert (tmp_path / "out" / "cells" / "wgan-gp-0.png").exists()


def test_cells_of_other_settings_are_refused_by_name(tmp_path, processes):
    play(tmp_path)
    with pytest.raises(ValueError, match=r"wgan-gp-0.json is of other settings \(iterations 9\); remove it"):
        play(tmp_path, "--iterations", "10")
    (tmp_path / "out" / "cells" / "wgan-gp-0.json").unlink()
    with pytest.raises(ValueError, match=r"runs.wgan-gp-0 is of other settings \(iterations 9\)"):
        play(tmp_path, "--iterations", "10", "--rows", "wgan-gp", "--seeds", "1")
    play(tmp_path, "--threads", "1", "--data.download")  # how fast a cell is trained does not matter, nor from where
    words = "--device cpu --threads 1 --data.path /some/where --data.download --scores.batch_size 64"
    assert processes.commands[-1] == words.split()


def test_cells_of_other_images_are_refused(tmp_path, processes, capsys):
    play(tmp_path)
    with pytest.raises(ValueError, match=r"wgan-gp-0.json is of other images; remove it or choose another folder"):
        play(tmp_path, "--data.path", "/some/elsewhere")
    (tmp_path / "out" / "cells" / "dcgan-0.json").unlink()
    with pytest.raises(TrainingError, match="1 cells failed: dcgan-0"):
        play(tmp_path, "--rows", "dcgan", "--data.path", "/some/elsewhere")
    assert "runs/dcgan-0 is of other images" in capsys.readouterr().out


def test_cells_of_two_budgets_are_not_put_into_one_table(tmp_path, processes):
    play(tmp_path, "--rows", "wgan-gp")
    with pytest.raises(ValueError, match="wgan-gp-0 has iterations 9, dcgan-0 8: they cannot stand in one table"):
        play(tmp_path, "--rows", "dcgan", "--iterations", "8")
    assert "dcgan-0" not in processes.started  # it is said before hours of training


def test_a_row_of_two_settings_is_refused(tmp_path, processes):
    play(tmp_path)
    path = tmp_path / "out" / "cells" / "wgan-gp-2.json"
    cell = json.loads(path.read_text())
    cell["config"]["lr"] = 0.5
    path.write_text(json.dumps(cell))
    with pytest.raises(ValueError, match=r"wgan-gp-0 has lr 0.008, wgan-gp-2 0.5: they cannot stand in one table"):
        play(tmp_path, "--seeds", "2")
    with pytest.raises(ValueError, match=r"wgan-gp-0 has lr 0.008, wgan-gp-2 0.5: they cannot stand in one table"):
        images_report.write(tmp_path / "out", "table2")


def test_a_cell_says_when_it_began_and_with_which_code(tmp_path, processes, monkeypatch):
    monkeypatch.setattr(image_cells, "moment", lambda *sources: {"commit": "abc+", "date": "today"})
    page = play(tmp_path, "--rows", "dcgan")
    assert "dcgan-0 (today)" in page
    assert 'commit "abc+"' in page


def test_a_table_of_rows_that_no_paper_has_states_nothing(tmp_path, processes):
    assert "## What the paper states" in play(tmp_path)
    for path in (tmp_path / "out" / "cells").glob("*.json"):
        if path.stem == "dcgan-0":
            path.rename(path.with_name("potgan-mlp-0.json"))
        else:
            path.unlink()
    images_report.write(tmp_path / "out", "table2")
    assert "## What the paper states" not in (tmp_path / "out" / "table2.md").read_text()


def test_a_cell_that_fails_is_named_and_leaves_the_others(tmp_path, processes, capsys):
    processes.failing = ("potgan-1",)
    with pytest.raises(TrainingError, match=r"^reproduce: 1 cells failed: potgan-1; the others are kept in "):
        play(tmp_path)
    assert "potgan-1 ended with status 1: error: it broke" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "cells").glob("*.json"))) == 6
    assert "| POT-GAN | 2 | " in (tmp_path / "out" / "table2.md").read_text()
    processes.failing = ()
    play(tmp_path, "--jobs", "2")
    assert processes.started.count("potgan-1") == 2
    assert processes.started.count("potgan-2") == 1


def test_after_a_signal_no_other_cell_begins_and_the_same_command_goes_on(tmp_path, processes, monkeypatch, capsys):
    def signalled(children, command, output):
        if len(processes.started) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)  # as a run that saves
            return 128 + signal.SIGTERM
        return processes(command, output)

    with monkeypatch.context() as patch:
        patch.setattr(Children, "run", signalled)
        assert guarded(lambda: play(tmp_path)) == 128 + signal.SIGTERM
    assert processes.started == ["wgan-gp-0"]
    assert "the same command goes on where they are" in capsys.readouterr().out
    play(tmp_path)
    assert len(processes.started) == len(set(processes.started)) == 7


def test_the_page_says_means_errors_and_differences(tmp_path, processes):
    page = play(tmp_path)
    assert "| WGAN-GP | 3 | 53.0 ± 2.1 | 10.0000 ± 0.0000 |" in page
    assert "| DCGAN | one run | 60 |" in page
    # Differences -3, -2, -4 of the same seeds: mean -3, standard error 0.577, Student's t 4.303 with 2 degrees.
    assert "- POT-GAN: -3.00, 95 % interval -5.48 to -0.52 (the same seeds, paired)" in page
    assert "FID[some] less that of WGAN-GP (negative is better)" in page
    assert "- DCGAN: +7.00 (one run: no error is known)" in page
    assert "found? FID[some] of POT-GAN less that of WGAN-GP: -3.00, 95 % interval -5.48 to -0.52 (the same" in page
    assert "Does the forest beat" not in page  # a row of that question is missing
    assert "| POT-GAN | 6.87 / 32.5 | 3.53 / 65.7 | 4.78 / 58.6 |" in page
    assert "- POT-GAN: " in page.split("## Settings")[1]
    assert math.isclose(4.303 * 1 / math.sqrt(3), 2.484, rel_tol=1e-3)


def test_an_extractor_without_classes_has_no_inception_score(tmp_path, processes):
    processes.without = "inception_score"
    assert "|  | runs | FID[some] | KID[some] x 1000 | Precision | Recall | Density | Coverage | training |" in play(
        tmp_path
    )


def test_scores_of_unlike_protocols_are_not_put_into_one_table(tmp_path, processes):
    play(tmp_path)
    path = tmp_path / "out" / "cells" / "dcgan-0.json"
    cell = json.loads(path.read_text())
    cell["protocol"]["n"] = 20
    path.write_text(json.dumps(cell))
    with pytest.raises(ValueError, match=r"wgan-gp-0 and dcgan-0 cannot be compared: n 10 and 20"):
        images_report.write(tmp_path / "out", "table2")


def test_the_plan_times_each_row_and_sums_up(monkeypatch, capsys):
    monkeypatch.setattr(image_planner, "TIMED_SECONDS", 0.0)
    monkeypatch.setattr(image_planner, "image_seconds", lambda config, data: 0.01)
    monkeypatch.setattr(image_planner, "seconds_of", lambda work, device: work() or 3.6)
    words = "table2 --preset digits --plan --rows wgan-gp potgan potgan-1 --other-seeds 3 --scores.extractor inception"
    main(f"{words} --data.size 8 --iterations 1000 --scores.n 360 --scores.every 300".split())
    out = capsys.readouterr().out
    # 1,000 iterations of 3.6 s, and four scores of 360 images at 0.01 s, for three seeds: 3.012 h.
    assert re.search(r"^wgan-gp +3 +1,000 +0.278 +3.01  \d", out, re.MULTILINE)
    # A VAE for each seed, which the other rows of that seed share.
    assert re.search(r"^vae \(20,000 iterations\) +3 +60.00  \d", out, re.MULTILINE)
    assert re.search(r"^real images, once +1 +0.00  $", out, re.MULTILINE)
    assert "9 cells: about 69 h" in out
    assert "scores: 100 images/s through inception" in out


def test_a_cell_is_planned_trained_scored_and_kept_by_processes_of_its_own(tmp_path, seed, capfd):
    """Nothing stands in for anything here: the plan's process, the run's, and an extractor."""
    generator = torch.Generator().manual_seed(seed)
    (tmp_path / "some").mkdir()
    for i in range(12):
        pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / "some" / f"{i}.png")
    places = ["--data.path", str(tmp_path / "some"), "--data.cache", str(tmp_path / "cache")]
    places += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--threads", "1"]
    scores = ["--scores.extractor", "efficientnet-lite2", "--scores.n", "10", "--scores.reference", "11"]
    words = ["table2", "--preset", "folder32-cpu", "--rows", "dcgan", "--iterations", "2", "--scores.every", "1"]
    main([*words, *scores, *places])
    out = capfd.readouterr().out
    assert re.search(r"1 cells, 0 of them kept already\n.*\ndcgan +1 +2 .*\ndcgan-0: FID\[efficientnet", out, re.DOTALL)
    kept = json.loads((tmp_path / "out" / "cells" / "dcgan-0.json").read_text())
    assert [row["step"] for row in kept["scores"]] == [1, 2]
    assert (kept["protocol"]["n"], kept["protocol"]["reference"], kept["config"]["threads"]) == (10, 11, 1)
    assert kept["seconds"] > 0
    assert Image.open(tmp_path / "out" / "table2-samples.png").size[0] > 200
    main([*words, *scores, *places, "--plan"])
    assert capfd.readouterr().out == "1 cells, 1 of them kept already\n"


def test_an_error_is_one_line(capsys):
    assert guarded(lambda: main(["table2", *TINY, "--jobs", "0"])) == 2
    assert capsys.readouterr().err == "error: reproduce: jobs must be at least 1, got 0\n"


def test_what_a_game_makes_of_images_is_shown_along_the_training(tmp_path, processes):
    page = play(tmp_path)
    assert "![moved](cells/potgan-moved.png)" in page
    assert "dcgan-moved" not in page
    picture = Image.open(tmp_path / "out" / "cells" / "potgan-moved.png").convert("RGB")
    assert picture.size == (220 + 40, 2 * (10 + 8))  # two of eight rows of each grid, below each other
    right = [picture.getpixel((240, y)) for y in (5, 23)]
    assert right == [(0, 128, 0), (0, 0, 255)]
