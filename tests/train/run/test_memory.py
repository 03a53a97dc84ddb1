"""What there is, from the system's files; what a run needs at least, against what it takes; refusals by name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from models.export import save_game
from models.games import GAMES
from models.games.potgan import ForestConfig, PotGanConfig
from models.games.wgan_gp import WganGpConfig
from models.networks import NetworkConfig
from train.run import memory
from train.run.memory import available_bytes, batch_bytes, check_fits, check_room, game_bytes

MLP = NetworkConfig("mlp", width=16, depth=2, noise_dim=3)


def builder(name, shape):
    return lambda config: GAMES[name].build(config, shape)


def on_meta(name, config, shape):
    return memory._on_meta(builder(name, shape), config)


def small(name):
    kind = GAMES[name].Config
    return kind(networks=replace(kind().networks, name="mlp", width=16, depth=2, noise_dim=3))


def tree(values) -> int:
    """Bytes of all tensors in nested mappings."""
    if isinstance(values, torch.Tensor):
        return values.numel() * values.element_size()
    return sum(map(tree, values.values())) if isinstance(values, dict) else 0


@pytest.mark.parametrize("name", list(GAMES))
def test_a_game_takes_no_less_than_the_bound_when_it_plays(name):
    config = small(name)
    torch.manual_seed(0)
    game = GAMES[name].build(config, (2,))
    optimizers = {player: game.optimizer(module.parameters(), lr=1e-3) for player, module in game.players.items()}
    real, noise = torch.randn(8, 2), game.draw_noise(8)
    for turn in game.order:
        game.step(turn.player, real, noise, optimizers[turn.player])
    gradients = sum(tree(p.grad) for p in game.players.parameters() if p.grad is not None)
    steps = sum(4 for optimizer in optimizers.values() for _ in optimizer.state)  # one float32 count a parameter
    taken = tree({**dict(game.named_parameters()), **dict(game.named_buffers())}) + gradients
    taken += sum(tree(dict(optimizer.state)) for optimizer in optimizers.values()) - steps
    bound = game_bytes(on_meta(name, config, (2,)))
    assert bound == taken
    averaged = tree(dict(game.sampling_players.state_dict()))
    assert game_bytes(on_meta(name, config, (2,)), ema=True) == taken + averaged


def test_a_batch_keeps_what_autograd_keeps():
    """Real samples, samples, and the inputs of three linear layers; saved tensors of autograd are no fewer."""
    config, n = WganGpConfig(MLP), 10
    bound = batch_bytes(on_meta("wgan-gp", config, (2,)), (2,), n)
    assert bound == 4 * n * (2 + 2 + 3 + 16 + 16)
    game = GAMES["wgan-gp"].build(config, (2,))
    kept: dict[int, torch.Tensor] = {}
    weights = {parameter.data_ptr() for parameter in game.parameters()}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        samples = game.sample(game.draw_noise(n))
    assert tree(kept) + tree(samples) + 4 * n * 2 >= bound


@pytest.mark.parametrize("shape", [(2,), (1, 16, 16), (3, 32, 32)])
@pytest.mark.parametrize("name", list(GAMES))
def test_what_fits_is_never_refused_and_the_random_state_stays(name, shape):
    kind = GAMES[name].Config
    config = small(name) if len(shape) == 1 else kind(networks=replace(kind().networks, name="dcgan", width=8))
    before = torch.get_rng_state()
    check_fits(builder(name, shape), config, shape, 64, "cpu", ema=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "batch", "culprit"),
    [
        ({}, 10**10, "batch_size 10000000000"),
        ({}, 10**30, f"batch_size {10**30}"),
        ({"networks": replace(MLP, width=10**6)}, 8, "game.networks.width 1000000"),
        ({"networks": replace(MLP, width=10**10)}, 8, "game.networks.width 10000000000"),
        ({"networks": replace(MLP, width=10**30)}, 8, f"game.networks.width {10**30}"),
        ({"networks": replace(MLP, noise_dim=10**12)}, 8, f"game.networks.noise_dim {10**12}"),
        ({"forest": ForestConfig(trees=10**10)}, 8, "game.forest.trees 10000000000"),
        ({"forest": ForestConfig(trees=10**10, inner_steps=7)}, 8, "game.forest.trees 10000000000"),  # 7 costs nothing
        ({"forest": ForestConfig(trees=10**18)}, 8, f"game.forest.trees {10**18}"),
        ({"networks": replace(MLP, width=10**30), "forest": ForestConfig(trees=10**18)}, 8, "the game"),
    ],
)
def test_what_cannot_fit_is_refused_by_its_setting_and_quickly(changes, batch, culprit):
    nn.init.normal_(torch.empty(1, device="meta"))  # PyTorch imports what it needs, as the first optimizer would
    config = PotGanConfig(**{"networks": MLP, **changes})
    began = time.process_time()
    with pytest.raises(
        ValueError, match=rf"^train: {culprit} needs at least [\d.]+ [kMGTPE]B of memory, .* are available$"
    ):
        check_fits(builder("potgan", (2,)), config, (2,), batch, "cpu")
    assert time.process_time() - began < 1.0  # 15 ms on an idle core: building it would never end


def test_a_game_that_cannot_be_built_is_checked_for_its_batch_alone(tmp_path):
    config = PotGanConfig(MLP, encoder=str(tmp_path / "missing"))
    check_fits(builder("potgan", (2,)), config, (2,), 8, "cpu")
    with pytest.raises(ValueError, match="batch_size 1000000000000 needs at least 8 TB of memory"):
        check_fits(builder("potgan", (2,)), config, (2,), 10**12, "cpu")


def test_an_encoder_from_disk_counts_too(tmp_path):
    vae = GAMES["vae"].build(GAMES["vae"].Config(networks=MLP), (2,))
    save_game(tmp_path, "vae", vae, (2,))
    with_encoder = game_bytes(on_meta("potgan", PotGanConfig(MLP, encoder=str(tmp_path)), (2,)))
    encoder = tree(dict(vae.vae.encoder.state_dict()))
    assert with_encoder > encoder > 0
    check_fits(builder("potgan", (2,)), PotGanConfig(MLP, encoder=str(tmp_path)), (2,), 8, "cpu")


def test_the_average_is_counted(monkeypatch):
    config = WganGpConfig(MLP)
    without = game_bytes(on_meta("wgan-gp", config, (2,))) + batch_bytes(on_meta("wgan-gp", config, (2,)), (2,), 8)
    monkeypatch.setattr(memory, "available_bytes", lambda device: without)
    check_fits(builder("wgan-gp", (2,)), config, (2,), 8, "cpu")
    with pytest.raises(ValueError, match="needs at least"):
        check_fits(builder("wgan-gp", (2,)), config, (2,), 8, "cpu", ema=True)


def test_room():
    check_room("train: x 1", available_bytes("cpu") // 2, "cpu")
    with pytest.raises(ValueError, match=r"^data: limit 9 needs at least 8 PB of memory, .*B are available$"):
        check_room("data: limit 9", 8e15, "cpu")


def test_an_address_limit_counts():
    program = """
