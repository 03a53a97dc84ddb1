"""The papers' tables on images: from cells that are missing to table, curves and samples."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.cli import parse_fields
from train.data.config import DISTRIBUTIONS, load_images
from train.data.fingerprint import image_fingerprint
from train.errors import Stopped, TrainingError
from train.provenance import cores
from train.recipes import PROFILES, profile, profiles
from train.report.names import title
from train.reproduce.children import Children
from train.reproduce.image_cells import (
    Cell,
    ImagesConfig,
    cells,
    check_run,
    check_together,
    is_kept,
    keep,
    read_kept,
    train,
    without_places,
)
from train.reproduce.image_tables import TABLES, ImageTable
from train.reproduce.start import start
from train.run.log import duration


def main(name: str, argv: Sequence[str], prog: str) -> None:
    """Train what is missing of the table ``name``, then write it and its pictures; ValueError for a wrong line."""
    config, table = parse(name, argv, prog), TABLES[name]
    if not config.plan:
        check_scores(config)
    wanted = list(cells(table, config))
    fingerprint = image_fingerprint(load_images(config.data))
    missing = missing_cells(table, wanted, Path(config.out), fingerprint)
    if config.plan or not missing:  # else the plan's process says it
        print(f"{len(wanted)} cells, {len(wanted) - len(missing)} of them kept already", flush=True)
    if config.plan:
        if missing:
            from train.reproduce.image_planner import print_plan

            print_plan(missing, config)
        return
    from train.reproduce import images_report  # matplotlib is slow to import

    if missing:
        plan(name, argv)
    shown = [re.sub(r"[^=]*/(?=.)", "", word) for word in argv]  # paths mean nothing elsewhere
    out, machine = start(shlex.join([*prog.split(), *shown]), None, config.device, config.out)
    machine["threads"] = config.threads
    failed = play(table, missing, config, out, machine, fingerprint)
    for path in images_report.write(out, name):
        print(path)
    if failed:
        raise TrainingError(f"reproduce: {len(failed)} cells failed: {', '.join(failed)}; the others are kept in {out}")


def parse(name: str, argv: Sequence[str], prog: str) -> ImagesConfig:
    """The configuration that ``argv`` describes: data and scores start from the preset's."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", default=ImagesConfig.preset)
    try:
        chosen, _ = first.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ValueError(f"reproduce: {error}") from None
    games = {row.game for row in TABLES[name].rows.values()}
    shared = [name for name in PROFILES if all(name in profiles(game) for game in games)]
    presets = [name for name in shared if profile("wgan-gp", name).data.name not in DISTRIBUTIONS]
    if chosen.preset not in presets:
        raise ValueError(f"reproduce: preset must be one of {', '.join(presets)}, got {chosen.preset!r}")
    base = profile("wgan-gp", chosen.preset)
    default = replace(ImagesConfig(), preset=chosen.preset, data=base.data, scores=base.scores)
    config = parse_fields(ImagesConfig, default, argv, prog, f"{TABLES[name].title}. {ImagesConfig.__doc__}")
    if config.device == "cpu" and config.threads is None:
        config = replace(config, threads=max(1, cores() // config.jobs))
    return config


def check_scores(config: ImagesConfig) -> None:
    """ValueError unless the table has an extractor: without one there is nothing to write."""
    if config.scores.extractor == "none":
        raise ValueError("reproduce: scores.extractor must be set: inception, dinov2 or efficientnet-lite2")


def missing_cells(table: ImageTable, wanted: list[Cell], out: Path, fingerprint: str) -> list[Cell]:
    """Those of ``wanted`` that are not kept in ``out`` yet.

    fingerprint: of the images. ValueError if kept ones or begun runs are of other settings or images.
    """
    missing = [cell for cell in wanted if not is_kept(out, cell, fingerprint)]
    for cell in missing:
        check_run(cell)
    kept = [cell for row in read_kept(out, list(table.rows)).values() for cell in row]
    check_together([*kept, *({**vars(cell), "config": without_places(cell.config)} for cell in wanted)])
    return missing


def plan(name: str, argv: Sequence[str]) -> None:
    """Print the plan, by a process of its own, which leaves a GPU's memory to the cells; TrainingError if it fails."""
    status = subprocess.run([sys.executable, "-m", "train.reproduce", name, *argv, "--plan"], check=False).returncode
    if status != 0:
        raise TrainingError(f"reproduce: the plan of {name} ended with status {status}, and so would its cells")


def play(
    table: ImageTable, missing: list[Cell], config: ImagesConfig, out: Path, machine: dict[str, Any], fingerprint: str
) -> list[str]:
    """Train the cells, ``config.jobs`` at a time, and say what each scored; the names of those that failed.

    fingerprint: of the images. A cell that fails leaves the others alone.
    """
    started, failed, done = time.monotonic(), [], 0
    with ThreadPoolExecutor(config.jobs) as pool, Children() as children:  # a thread waits for a child
        try:
            waiting = {pool.submit(train, cell, children.run): cell for cell in missing}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    cell = waiting.pop(future)
                    done += 1
                    try:
                        made_on = {**machine, **future.result()}
                        row = keep(out, cell, table.rows[cell.row].label, made_on, fingerprint)
                    except (TrainingError, OSError, ValueError, LookupError) as error:
                        failed.append(cell.name)
                        print(f"warning: {error}", flush=True)
                        continue
                    left = (time.monotonic() - started) / done * (len(missing) - done)
                    score = f"{title('fid', row['protocol'])} {row['scores'][-1]['fid']:.4g}"
                    print(
                        f"{cell.name}: {score}; {done} of {len(missing)} cells, about {duration(left)} left",
                        flush=True,
                    )
        except (KeyboardInterrupt, Stopped):
            with suppress(OSError):  # the terminal may be what is gone
                print("the cells in training save and end; the same command goes on where they are", flush=True)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return failed
