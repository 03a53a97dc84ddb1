"""What scores are called, and which figures are shown."""

from __future__ import annotations

import pytest

from train.report import names


@pytest.mark.parametrize(
    ("name", "distance", "title"),
    [
        ("fid", "FID", "FID"),
        ("kid", "FID", "KID"),
        ("fid", "FD-DINOv2", "FD-DINOv2"),
        ("fid", "FID[efficientnet-lite2]", "FID[efficientnet-lite2]"),
        ("inception_score", "FID[efficientnet-lite2]", "IS[efficientnet-lite2]"),
        ("inception_score", "FID[inception, other weights]", "IS[inception, other weights]"),
        ("kid", "FD-DINOv2", "KID[dinov2]"),
        ("precision", "FD-DINOv2", "Precision"),
        ("reverse_kl", None, "Reverse KL (nats)"),
        ("my_figure", "FD-DINOv2", "my figure"),
    ],
)
def test_a_score_by_another_extractor_says_so(name, distance, title):
    protocol = {"extractor": "dinov2", "frechet distance": distance}
    assert names.title(name, protocol if distance else {}) == title


def test_errors_and_what_never_changes_are_no_curves():
    shared = {"n": 10, "modes_covered": 8, "kid_floor": 0.5}
    rows = [
        {"step": 1, "seconds": 1, "kid": 2.0, "kid_error": 0.1, "own": 1, **shared},
        {"step": 2, "seconds": 2, "kid": 1.0, "kid_error": 0.2, "own": 2, "fid": 3.0, **shared},
    ]
    assert names.varying(rows) == ["fid", "kid", "modes_covered", "own"]
    assert names.constants(rows) == {"n": 10, "kid_floor": 0.5}


def test_a_single_row_has_figures_too():
    row = {"step": 1, "seconds": 1.0, "n": 10, "reverse_kl": 2.0, "reverse_kl_floor": 0.1, "own": 5}
    assert names.varying([row]) == ["reverse_kl", "own"]
    assert names.constants([row]) == {"n": 10, "reverse_kl_floor": 0.1}