import resource
from train.run.memory import available_bytes
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, used + 50_000_000))
print(available_bytes("cpu"))
"""
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert 0 < int(run.stdout) <= 50_000_000


@pytest.fixture
def no_limits(monkeypatch):
    monkeypatch.setattr(memory, "_limit_bytes", lambda: iter(()))
    monkeypatch.setattr(memory, "_system_bytes", lambda: 10**15)


def fake_files(monkeypatch, tmp_path, groups: str, files: dict[str, str]) -> None:
    """The process's control groups as ``groups`` says, their files below tmp_path."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *rest: groups if str(path) == "/proc/self/cgroup" else read(path, *rest)
    )


def test_the_tightest_group_of_version_2_counts_without_its_page_cache(tmp_path, monkeypatch, no_limits):
    files = {
        "memory.max": "max\n",
        "a/memory.max": "4000\n",
        "a/memory.current": "3000\n",
        "a/memory.stat": "anon 1000\nactive_file 500\ninactive_file 200\n",
        "a/b/memory.max": "max\n",
    }
    fake_files(monkeypatch, tmp_path, "0::/a/b\n", files)
    assert available_bytes("cpu") == 4000 - 3000 + 700


def test_a_group_of_version_1_counts(tmp_path, monkeypatch, no_limits):
    files = {
        "memory/a/memory.limit_in_bytes": "4000\n",
        "memory/a/memory.usage_in_bytes": "4500\n",
        "memory/a/memory.stat": "active_file 100\n",
    }
    fake_files(monkeypatch, tmp_path, "5:cpu:/a\n4:memory:/a\n0::/\n", files)
    assert available_bytes("cpu") == 0  # used up: not less than nothing


def test_without_groups_or_limits_the_system_s_figure_counts(tmp_path, monkeypatch, no_limits):
    fake_files(monkeypatch, tmp_path, "", {})
    assert available_bytes("cpu") == 10**15


def test_the_system_has_what_it_says():
    pages = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    assert 0 < memory._system_bytes() <= 2 * pages  # swap included


@pytest.mark.gpu
def test_a_gpu_s_memory_counts_what_pytorch_holds_unused():
    before = available_bytes("cuda")
    block = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    assert available_bytes("cuda") <= before - 2**28
    del block
    assert available_bytes("cuda") == before


def test_an_encoder_that_was_handed_over_is_left_as_it_was():
    """What counts the bytes looks at the layers of the very encoder that is played with later."""
    config = replace(small("potgan"), networks=replace(MLP, name="dcgan", width=8))
    vae = GAMES["vae"].build(GAMES["vae"].Config(networks=config.networks), (1, 16, 16)).eval()

    def build(game_config):
        return GAMES["potgan"].build_on(game_config, (1, 16, 16), {"vae": vae})

    check_fits(build, config, (1, 16, 16), 8, "cpu")
    assert not any(module._forward_pre_hooks or module.training for module in vae.modules())
    assert not any(parameter.is_meta for parameter in vae.parameters())
