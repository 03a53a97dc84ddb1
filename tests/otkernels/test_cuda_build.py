"""What nvcc made of the CUDA kernels, read from the extension: no GPU is needed."""

from __future__ import annotations

import re
import subprocess

import pytest

from otkernels import _native

TRITON = pytest.importorskip("triton")
ARCHITECTURES = {"sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"}
PTX = {"sm_80", "sm_90"}  # for sm_87, and for what comes after sm_90 and has no image

pytestmark = pytest.mark.skipif(not _native.has_cuda(), reason="the extension was built without CUDA")


def cuobjdump(*options: str) -> str:
    command = [TRITON.knobs.nvidia.cuobjdump.path, *options, _native.extension.__file__]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def built() -> set[str]:
    return set(re.findall(r"\.(sm_\d+)a?\.cubin", cuobjdump("--list-elf")))


def test_every_architecture_is_built():
    assert built() >= ARCHITECTURES


def test_other_devices_have_ptx():
    assert set(re.findall(r"\.(sm_\d+)a?\.ptx", cuobjdump("--list-ptx"))) >= PTX


def test_no_kernel_spills():
    """The build itself fails on a spill; this also sees stack frames, of every kernel and architecture."""
    text = cuobjdump("--dump-resource-usage")
    usage = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert len(usage) >= 10 * len(ARCHITECTURES)
    assert not [name for name, _, stack, local in usage if int(stack) or int(local)]


def test_the_hopper_kernel_uses_hopper_s_units():
    """wgmma is HGMMA in machine code, the tensor memory accelerator's bulk copy UBLKCP: in all three modes, for one to
    four chunks that stay and for any number that stream. HGMMA without a type multiplies float16."""
    functions = re.split(r"\n\s*Function : ", cuobjdump("-arch", "sm_90a", "-sass"))
    hopper = [text for text in functions[1:] if re.search(r"\bHGMMA\b", text)]
    assert len(hopper) == 3 * 5
    assert all(re.search(r"\bUBLKCP\b", text) for text in hopper)
    kinds = {kind for text in hopper for kind in re.findall(r"HGMMA\.64x128x\d+\.F32(\.\w+)? ", text)}
    assert kinds == {"", ".BF16", ".TF32"}, kinds


def test_nothing_stands_between_the_products_of_a_tile():
    """One fence a tile, no wait and no branch behind it until all 16 products of two chunks are under way."""
    functions = re.split(r"\n\s*Function : ", cuobjdump("-arch", "sm_90a", "-sass"))
    (text,) = (
        text
        for text in functions[1:]
        if len(re.findall(r"HGMMA\.64x128x16\.F32 ", text)) == 16 and len(re.findall("WARPGROUP.ARRIVE", text)) == 1
    )
    tile = text[text.index("WARPGROUP.ARRIVE") : text.rindex("HGMMA")]
    assert not re.findall(r"\b(?:BRA|BAR|WARPGROUP\.DEPBAR|SYNCS\.PHASECHK\S*)\b", tile)


def test_the_portable_kernels_use_tensor_cores():
    functions = re.split(r"\n\s*Function : ", cuobjdump("-arch", "sm_80", "-sass"))
    products = {text.split()[0] for text in functions[1:] if re.search(r"\bHMMA\b", text)}
    assert {op for op in ("products", "forward", "backward") if any(op in name for name in products)} == {
        "products",
        "forward",
        "backward",
    }
