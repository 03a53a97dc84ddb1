"""The page: self-contained, escaped, with every number and setting."""

from __future__ import annotations

import base64

from train.report.page import flatten, number, write_report


def test_the_page_embeds_pictures_and_escapes_text(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"not really a picture")
    page = tmp_path / "report.html"
    write_report(
        page,
        title="a < b",
        config={"game": {"forest": {"depth": 3}}, "out": "<script>"},
        table={"potgan": {"reverse_kl": 0.123456, "modes": 8}, "wgan-gp": {"reverse_kl": 2.0}},
        pictures={"Samples & more": picture},
    )
    text = page.read_text()
    assert "<title>a &lt; b</title>" in text
    assert "<td>game.forest.depth</td><td>3</td>" in text
    assert "<script>" not in text
    assert "<td>0.1235</td><td>8</td>" in text
    assert "<td>2</td><td></td>" in text  # WGAN-GP has no number of modes
    assert f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}" in text
    assert "http" not in text


def test_flatten_and_number():
    assert flatten({"a": {"b": 1, "c": {}}, "d": (2, 3)}) == [("a.b", 1), ("d", (2, 3))]
    assert (number(10_000), number(0.000123456)) == ("10000", "0.0001235")


def test_names_that_a_page_cannot_hold_or_would_act_on_are_shown_as_text(tmp_path):
    page = tmp_path / "report.html"
    strange = "a\x1b[31m\u202eb\udcff<b>"  # a colour, a change of direction, a byte that is no UTF-8
    write_report(page, title=strange, config={strange: strange}, table={strange: {strange: 1.0}}, pictures={})
    text = page.read_text(encoding="utf-8")
    shown = r"a\x1b[31m\u202eb\udcff&lt;b&gt;"
    assert text.count(shown) == 6  # two titles, two settings, a column and a row
    assert "\x1b" not in text
    assert "<b>" not in text
