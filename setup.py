"""Builds otkernels._C by CMake. CMakeLists.txt holds every source, flag and architecture.

OTKERNELS_CUDA=auto|1|0   build the CUDA sources where nvcc is found (default) | always | never
OTKERNELS_CMAKE_ARGS      further arguments for CMake, separated by spaces
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def say(message: str) -> None:
    print(f"otkernels: {message}", file=sys.stderr, flush=True)


def has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++").split()[0], "g++", "clang++"))


def missing_tools() -> list[str]:
    """What pip's build isolation brings and `python setup.py develop` finds in the environment or not at all."""
    missing = [name for name in ("cmake", "ninja") if not shutil.which(name)]
    return missing + ([] if importlib.util.find_spec("pybind11") else ["pybind11"])


class CMakeBuild(build_ext):
    """Runs CMake for the one extension; without a C++ compiler the package is pure Python and says so."""

    def build_extension(self, ext: Extension) -> None:
        cuda = os.environ.get("OTKERNELS_CUDA", "auto")
        if cuda not in ("auto", "1", "0"):
            raise SystemExit(f"otkernels: OTKERNELS_CUDA must be auto, 1 or 0, got {cuda!r}")
        if not has_compiler():
            if cuda == "1":
                raise SystemExit("otkernels: OTKERNELS_CUDA=1 needs a C++ compiler, and none was found")
            say("no C++ compiler found: installing without the compiled extension, ops run on their reference")
            ext.optional = True  # an editable install then does not look for the file
            return
        if missing_tools():
            raise SystemExit(
                f"otkernels: building needs {', '.join(missing_tools())}: pip install {' '.join(missing_tools())}"
            )
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve()
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DOTKERNELS_CUDA={cuda}",
            f"-DOTKERNELS_MODULE_DIR={target.parent}",
            *os.environ.get("OTKERNELS_CMAKE_ARGS", "").split(),
        ]  # fmt: skip
        target.parent.mkdir(parents=True, exist_ok=True)
        # A cache left by pip's isolated build names tools in a folder that is gone; objects are kept either way.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_C"], check=True)


# The license stands here because older setuptools (a fresh Python 3.11 has 65) reject its name in pyproject.toml.
setup(
    license="Apache-2.0",
    license_files=["LICENSE"],
    ext_modules=[Extension("otkernels._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
