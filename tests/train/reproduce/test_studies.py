"""The study in miniature: rows change one thing, are written as they come, and are not trained twice."""

from __future__ import annotations

import json

import pytest

from train.recipes import profile
from train.reproduce import studies
from train.reproduce.__main__ import main
from train.reproduce.studies import STUDIES, Row, StudyConfig, cells, row_config
from train.scores import toy


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A function: run a study of three rows in ``tmp_path``; the rows that were trained."""
    rows = (Row("gan", "as it is"), Row("gan", "fast", {"lr": 0.5}), Row("wgan", "as it is"))
    monkeypatch.setitem(studies.STUDIES, "games", ("Title", ("ring8",), rows))
    monkeypatch.setattr(studies, "POINTS", 50)
    monkeypatch.setattr(toy, "reverse_kl", lambda *arguments, **settings: (0.25, 0.01))
    trained = []
    train_row = studies.train_row
    monkeypatch.setattr(studies, "train_row", lambda *row: trained.append(row[1].label) or train_row(*row))

    def run(*arguments):
        trained.clear()
        main(["studies", "--name", "games", "--iterations", "2", "--out", str(tmp_path), *arguments])
        return list(trained)

    return run


def test_rows_are_trained_once_and_shown(tiny, tmp_path):
    assert tiny() == ["as it is", "fast", "as it is"]
    path = tmp_path / "games.jsonl"
    first = path.read_text()
    path.write_text(first[: first.index("\n") + 20])  # the second line was cut short by a kill
    assert tiny() == ["fast", "as it is"]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["game"], row["label"]) for row in rows] == [("gan", "as it is"), ("gan", "fast"), ("wgan", "as it is")]
    assert rows[0]["seeds"] == [100, 101, 102]
    page = (tmp_path / "games.md").read_text()
    assert "| gan | fast | 0.25" in page
    for row in rows:
        del row["config"]["scores"]  # of a time before there were such settings
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tiny("--iterations", "2") == []
    with pytest.raises(ValueError, match=r"ring8 gan, as it is, has other settings there \(iterations 2\)"):
        tiny("--iterations", "3")


@pytest.mark.parametrize("name", list(STUDIES))
def test_every_row_changes_its_tuned_profile_and_has_a_name_of_its_own(name):
    found = {}
    for target, row in cells(name):
        config = row_config(row, target, StudyConfig(iterations=profile(row.game, target).iterations))
        assert (target, row.game, row.label) not in found
        found[target, row.game, row.label] = config
    tuned = [key for key, config in found.items() if config == profile(key[1], key[0])]
    per_game = {(target, game) for target, game, _ in tuned}
    assert len(tuned) == len(per_game)  # one row of a game is the profile itself
    assert per_game == {(target, game) for target, game, _ in found}
