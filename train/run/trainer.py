"""The trainer: one run of a game from its start, or a checkpoint, to its outputs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from models.games import Game, Loss
from train.data.datasets import Dataset
from train.errors import ResourceError, Stopped, TrainingError, resource_message
from train.run import checkpoint
from train.run.config import TrainConfig
from train.run.directory import REPORT
from train.run.files import sweep
from train.run.guard import FiniteGuard, check_parameters
from train.run.log import RunLog, duration
from train.run.loop import Rounds, noise_generator
from train.run.outputs import Outputs
from train.run.resume import weights_differ
from train.run.state import check_moments

CHECKPOINTS = "checkpoints"


class Trainer(Rounds):
    """Plays ``game`` on ``data`` in a run directory, from the newest valid checkpoint there if there is one.

    Losses are checked at each step on the CPU and at each row of the log on a GPU (see FiniteGuard); neither a loss
    nor a parameter that is not finite ever reaches a checkpoint.
    """

    def __init__(self, game: Game, data: Dataset, config: TrainConfig, directory: Path, label: str) -> None:
        super().__init__(game, config)
        self.data, self.directory, self.label = data, directory, label
        self.seconds = 0.0
        self.noise = noise_generator(config.seed, self.device)
        self.guard = FiniteGuard(self.game.players, self.device)
        self.outputs = Outputs(self, directory)
        self._losses: dict[str, Loss] = {}
        self._signal: int | None = None

    def run(self, resume_command: str) -> dict[str, float]:
        """Train to the last iteration and write the final outputs; returns the final metrics.

        SIGINT, SIGTERM and SIGHUP end the iteration at hand, save, print ``resume_command`` and raise Stopped. In
        another thread than the main one, where Python takes no signals, they do what they would have done.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        sweep(self.directory)
        log = RunLog(self.directory, self.label, self.step, self.config.iterations)
        before = self.seconds
        try:
            with self._signals():
                if 0 < self.step < self.config.iterations and self.step % self.config.sample_every == 0:
                    self.outputs.make_up(log, self.step)  # what was killed between its checkpoint and its picture
                while self.step < self.config.iterations:
                    started = time.monotonic()
                    self.iterate()
                    self._log_losses(log)
                    self.seconds += time.monotonic() - started
                    self._leave_if_asked(log, resume_command)  # first: the terminal may be gone
                    log.tick(self.step, self.seconds - before)
                    self._save_and_show(log)
                self._leave_if_asked(log, resume_command)
            log.end_progress()
            log.say(f"{self.label}: {self.step} iterations done, {duration(self.seconds)} of training")
            return self.outputs.final(log)
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

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        return self.data.batch(n), self.game.draw_noise(n, self.noise)

    def watch(self, player: str, loss: Loss) -> None:
        self.guard.watch(player, loss.value, self.step + 1)
        self._losses[player] = loss

    def save(self) -> Path:
        """Write a checkpoint; TrainingError, and no file, if losses or parameters are not finite."""
        self.guard.check()
        check_parameters(self.game.players, self.step)
        return checkpoint.save(self.directory / CHECKPOINTS, self.state_dict(), self.step, self.config.keep)

    def resume(self, other_data: bool = False) -> None:
        """Continue from the newest checkpoint of the run directory that can be loaded, if there is any.

        other_data: go on with data that the run was not trained on. ValueError if there are only useless checkpoints.
        """
        folder = self.directory / CHECKPOINTS
        refused: list[str] = []
        for path, state in checkpoint.valid_states(folder, lambda text: print(f"warning: {text}", flush=True)):
            try:
                self.load_state_dict(state, other_data)
            except ValueError as error:
                refused.append(f"{path.name}: {error}")
                continue
            for message in refused:
                print(f"warning: {message}; an older checkpoint is taken", flush=True)
            print(f"{self.label}: continues at step {self.step}", flush=True)
            return
        if refused:
            raise ValueError(refused[0])
        if checkpoint.checkpoints(folder):
            raise ValueError(f"resume: none of the checkpoints in {folder} is valid")

    def ended(self) -> bool:
        """Whether the last iteration is done and the report, which comes last, was written after its checkpoint."""
        report, saved = self.directory / REPORT, checkpoint.checkpoints(self.directory / CHECKPOINTS)
        if self.step < self.config.iterations or not saved or not report.exists():
            return False
        return report.stat().st_mtime_ns >= saved[0].stat().st_mtime_ns

    def say_jumps(self, iterations_before: int) -> None:
        """Say what jumps when a run that was planned for ``iterations_before`` gets another number of iterations."""
        if self.step == 0 or iterations_before == self.config.iterations:
            return
        before, now = self.step / iterations_before, self.step / self.config.iterations
        if self.config.lr_decay == "linear":
            print(
                f"resume: the learning rate falls linearly over all iterations, so at step {self.step} it jumps from "
                f"{max(0.0, 1 - before):.3g} to {1 - now:.3g} of lr",
                flush=True,
            )
        if type(self.game).set_progress is not Game.set_progress:
            print(
                f"resume: the game anneals over all iterations, so at step {self.step} it jumps from {before:.3g} to "
                f"{now:.3g} of its way",
                flush=True,
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration depends on: tensors, numbers, strings, lists and dicts."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "device": self.device.type,
            "game": self.game.state_dict(),
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "data": self.data.state_dict(),
            "noise": self.noise.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "threads": self.config.threads,
        }

    def load_state_dict(self, state: Mapping[str, Any], other_data: bool = False) -> None:
        """Restore what ``state_dict`` gave; ValueError in one line if it does not fit the game or the data."""
        if state["device"] != self.device.type:
            raise ValueError(f"resume: the run was on {state['device']}; its random state does not fit {self.device}")
        if (state["ema"] is None) != (self.ema is None):
            raise ValueError("resume: ema cannot be switched on or off when a run is resumed")
        differ = weights_differ(self.game.state_dict(), state["game"])
        if differ is not None:
            raise ValueError(f"resume: the checkpoint does not fit this configuration: {differ}")
        try:
            self.game.load_state_dict(state["game"])
            for player, optimizer in self.optimizers.items():
                self._load_optimizer(player, optimizer, state["optimizers"][player])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
            self.data.load_state_dict(state["data"], allow_other=other_data)
            self.noise.set_state(state["noise"])
            torch.set_rng_state(state["rng"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        except (
            RuntimeError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:  # whatever torch raises on mistyped parts
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"resume: the checkpoint does not fit this configuration: {reason[:200]}") from error
        self.step, self.seconds = state["step"], state["seconds"]
        if state.get("threads", self.config.threads) != self.config.threads:
            print(
                f"resume: the run had {state['threads']} CPU threads and goes on with {self.config.threads}; sums may "
                "be rounded in another order",
                flush=True,
            )

    def _load_optimizer(self, player: str, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        check_moments(player, optimizer, state)
        optimizer.load_state_dict(state)
        for group in optimizer.param_groups:  # the settings may have changed; lr is set at each iteration
            group.update({**self.options[player], "lr": group["lr"]})

    def _log_losses(self, log: RunLog) -> None:
        if self._due(self.config.log_every):
            self.guard.check()
            log.row(self.step, self._log_values())

    def _save_and_show(self, log: RunLog) -> None:
        if self._due(self.config.checkpoint_every):
            self.save()
        if self.step % self.config.sample_every == 0 and self.step < self.config.iterations:
            self.outputs.at_interval(log)

    def _due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.iterations

    def _log_values(self) -> dict[str, float]:
        values = {"seconds": round(self.seconds, 3)}
        for player, loss in self._losses.items():
            values[f"{player}/loss"] = float(loss.value)
            values |= {f"{player}/{name}": float(term) for name, term in loss.terms.items()}
            values[f"{player}/lr"] = self.optimizers[player].param_groups[0]["lr"]
        return values

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, frame: FrameType | None) -> None:
            if self._signal is not None:  # asked twice: leave at once, with the last checkpoint as it is
                raise KeyboardInterrupt
            self._signal = number

        before = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere Python sets no handlers
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
                    before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _leave_if_asked(self, log: RunLog, resume_command: str) -> None:
        if self._signal is None:
            return
        self.save()
        stopped = Stopped(self._signal, self.step, str(self.directory))
        with suppress(OSError):  # the terminal may be what is gone
            log.say(f"{stopped}\nresume with: {resume_command}")
        raise stopped
