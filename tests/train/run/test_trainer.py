"""The trainer: turns in order, resume that equals never having stopped, and runs that end early."""

from __future__ import annotations

import errno
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from train.errors import Stopped, TrainingError
from train.run import snapshot
from train.run.log import RunLog
from train.scores import toy


@pytest.fixture(autouse=True)
def cheap_metrics(monkeypatch):
    """The reverse KL of 10,000 points takes seconds; these tests are about the trainer."""
    monkeypatch.setattr(toy, "toy_metrics", lambda samples, target: {"reverse_kl": float(samples.mean())})


def same(ours, theirs) -> bool:
    """Equality to the last bit of nested states."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def state(trainer) -> dict:
    return snapshot.take(trainer.loop, trainer.source, 0.0)


def test_resume_equals_never_having_stopped(make_trainer):
    whole = make_trainer("whole", lr_decay="linear")
    for _ in range(10):
        whole.loop.iterate()

    first = make_trainer("parts", lr_decay="linear")
    for _ in range(4):
        first.loop.iterate()
    first.save()
    torch.manual_seed(999)  # nothing may depend on the state of the process that resumes
    second = make_trainer("parts", lr_decay="linear")
    second.resume()
    assert second.loop.step == 4
    assert same(state(second), state(first))
    for _ in range(6):
        second.loop.iterate()
    assert same(state(second), state(whole))


def test_optimizer_settings_can_change_when_a_run_is_resumed(make_trainer):
    trainer = make_trainer()
    trainer.loop.iterate()
    trainer.save()
    resumed = make_trainer(betas=(0.1, 0.2), lr=0.25)
    resumed.resume()
    resumed.loop.iterate()
    for player, lr in (("critic", 0.5), ("generator", 0.25)):
        (group,) = resumed.loop.optimizers[player].param_groups
        assert (group["betas"], group["lr"]) == ((0.1, 0.2), lr)


def test_showing_and_saving_do_not_change_the_run(make_trainer):
    quiet = make_trainer("quiet", log_every=100, sample_every=100, checkpoint_every=100)
    busy = make_trainer("busy", log_every=1, sample_every=2, checkpoint_every=3)
    torch.manual_seed(5)
    quiet.run("")
    torch.manual_seed(5)
    busy.run("")
    assert same(state(quiet), state(busy))


def test_a_run_leaves_its_files_and_rows(make_trainer):
    trainer = make_trainer(log_every=5, sample_every=5)
    trainer.run("")
    for name in ("samples/00000005.png", "samples.png", "losses.png", "report.html", "export/model.safetensors"):
        assert (trainer.directory / name).stat().st_size > 0, name
    rows = [json.loads(line) for line in (trainer.directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 5, 10, 10]
    terms = ("loss", "size", "lr")
    expected = {"step", "seconds", *(f"{player}/{term}" for player in ("critic", "generator") for term in terms)}
    assert set(rows[0]) == expected
    assert rows[0]["critic/lr"] == 0.5
    assert set(rows[1]) == {"step", "metrics/reverse_kl"}
    assert list((trainer.directory / "tensorboard").iterdir())


def test_rows_past_the_checkpoint_are_written_once(make_trainer):
    trainer = make_trainer(log_every=1, checkpoint_every=4, sample_every=100)
    trainer.loop.game.poison_at = 3 * 6  # three steps an iteration: the first turn of iteration 7
    with pytest.raises(TrainingError):
        trainer.run("")
    again = make_trainer(log_every=1, checkpoint_every=4, sample_every=100)
    again.resume()
    again.run("")
    rows = [json.loads(line) for line in (again.directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(1, 11), 10]


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(make_trainer):
    trainer = make_trainer(checkpoint_every=2)
    trainer.loop.game.poison_at = 3 * 4 + 2  # the generator's turn of iteration 5
    with pytest.raises(
        TrainingError, match=r"^train: the loss of player 'generator' is not finite at step 5; .*step_00000004.pt"
    ):
        trainer.run("")
    resumed = make_trainer(checkpoint_every=2)
    resumed.resume()
    assert resumed.loop.step == 4
    assert all(value.isfinite().all() for value in resumed.loop.game.state_dict().values())


def test_samples_that_are_not_finite_are_a_failure_of_training(make_trainer):
    trainer = make_trainer(sample_every=3)
    sample = trainer.loop.game.sample
    trainer.loop.game.sample = lambda noise: sample(noise) if trainer.loop.game.training else sample(noise) * torch.nan
    with pytest.raises(TrainingError, match=r"^train: the samples at step 3 are not finite; no checkpoint had been"):
        trainer.run("")


def test_parameters_that_are_not_finite_are_never_saved(make_trainer):
    trainer = make_trainer()
    trainer.loop.iterate()
    with torch.no_grad():
        trainer.loop.game.players["critic"].weight[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="parameters of player 'critic' are not finite after step 1"):
        trainer.save()
    assert not (trainer.directory / "checkpoints").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_iteration_saves_and_says_how_to_resume(make_trainer, capsys, number):
    trainer = make_trainer()
    step, handler = trainer.loop.game.step, signal.getsignal(signal.SIGINT)

    def signalled(player, *rest):
        if trainer.loop.step == 3 and player == "critic":
            os.kill(os.getpid(), number)
            trainer.loop.game.step = step  # once: a second signal would leave at once
        return step(player, *rest)

    trainer.loop.game.step = signalled
    with pytest.raises(Stopped) as stopped:
        trainer.run("the command")
    assert stopped.value.status == 128 + number
    assert "resume with: the command" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = make_trainer()
    resumed.resume()
    assert resumed.loop.step == 4  # the iteration at hand was finished
    assert [player for player, _, _ in trainer.loop.game.calls][-1] == "generator"


@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM])
def test_sigint_after_another_signal_leaves_at_once_and_sigterm_does_not(make_trainer, again):
    """A table passes SIGTERM on to runs that have it already, from who ended all processes of the job."""
    trainer = make_trainer()
    step = trainer.loop.game.step

    def signalled(player, *rest):
        if trainer.loop.step == 3 and player == "critic":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), again)
        return step(player, *rest)

    trainer.loop.game.step = signalled
    with pytest.raises(KeyboardInterrupt if again == signal.SIGINT else Stopped):
        trainer.run("")
    assert trainer.loop.step == (3 if again == signal.SIGINT else 4)


def test_a_signal_that_the_user_ignores_stays_ignored(make_trainer):
    """nohup leaves SIGHUP ignored: the run goes on."""
    trainer = make_trainer()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    step = trainer.loop.game.step

    def signalled(player, *rest):
        os.kill(os.getpid(), signal.SIGHUP)
        return step(player, *rest)

    trainer.loop.game.step = signalled
    try:
        trainer.run("")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert trainer.loop.step == 10


def test_a_run_can_play_in_another_thread_than_the_main_one(make_trainer):
    trainer = make_trainer()
    with ThreadPoolExecutor(1) as pool:
        values = pool.submit(trainer.run, "").result()
    assert trainer.loop.step == 10
    assert "reverse_kl" in values


def test_a_terminal_that_is_gone_does_not_keep_a_run_from_saving(make_trainer, monkeypatch):
    trainer = make_trainer()
    step = trainer.loop.game.step

    def hung_up(player, *rest):
        if trainer.loop.step == 3:
            os.kill(os.getpid(), signal.SIGHUP)
            trainer.loop.game.step = step

            def gone(*_, **__):
                raise OSError(errno.EIO, "Input/output error")

            monkeypatch.setattr(RunLog, "tick", gone)
            monkeypatch.setattr(RunLog, "say", gone)
        return step(player, *rest)

    trainer.loop.game.step = hung_up
    with pytest.raises(Stopped):
        trainer.run("")
    assert (trainer.directory / "checkpoints" / "step_00000004.pt").exists()


def test_memory_that_runs_out_names_the_last_checkpoint(make_trainer):
    trainer = make_trainer(checkpoint_every=2)
    step = trainer.loop.game.step

    def exhausted(player, *rest):
        if trainer.loop.step == 4:
            raise MemoryError
        return step(player, *rest)

    trainer.loop.game.step = exhausted
    with pytest.raises(TrainingError, match=r"memory.*; the last good checkpoint is .*step_00000004\.pt$"):
        trainer.run("")


def test_an_error_of_the_program_itself_stays_what_it_is(make_trainer):
    trainer = make_trainer()

    def broken(player, *rest):
        raise RuntimeError("a mistake in the game")

    trainer.loop.game.step = broken
    with pytest.raises(RuntimeError, match=r"^a mistake in the game$"):
        trainer.run("")


def test_a_checkpoint_of_another_shape_is_one_clear_error(make_trainer):
    trainer = make_trainer()
    trainer.save()
    other = make_trainer()
    other.loop.game.players["critic"] = torch.nn.Linear(2, 5)
    with pytest.raises(ValueError, match="the checkpoint does not fit this configuration"):
        other.resume()
    with pytest.raises(ValueError, match="ema cannot be switched"):
        make_trainer(ema=0.0).resume()
