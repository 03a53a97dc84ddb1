"""The scorer: its scores, what it keeps of the real images, and what it refuses before anything is trained."""

from __future__ import annotations

import errno
import os
from itertools import pairwise

import pytest
import torch
from torch import nn

from train.__main__ import main
from train.data.cache import cache_folder
from train.scores import protocol
from train.scores.config import ScoreConfig
from train.scores.extractors import Extractor, Features, Kind
from train.scores.images import Scorer, to_uint8
from train.scores.metrics import frechet_distance, kernel_distance, moments
from train.scores.neighbours import neighbour_scores

TITLES = ["inception_score", "inception_score_error", "fid", "kid", "precision", "recall", "density", "coverage"]


@pytest.fixture
def scorer(tiny, tmp_path):
    def make(real, n=40, **changes):
        config = ScoreConfig("inception", n=n, **changes)
        return Scorer(config, real, data="blocks", cache=str(tmp_path), extractor=tiny)

    return make


def test_rounding_is_to_the_nearest_of_256_levels():
    levels = torch.arange(256.0).view(1, 1, 16, 16)
    exact = levels / 127.5 - 1
    assert torch.equal(to_uint8(exact), levels.byte())
    assert torch.equal(to_uint8(exact + 0.4 / 127.5), levels.byte())
    assert to_uint8(torch.tensor([[-3.0, 3.0, torch.inf]])).tolist() == [[0, 255, 255]]
    with pytest.raises(ValueError, match="to_uint8: 1 of 2 images hold NaN"):
        to_uint8(torch.tensor([[0.0], [torch.nan]]))


def test_a_set_scored_against_itself(scorer, draw):
    real = draw(60)
    found = scorer(real, n=60).score([real])
    assert list(found) == TITLES
    assert abs(found["fid"]) < 1e-3
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)


def test_scores_do_not_depend_on_how_samples_come(scorer, draw):
    images, judge = draw(50), scorer(draw(60))
    batches = judge.score(images.split(7))
    assert judge.score([images]) == pytest.approx(batches, rel=1e-5)
    assert judge.score(lambda start, stop: images[start:stop]) == pytest.approx(batches, rel=1e-5)


def blurred(images, times):
    for _ in range(times):
        padded = nn.functional.pad(images.float(), [1] * 4, mode="reflect")
        images = nn.functional.avg_pool2d(padded, 3, stride=1).round().byte()
    return images


def test_scores_fall_with_noise_and_blur(efficientnet, draw):
    real = draw(24, cells=16, noise=0)
    noisy = [(real + torch.randn(real.shape) * size).clamp(0, 255).byte() for size in (8, 30, 90)]
    known = efficientnet.features(real).features

    def scores(images):
        features = efficientnet.features(images).features
        some, kid = features[:, :64], kernel_distance(features, known)[0]  # for speed
        near = neighbour_scores(known, features)
        return {"fid": frechet_distance(moments(known[:, :64]), moments(some)), "kid": kid, **near._asdict()}

    same = scores(real)
    assert abs(same["fid"]) < 1e-3
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    for worse in (noisy, [blurred(real, times) for times in (1, 2, 4)]):
        found = [same, *map(scores, worse)]
        print(found)
        for name in ("fid", "kid"):
            assert sorted(s[name] for s in found) == [s[name] for s in found], name
            assert found[1][name] > found[0][name] + 1e-3
        for name in ("precision", "density", "coverage"):
            assert sorted((s[name] for s in found), reverse=True) == [s[name] for s in found], name
            assert found[3][name] < 0.8 * found[0][name]


