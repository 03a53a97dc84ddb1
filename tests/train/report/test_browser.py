"""Pages in a real browser: nothing goes wrong, pictures and curves are visible, and a phone shows them whole."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from tests.train.report.runs import write_pictures, write_run, write_scores
from train.report.compare import compare_main
from train.report.record import read_record
from train.report.run_page import write_run_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")
PHONE = 390  # pixels
STRANGE = "</script><img src=x onerror=alert(1)>\u202e&amp;\"'"

# Says what the page is, as JSON, to the page whose frame it is in.
PROBE = """<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((folded) => (folded.open = true));
  const images = [...document.images];
  const shown = images.filter((image) => image.getClientRects().length > 0);
  const input = document.querySelector(".slider input");
  const visible = () => document.querySelector(".slider img:not([hidden])").dataset.when;
  const frames = [];
  if (input) for (const value of [0, input.max]) {
    input.value = value; input.dispatchEvent(new Event("input")); frames.push(visible());
  }
  const label = (svg) => [...svg.querySelectorAll("text")].at(-1).textContent;
  const axes = () => [...document.querySelectorAll(".plot svg")].map(label);
  const before = axes();
  const time = document.querySelector("input[value=seconds]");
  time.checked = true; time.dispatchEvent(new Event("change"));
  const svg = document.querySelector(".plot svg"), box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 10, clientY: box.top + 5 }));
  parent.postMessage(JSON.stringify({
    errors, shown: shown.length, frames, before, after: axes(),
    said: document.querySelector(".chart output").textContent,
    paths: [...document.querySelectorAll(".plot")].map((plot) => plot.querySelectorAll("path.line").length),
    sizes: images.map((image) => image.naturalWidth),
    width: [document.documentElement.scrollWidth, document.documentElement.clientWidth],
    injected: document.querySelectorAll("img[src=x]").length,
  }), "*");
});
</script>"""
FRAME = f"""<!doctype html><title></title><script>
addEventListener("message", (event) => {{ document.title = event.data; }});
</script><iframe src="probed.html" width="{PHONE}" height="900" style="border: 0"></iframe>"""
CATCH = "<script>const errors = []; addEventListener('error', (e) => errors.push(String(e.message)), true);</script>"


def look(page, tmp_path) -> dict:
    """What a browser finds in ``page``, opened as a file, in a frame as wide as a phone."""
    arguments = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    arguments += [
        "--window-size=900,1000",
        "--hide-scrollbars",
        "--virtual-time-budget=5000",
        "--enable-logging=stderr",
        "--v=0",
    ]
    plain = subprocess.run([*arguments, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=90)
    console = [line for line in plain.stderr.splitlines() if "CONSOLE" in line]
    assert console == []  # of the page as it is, under its own policy
    assert "<svg" in plain.stdout
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', CATCH, text).replace(
        "</body>", f"{PROBE}</body>"
    )
    (tmp_path / "probed.html").write_text(text, encoding="utf-8")
    frame = tmp_path / "frame.html"  # a window may have a least width, a frame has none
    frame.write_text(FRAME, encoding="utf-8")
    run = subprocess.run([*arguments, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=90)
    title = html.unescape(re.search(r"<title>(.*?)</title>", run.stdout, re.DOTALL)[1])
    assert title.startswith("{"), run.stderr  # else the probe itself failed
    return json.loads(title)


def check(found: dict) -> None:
    assert found["errors"] == []
    assert found["injected"] == 0
    assert all(size > 0 for size in found["sizes"])
    assert found["width"][0] <= found["width"][1] == PHONE
    assert all(count > 0 for count in found["paths"])


def test_the_report_of_a_run_on_images(tmp_path):
    run = write_run(tmp_path / f"run {STRANGE.replace('/', '')}", out=STRANGE, device="x" * 200)
    write_pictures(write_scores(run, {200: 90.0, 400: 60.0, 800: 50.0}), [200, 400, 600], 800)
    found = look(write_run_report(read_record(run, "test")), tmp_path)
    check(found)
    assert found["frames"] == ["200", "800"]
    assert len(found["sizes"]) == 10  # two sliders of four, interpolations, neighbours
    assert found["shown"] == 4
    assert found["before"] == [
        "iteration",
        "iteration",
        "iteration",
        "root mean square difference of pixel values, of 255",
    ]
    assert found["after"][:3] == ["time of training"] * 3
    assert found["said"] == "16 s: 50"


def test_a_comparison(tmp_path):
    runs = [write_run(tmp_path / f"{STRANGE.replace('/', '')}{i}", seed=i, offset=i) for i in range(2)]
    runs.append(write_run(tmp_path / "other", "wgan-gp", seed=0, lr=0.5, note=STRANGE))
    compare_main([*map(str, runs), "--out", str(tmp_path / "out")])
    found = look(tmp_path / "out" / "compare.html", tmp_path)
    check(found)
    assert found["paths"] == [2]
    assert found["said"].startswith("16 s: potgan 0.2432 (0.2084 to 0.2779), wgan-gp 0.2084")
