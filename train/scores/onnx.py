"""Networks on the CPU by ONNX Runtime, which is up to twice as fast there as PyTorch, where it is installed."""

from __future__ import annotations

import importlib.util
import io
import warnings

import torch
from torch import Tensor, nn

PACKAGES = ("onnx", "onnxruntime")
OPSET = 17


def installed() -> bool:
    """Whether both packages are: PyTorch writes the network by the one, and the other runs it."""
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES)


class OnnxNetwork:
    """``network``, in eval mode on the CPU, as a session of ONNX Runtime with PyTorch's number of threads.

    network: maps one tensor [n, ...] to two [n, ...]. example: such a tensor; all but n is fixed by it. Results differ
    from the network's by rounding.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        import onnxruntime

        file = io.BytesIO()
        batch = {name: {0: "n"} for name in ("images", "features", "logits")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter that needs no further package: that it is the older one
            torch.onnx.export(
                network,
                (example,),
                file,  # type: ignore[arg-type]  # the older exporter takes it
                dynamo=False,
                input_names=["images"],
                output_names=["features", "logits"],
                dynamic_axes=batch,
                opset_version=OPSET,
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
        self._session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The network's two results."""
        features, logits = self._session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(features), torch.from_numpy(logits)