def test_scores_fall_as_modes_are_dropped(scorer, draw):
    kinds = [colour + draw(60, noise=5, cells=2) // 4 for colour in (0, 64, 128, 190)]
    judge = scorer(torch.cat(kinds), n=60)
    found = [judge.score([torch.cat([kind[: 60 // m] for kind in kinds[:m]])]) for m in (4, 3, 2, 1)]
    print(found)
    for name in ("fid", "kid"):
        assert all(one[name] < other[name] for one, other in pairwise(found)), name
    for name in ("recall", "coverage"):
        assert all(one[name] > other[name] for one, other in pairwise(found)), name


def test_real_images_pass_through_the_extractor_once(scorer, tiny, draw, capsys):
    real = draw(60)
    first = scorer(real)
    assert tiny._network.seen == 60
    second = scorer(real)
    assert tiny._network.seen == 60
    samples = draw(40)
    assert first.score([samples]) == second.score([samples])
    assert tiny._network.seen == 60 + 2 * 40
    scorer(real, n=30)  # radii of fewer
    scorer(real.flip(0))
    assert tiny._network.seen == 60 + 2 * 40 + 2 * 60
    assert "60 real images pass through tiny, once" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_damaged_statistics_are_made_again(scorer, tiny, draw, tmp_path, damage, capsys):
    real, samples = draw(60), draw(40)
    expected = scorer(real).score([samples])
    (file,) = (tmp_path / "scores").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "changed":
        content[-5] ^= 1
    file.write_bytes({"cut": content[:-100], "changed": content, "empty": b""}[damage])
    before = tiny._network.seen
    assert scorer(real).score([samples]) == expected
    assert tiny._network.seen == before + 60 + 40
    assert "is damaged and will be made again" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "scores").iterdir()] == [file.name]


class Pixels(nn.Module):
    """Images as their own features, as many as it takes for the threads of a decomposition to share it."""

    def forward(self, images):
        return Features(images.flatten(1).float(), None)


def test_statistics_do_not_depend_on_who_made_them(draw, tmp_path):
    """A run that is resumed with a cache that was cleared, or could not be written, has another number of threads."""
    kind = Kind("pixels", "FD[pixels]", "none", dim=192, resize="none", extra="none")
    extractor = Extractor(kind, Pixels(), "", torch.device("cpu"), 8)
    real, found, before = draw(40, shape=(3, 8, 8)), [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made = Scorer(ScoreConfig(n=20), real, data="some", cache=str(tmp_path / str(threads)), extractor=extractor)
        assert torch.get_num_threads() == threads
        found.append(made._real)
    torch.set_num_threads(before)
    one, two = found
    assert torch.equal(one.root, two.root)
    assert torch.equal(one.moments.covariance, two.moments.covariance)
    assert torch.equal(one.radii.third, two.radii.third)


def test_statistics_are_listed_and_cleared_with_the_decoded_images(tiny, draw, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder(None)
    Scorer(ScoreConfig("inception", n=20), draw(60), data="blocks", cache=str(folder), extractor=tiny)
    (file,) = (folder / "scores").iterdir()
    main(["data", "--cache"])
    assert f"scores/{file.name}  " in (text := capsys.readouterr().out)
    assert "statistics of 60 images, for scores with tiny  0 days old" in text
    assert "1 files in" in text
    main(["data", "--cache", "--clear", f"scores/{file.name}"])
    assert not file.exists()


def test_another_version_of_what_defines_the_scores_has_statistics_of_its_own(scorer, tiny, draw, monkeypatch):
    real = draw(60)
    scorer(real)
    known = protocol.versions()
    monkeypatch.setattr("train.scores.images.versions", lambda: {**known, "torch-fidelity": "9"})
    scorer(real)
    assert tiny._network.seen == 2 * 60


def test_statistics_that_cannot_be_kept_are_said_and_used(scorer, draw, tmp_path, capsys):
    (tmp_path / "scores").touch()
    real = draw(60)
    assert scorer(real).score([draw(40)])["fid"] > 0
    said = capsys.readouterr().err
    assert said.index("statistics of real images are not kept in") < said.index("real images pass through")


def test_statistics_that_cannot_be_written_in_the_end_are_said_and_used(scorer, draw, monkeypatch, capsys):
    def full(path, write):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("train.scores.cache.write_atomically", full)
    assert scorer(draw(60)).score([draw(40)])["fid"] > 0
    assert "are not kept in" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_said_before_the_pass(tiny, draw, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"the cache folder .* cannot be written"):
        Scorer(ScoreConfig("inception", n=20), draw(20), data="blocks", cache=str(tmp_path / "file"), extractor=tiny)
    assert tiny._network.seen == 0


def test_the_protocol_says_what_the_scores_depend_on(scorer, draw):
    real = draw(60)
    protocol = scorer(real, reference=50).protocol
    expected = {"n": 40, "reference": 50, "neighbours": 40, "size": [3, 32, 32], "data": "blocks", "ema": None}
    assert {name: protocol[name] for name in expected} == expected
    assert protocol["fingerprint"] != scorer(real.flip(0)).protocol["fingerprint"]


def test_few_images_are_warned_of(scorer, tiny, draw, capsys):
    scorer(draw(20), n=12)
    assert "no more than its" not in capsys.readouterr().err
    tiny.dim = 12
    scorer(draw(20), n=12)
    assert "FD[tiny] of 12 images, no more than its 12 features, is far above" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("real", "changes", "message"),
    [
        (torch.zeros(60, 3, 8, 8), {}, r"real images must be uint8 \[M, 1 or 3, H, W\], got torch.float32"),
        (torch.zeros(9, 3, 8, 8).byte(), {}, r"reference must lie in 10..9, the number of images of blocks, got 9"),
        (torch.zeros(60, 3, 8, 8).byte(), {"reference": 61}, r"reference must lie in 10..60.* got 61"),
    ],
)
def test_wrong_real_images_are_refused(real, changes, message, scorer):
    with pytest.raises(ValueError, match=message):
        scorer(real, **changes)


def test_wrong_samples_are_refused(scorer, draw):
    judge = scorer(draw(60))
    with pytest.raises(ValueError, match="n is 40, but there are only 39 samples"):
        judge.score([draw(39)])
    with pytest.raises(ValueError, match=r"samples must be uint8 \[n, 3, 32, 32\] like the real images"):
        judge.score([draw(40)[:, :, :8, :8]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 9}, "scores: n must be at least 10, got 9"),
        ({"reference": 0}, "scores: reference must be at least 10, got 0"),
        ({"batch_size": 0}, "scores: batch_size must be at least 1, got 0"),
        ({"extractor": "vgg"}, "scores: extractor must be"),
        ({"extractor": "inception", "weights": ""}, "scores: weights must name a file"),
        ({"weights": "file"}, "scores: weights needs an extractor"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ScoreConfig(**settings)


def test_weights_are_found_from_another_folder():
    assert os.path.isabs(ScoreConfig("inception", weights="file").weights)
