"""The page: self-contained, escaped, with every number and setting."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from PIL import Image

from train.report.curves import Chart, Line
from train.report.page import Frame, Page, flatten, number, paragraph, slider, table, write_report

STRANGE = "a\x1b[31m\u202eb\udcff<b>"  # a colour, a change of direction, a byte that is no UTF-8
SHOWN = r"a\x1b[31m\u202eb\udcff&lt;b&gt;"


def test_the_page_embeds_pictures_and_escapes_text(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (5, 4), "red").save(picture)
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
    assert "<td>&lt;script&gt;</td>" in text
    assert "<td>0.1235</td><td>8</td>" in text
    assert "<td>2</td><td></td>" in text  # WGAN-GP has no number of modes
    assert re.search(r'<img src="data:image/webp;base64,[\w+/=]+" width="5" height="4" alt="Samples &amp; more"', text)


def test_flatten_and_number():
    assert flatten({"a": {"b": 1, "c": {}}, "d": (2, 3)}) == [("a.b", 1), ("d", (2, 3))]
    assert (number(10_000), number(0.000123456)) == ("10000", "0.0001235")


def test_names_that_a_page_cannot_hold_or_would_act_on_are_shown_as_text(tmp_path):
    page = tmp_path / "report.html"
    write_report(page, title=STRANGE, config={STRANGE: STRANGE}, table={STRANGE: {STRANGE: 1.0}}, pictures={})
    text = page.read_text(encoding="utf-8")
    assert text.count(SHOWN) == 6  # two titles, two settings, a column and a row
    assert "\x1b" not in text
    assert "<b>" not in text


def test_every_part_escapes_what_it_is_given():
    frame = Frame("data:,", 1, 1, STRANGE, STRANGE)
    page = Page(STRANGE, STRANGE)
    chart = Chart(STRANGE, [Line(STRANGE, {"step": [1]}, [1.0])], {"step": STRANGE}, STRANGE, STRANGE)
    page.section(STRANGE, paragraph(STRANGE), table([STRANGE], [[STRANGE]]), slider([frame, frame], STRANGE))
    page.section("", page.charts([chart]))
    assert "<b>" not in page.html()
    assert "\x1b" not in page.html()


def test_data_cannot_end_the_script_element():
    hostile = "</script><script>alert(1)</script><!--"
    page = Page("t")
    page.section("", page.charts([Chart("t", [Line(hostile, {"step": [1, 2]}, [1.0, None])])]))
    text = page.html()
    assert hostile not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    (chart,) = json.loads(data[1])["charts"]
    assert chart["lines"][0]["name"] == hostile
    assert chart["lines"][0]["y"] == [1, None]


def test_the_page_allows_its_own_script_and_style_alone():
    """The policy names both by their hashes, and no source from which anything could be fetched."""
    text = Page("t").html()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)[1]
    for element in ("script", "style"):
        content = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.S))


@pytest.mark.parametrize("n", [1, 3])
def test_a_slider_shows_the_last_frame_and_one_frame_is_a_picture(n):
    frames = [Frame(f"data:{i}", 1, 1, str(i), f"step {i}") for i in range(n)]
    text = slider(frames)
    assert text.count("<img") == n
    assert text.count(" hidden>") == n - 1
    assert re.search(rf'<img src="data:{n - 1}"[^>]*data-when="step {n - 1}">', text)
    assert ("<input" in text) == (n > 1)
