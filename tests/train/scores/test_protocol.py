"""Which scores may be compared."""

from __future__ import annotations

import pytest

from train.scores.protocol import check_same, versions

PROTOCOL = {
    "extractor": "inception",
    "weights sha256": "a" * 64,
    "n": 10000,
    "data": "cifar10",
    "split": "train",
    "fingerprint": "b" * 64,
    "size": [3, 32, 32],
    "ema": True,
    "versions": {"torch": "2.11.0", "torch-fidelity": "0.4.0", "otkernels": "0.1.0"},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extractor": "dinov2", "n": 50000}, "extractor inception and dinov2; n 10000 and 50000"),
        ({"weights sha256": "c" * 64}, "weights sha256 aaaaaaaaaaaa... and cccccccccccc..."),
        ({"fingerprint": "c" * 64, "data": "folder"}, "data cifar10 and folder; fingerprint bbbb"),
        ({"ema": False}, "ema True and False"),
        ({"size": [3, 64, 64]}, r"size \[3, 32, 32\] and \[3, 64, 64\]"),
        ({"versions": {"torch": "2.11.0", "torch-fidelity": "0.3.0"}}, "versions torch-fidelity 0.4.0 and 0.3.0$"),
        ({"new": 1}, "new nothing and 1"),
    ],
)
def test_unlike_protocols_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"scores: a and b cannot be compared: {message}") as error:
        check_same([PROTOCOL, PROTOCOL, {**PROTOCOL, **changes}], ["a", "c", "b"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": "folder", "split": None},  # the same images by another name
        {"ema": None},  # not known
        {"versions": {"torch": "2.12.0", "torch-fidelity": "0.4.0", "otkernels": "0.2.0"}},
    ],
)
def test_what_changes_no_score_may_differ(changes):
    check_same([PROTOCOL, {**PROTOCOL, **changes}])


@pytest.mark.parametrize("averaged", [(None, True, False), (True, None, False), (True, False, None)])
def test_each_two_of_several_protocols_are_compared(averaged):
    with pytest.raises(ValueError, match=r"ema True and False$"):
        check_same([{**PROTOCOL, "ema": ema} for ema in averaged])


def test_sets_without_a_fingerprint_are_known_by_their_names():
    unknown = {name: value for name, value in PROTOCOL.items() if name != "fingerprint"}
    with pytest.raises(ValueError, match="data cifar10 and celeba"):
        check_same([unknown, {**unknown, "data": "celeba"}])


def test_protocols_without_names_are_numbered():
    with pytest.raises(ValueError, match="scores: #1 and #2 cannot"):
        check_same([PROTOCOL, {**PROTOCOL, "n": 1}])


def test_one_protocol_or_none_is_fine():
    check_same([])
    check_same([PROTOCOL])


def test_versions_are_of_what_is_installed():
    assert {"torch", "torch-fidelity", "torchvision", "otkernels", "onnxruntime"} == versions().keys()
