"""Our scores and those of torch-fidelity's own command, on the same folders with the same weights."""

from __future__ import annotations

import pytest
from PIL import Image
from torch_fidelity import calculate_metrics

from train.scores import evaluate
from train.scores.config import FEWEST

PAIRS = {
    "fid": "frechet_inception_distance",
    "inception_score": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
    "precision": "precision",
    "recall": "recall",
}


def write(folder, images):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")
    return str(folder)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_same_folders_have_the_same_scores(inception_weights, draw, tmp_path, monkeypatch, read_scores):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    generated, real = write(tmp_path / "a", draw(FEWEST)), write(tmp_path / "b", draw(FEWEST, noise=40, cells=8))
    theirs = calculate_metrics(
        input1=generated,
        input2=real,
        cuda=False,
        feature_extractor="inception-v3-compat",  # for precision and recall, too
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=FEWEST,
        feature_extractor_weights_path=str(inception_weights),
        cache=False,
        verbose=False,
    )
    evaluate.evaluate_main([generated, "--against", real, "--weights", str(inception_weights)])
    ours = read_scores(tmp_path / "a.scores-inception.json")["scores"]
    print(ours, theirs)
    assert {name: ours[name] for name in PAIRS} == pytest.approx({a: theirs[b] for a, b in PAIRS.items()}, rel=1e-4)
