"""One run in its folder: the loop from its start, or a checkpoint, to the final outputs."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from pathlib import Path

from models.games import Game, Loss
from models.processes import here
from train.data.datasets import Dataset
from train.errors import ResourceError, Stopped, TrainingError, resource_message
from train.run import checkpoint, snapshot
from train.run.config import TrainConfig, torch_device
from train.run.directory import CHECKPOINTS
from train.run.files import sweep
from train.run.guard import FiniteGuard, check_alike, check_parameters
from train.run.launch import Heard, decided, mean, wait
from train.run.log import RunLog, Unheard, duration
from train.run.loop import Loop
from train.run.outputs import Outputs, are_final
from train.run.scoring import Asked, Scoring
from train.run.signals import Requests
from train.run.source import Source
from train.run.wandb_log import Wandb
from train.scores.images import Scorer


class Trainer:
    """Plays ``game`` on ``data`` in a run directory, from the newest valid checkpoint there if there is one.

    Losses are checked at each step on the CPU and at each row of the log on a GPU (see FiniteGuard); neither a loss
    nor a parameter that is not finite ever reaches a checkpoint.
    """

    def __init__(
        self,
        game: Game,
        data: Dataset,
        config: TrainConfig,
        directory: Path,
        label: str,
        scorer: Scorer | None = None,
    ) -> None:
        self.config, self.directory, self.label = config, directory, label
        self.seconds = 0.0
        self.source = Source(data, game.draw_noise, config.seed, torch_device(config.device))
        self.loop = Loop(game, self.source, config)
        self.outputs = Outputs(self.loop, data, directory, label, scorer)
        self.scoring = None if scorer is None else Scoring(scorer, self.loop, directory, self.outputs.export)
        self._guard = FiniteGuard(game.players, self.loop.device)
        self._losses: dict[str, Loss] = {}
        self._requests = Requests()
        self._heard = Heard()

    def run(self, resume_command: str) -> dict[str, float]:
        """Train to the last iteration and write the final outputs; returns the final metrics.

        SIGINT, SIGTERM and SIGHUP end the iteration at hand, save, print ``resume_command`` and raise Stopped.
        """
        loop, config = self.loop, self.config
        log = self._log()
        before = self.seconds
        try:
            with self._requests.taken():
                between = 0 < loop.step < config.iterations
                if between and loop.step % config.sample_every == 0 and isinstance(log, RunLog):
                    self.outputs.make_up(log)  # what was killed between its checkpoint and its picture
                self._score(log, resume_command)  # nor had it its scores
                while loop.step < config.iterations:
                    started = time.monotonic()
                    loop.iterate(self._watch)
                    if self._due(config.log_every):
                        self._guard.check()
                        log.row(loop.step, self._log_values())
                    self.seconds += time.monotonic() - started
                    self._leave_if_asked(log, resume_command)  # first: the terminal may be gone
                    log.tick(loop.step, self.seconds - before)
                    if self._due(config.checkpoint_every):
                        self.save()
                    between = loop.step < config.iterations
                    if between and loop.step % config.sample_every == 0 and isinstance(log, RunLog):
                        self.outputs.at_interval(log)
                    self._score(log, resume_command)
                self._leave_if_asked(log, resume_command)
            log.end_progress()
            log.say(f"{self.label}: {loop.step} iterations done, {duration(self.seconds)} of training")
            metrics = self.outputs.final(log, self.seconds) if isinstance(log, RunLog) else {}
            wait()
            return metrics
        except Exception as error:
            exhausted = resource_message(error)
            message = str(error) if isinstance(error, TrainingError) else exhausted
            if message is None:
                raise
            kept = checkpoint.checkpoints(self.directory / CHECKPOINTS)[:1]
            where = f"the last good checkpoint is {kept[0]}" if kept else "no checkpoint had been written yet"
            kind = TrainingError if exhausted is None else ResourceError
            raise kind(f"{message}; {where}") from error
        finally:
            log.close()

    def _log(self) -> RunLog | Unheard:
        """Prepare the folder and its log, in the first process."""
        if not here().first:
            return Unheard()
        self.directory.mkdir(parents=True, exist_ok=True)
        sweep(self.directory)
        project, described = self.config.wandb, {"game": self.label, **dataclasses.asdict(self.config)}
        wandb = None if project is None else Wandb(project, self.directory, described)
        return RunLog(self.directory, self.label, self.loop.step, self.config.iterations, wandb)

    def _score(self, log: RunLog | Unheard, resume_command: str) -> None:
        if self.scoring is None or not self.scoring.due():
            return
        alone = here().size == 1  # of several processes none can leave the others in the midst of it
        try:
            self.scoring.score(log, self.seconds, lambda: alone and self._requests.asked is not None)
        except Asked:
            self._leave_if_asked(log, resume_command)

    def save(self) -> Path:
        """Write a checkpoint; TrainingError, and no file, if losses or parameters are not finite.

        Of several processes the first writes it, and all take part. The file, or in the others its folder.
        """
        self._guard.check()
        check_parameters(self.loop.game.players, self.loop.step)
        check_alike(self.loop.game.players, self.loop.step)
        folder = self.directory / CHECKPOINTS
        if not here().first:
            return folder
        state = snapshot.take(self.loop, self.source, self.seconds)
        return checkpoint.save(folder, state, self.loop.step, self.config.keep)

    def resume(self, other_data: bool = False) -> None:
        """Continue from the newest checkpoint of the run directory that can be loaded, if there is any.

        other_data: go on with data that the run was not trained on. ValueError if there are only useless checkpoints.
        """
        folder = self.directory / CHECKPOINTS
        refused: list[str] = []
        for path, state in checkpoint.valid_states(folder, lambda text: print(f"warning: {text}", flush=True)):
            try:
                self.seconds = snapshot.restore(self.loop, self.source, state, other_data)
            except ValueError as error:
                refused.append(f"{path.name}: {error}")
                continue
            for message in refused:
                print(f"warning: {message}; an older checkpoint is taken", flush=True)
            if self.scoring is not None:
                self.scoring.resume(other_data)
            print(f"{self.label}: continues at step {self.loop.step}", flush=True)
            return
        if refused:
            raise ValueError(refused[0])
        if checkpoint.checkpoints(folder):
            raise ValueError(f"resume: none of the checkpoints in {folder} is valid")

    def ended(self) -> bool:
        """Whether the last iteration is done and the final outputs were written."""
        return self.loop.step >= self.config.iterations and bool(decided(are_final(self.directory)))

    def _watch(self, player: str, loss: Loss) -> None:
        self._guard.watch(player, loss.value, self.loop.step + 1)
        self._losses[player] = loss

    def _due(self, interval: int) -> bool:
        return self.loop.step % interval == 0 or self.loop.step == self.config.iterations

    def _log_values(self) -> dict[str, float]:
        terms = {}
        for player, loss in self._losses.items():
            terms[f"{player}/loss"] = float(loss.value)
            terms |= {f"{player}/{name}": float(term) for name, term in loss.terms.items()}
            terms[f"{player}/lr"] = float(self.loop.optimizers[player].param_groups[0]["lr"])
        return {"seconds": round(self.seconds, 3), **dict(zip(terms, mean(list(terms.values())), strict=True))}

    def _leave_if_asked(self, log: RunLog | Unheard, resume_command: str) -> None:
        asked = self._heard.say(self._requests.asked or 0)
        if not asked:
            return
        self.save()
        wait()
        stopped = Stopped(asked, f"at step {self.loop.step}: saved in {self.directory}")
        with suppress(OSError):  # the terminal may be what is gone
            log.say(f"{stopped}\nresume with: {resume_command}")
        raise stopped
