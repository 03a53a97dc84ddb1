"""Prints the include folders of CUTLASS and of CUDA, a semicolon between two; or says what is missing and exits with 1.

CUTLASS is the package nvidia-cutlass. CUDA is the packages nvidia-cuda-runtime, -crt and -cccl of version 13, or else a
toolkit: that of $CUDA_HOME, of nvcc on the path or in /usr/local/cuda.
"""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def include_folder(package: str, header: str) -> Path | None:
    """The folder from which `header` is included, if the package is installed and has it."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return None
    found = [Path(file.locate()) for file in files if file.as_posix().endswith("include/" + header)]
    return found[0].parents[header.count("/")] if found else None


def is_whole(folder: Path) -> bool:
    """Whether it has what CuTe includes of CUDA."""
    standard = [folder / "cccl/cuda/std/cassert", folder / "cuda/std/cassert"]
    return (
        all((folder / name).is_file() for name in ("cuda_runtime.h", "cuda_fp16.h", "crt/host_config.h", "nv/target"))
    ) and any(path.is_file() for path in standard)


cutlass = include_folder("nvidia-cutlass", "cute/tensor.hpp")
nvcc = shutil.which("nvcc")
candidates = [
    include_folder("nvidia-cuda-runtime", "cuda_runtime.h"),
    Path(os.environ["CUDA_HOME"]) / "include" if "CUDA_HOME" in os.environ else None,
    Path(nvcc).resolve().parents[1] / "include" if nvcc else None,
    Path("/usr/local/cuda/include"),
]
cuda = next((folder for folder in candidates if folder and is_whole(folder)), None)
if not cutlass or not cuda:
    missing = [] if cutlass else ["nvidia-cutlass"]
    missing += [] if cuda else ["nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl"]
    sys.exit("pip install " + " ".join(missing))
print(cutlass, cuda, cuda / "cccl", sep=";")
