"""The trainer plays turns. It knows no game by name."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from models.games import Game, Loss, Turn
from train import checkpoint
from train.config import TrainConfig, torch_device
from train.data import Dataset, stream_seed
from train.ema import Ema
from train.errors import Stopped, TrainingError
from train.guard import FiniteGuard, check_parameters
from train.log import RunLog, duration
from train.outputs import Outputs

CHECKPOINTS = "checkpoints"
NOISE_STREAM = 2**32  # past the epochs that number the streams of an image set


class Trainer:
    """Plays ``game`` on ``data`` in a run directory, from the newest valid checkpoint there if there is one.

    Each player has an Adam optimizer with the run's settings, overridden by the game's ``optimizer_options(player)``.
    One iteration plays every turn of ``game.order`` and then updates the average of the sampling players. Losses
    are checked at each step on the CPU and at each row of the log on a GPU (see FiniteGuard); neither a loss nor a
    parameter that is not finite ever reaches a checkpoint.
    """

    def __init__(self, game: Game, data: Dataset, config: TrainConfig, directory: Path, label: str) -> None:
        self.device = torch_device(config.device)
        self.game = game.to(self.device).train()
        self.data, self.config, self.directory, self.label = data, config, directory, label
        self.step, self.seconds = 0, 0.0
        self._options = {player: self._optimizer_options(player) for player in self.game.players}
        self.optimizers = self._make_optimizers()
        self.ema = Ema(self._sampling_players(), config.ema) if config.ema > 0 else None
        self.noise = torch.Generator(self.device).manual_seed(stream_seed(config.seed, NOISE_STREAM))
        self.guard = FiniteGuard(self.game.players, self.device)
        self.outputs = Outputs(self, directory)
        self._losses: dict[str, Loss] = {}
        self._signal: int | None = None

    def run(self, resume_command: str) -> dict[str, float]:
        """Train to the last iteration and write the final outputs; returns the final metrics.

        SIGINT and SIGTERM end the iteration at hand, save, print ``resume_command`` and raise Stopped.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self.resume()
        log = RunLog(self.directory, self.label, self.step, self.config.iterations)
        before = self.seconds
        try:
            with self._signals():
                while self.step < self.config.iterations:
                    started = time.monotonic()
                    self.iterate()
                    self._log_losses(log)
                    self.seconds += time.monotonic() - started
                    log.tick(self.step, self.seconds - before)
                    self._save_and_show(log)
                    self._leave_if_asked(log, resume_command)
            log.end_progress()
            log.say(f"{self.label}: {self.step} iterations done, {duration(self.seconds)} of training")
            return self.outputs.final(log)
        except TrainingError as error:
            kept = checkpoint.checkpoints(self.directory / CHECKPOINTS)[:1]
            where = f"the last good checkpoint is {kept[0]}" if kept else "no checkpoint had been written yet"
            raise TrainingError(f"{error}; {where}") from error
        finally:
            log.close()

    def iterate(self) -> None:
        """One round of the game: every turn in order, each step on a fresh batch unless the turn says otherwise."""
        self._set_learning_rates()
        batch: tuple[Tensor, Tensor] | None = None
        for turn in self.game.order:
            batch = self._play(turn, batch)
        if self.ema is not None:
            self.ema.update()
        self.step += 1

    def save(self) -> Path:
        """Write a checkpoint; TrainingError, and no file, if losses or parameters are not finite."""
        self.guard.check()
        check_parameters(self.game.players, self.step)
        return checkpoint.save(self.directory / CHECKPOINTS, self.state_dict(), self.step, self.config.keep)

    def resume(self) -> None:
        """Continue from the newest valid checkpoint of the run directory, if it has any."""
        folder = self.directory / CHECKPOINTS
        state = checkpoint.newest_valid(folder, lambda text: print(f"warning: {text}", flush=True))
        if state is not None:
            self.load_state_dict(state)
            print(f"{self.label}: continues at step {self.step}", flush=True)
        elif checkpoint.checkpoints(folder):
            raise ValueError(f"resume: none of the checkpoints in {folder} is valid")

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
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave; ValueError in one line if it does not fit the configuration."""
        if state["device"] != self.device.type:
            raise ValueError(f"resume: the run was on {state['device']}; its random state does not fit {self.device}")
        if (state["ema"] is None) != (self.ema is None):
            raise ValueError("resume: ema cannot be switched on or off when a run is resumed")
        try:
            self.game.load_state_dict(state["game"])
            for player, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][player])
                for group in optimizer.param_groups:  # the settings may have changed; lr is set at each iteration
                    group.update({**self._options[player], "lr": group["lr"]})
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"resume: the checkpoint does not fit this configuration: {error}") from error
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.data.load_state_dict(state["data"])
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.step, self.seconds = state["step"], state["seconds"]

    @contextmanager
    def sampling(self) -> Iterator[Game]:
        """The game in eval mode with averaged weights and without gradients; random states are as before after it."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            self.game.eval()
            try:
                if self.ema is None:
                    yield self.game
                else:
                    with self.ema.applied():
                        yield self.game
            finally:
                self.game.train()

    def _sampling_players(self) -> nn.Module:
        players = self.game.players
        if "generator" in players:
            return players["generator"]
        return players

    def _optimizer_options(self, player: str) -> dict[str, Any]:
        return {"lr": self.config.lr, "betas": self.config.betas, **self.game.optimizer_options(player)}

    def _make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            player: torch.optim.Adam(module.parameters(), fused=True, **self._options[player])
            for player, module in self.game.players.items()
        }

    def _set_learning_rates(self) -> None:
        decay = 1 - self.step / self.config.iterations if self.config.lr_decay == "linear" else 1.0
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._options[player]["lr"] * decay

    def _play(self, turn: Turn, batch: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
        for _ in range(turn.steps):
            if batch is None or turn.fresh:
                n = self.config.batch_size
                batch = self.data.batch(n), self.game.draw_noise(n, self.noise)
            loss = self.game.step(turn.player, *batch, self.optimizers[turn.player])
            self.guard.watch(turn.player, loss.value, self.step + 1)
            self._losses[turn.player] = Loss(loss.value.detach(), loss.terms)  # without the graph
        return batch

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

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
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
        log.say(f"{stopped}\nresume with: {resume_command}")
        raise stopped
