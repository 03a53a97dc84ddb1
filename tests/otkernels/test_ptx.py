"""The inline assembly of csrc/common against CUTLASS's: the same instructions, each operand in the same place.

The emulator of tests/cpp/cuda_on_host replaces that assembly, so no C++ test sees a register that is out of its place.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")

COMMON = Path(__file__).resolve().parents[2] / "csrc" / "common"
DEFINED = [
    "__CUDA_ARCH__=900",
    "__CUDACC_VER_MAJOR__=13",
    "__CUDA_ARCH_FEAT_SM90_ALL",
    "CUTE_ARCH_CP_ASYNC_SM80_ENABLED",
    "CUTE_ARCH_LDSM_SM75_ACTIVATED",
    "CUTE_ARCH_MMA_SM80_ENABLED",
    "CUTE_ARCH_MMA_SM90A_ENABLED",
    "CUTE_ARCH_TMA_SM90_ENABLED",
    "CUDA_CP_ASYNC_ACTIVATED",
    "CUDA_CTA_RECONFIG_ACTIVATED",
]
NAMES = {  # one for what the two sides call differently; neither factor is negated, both have K innermost
    "d": "c", "acc": "c", "desc_a": "a", "desc_b": "b", "p": "add",
    "scaleA": "1", "scaleB": "1", "tnspA": "0", "tnspB": "0",
    "row": "to", "smem_int_ptr": "to", "dst": "matrix", "gmem_ptr": "from", "global_ptr": "from", "SizeInBytes": "16",
    "smem_addr": "barrier", "smem_int_mbar": "barrier", "arrive_count": "arrivals", "phase": "parity", "P1": "done",
    "transaction_bytes": "bytes", "load_bytes": "bytes", "N": "kPending", "RegCount": "kRegisters",
}  # fmt: skip


def cutlass() -> Path:
    files = distribution("nvidia-cutlass").files or []
    return next(Path(f.locate()).parents[1] for f in files if f.as_posix().endswith("include/cute/tensor.hpp"))


@cache
def preprocessed(path: Path) -> str:
    """The file with its own macros and conditions resolved, and none of its includes."""
    text = re.sub(r"^\s*#\s*include.*$", "", path.read_text(), flags=re.M)
    command = ["c++", "-E", "-P", "-x", "c++", *(f"-D{name}" for name in DEFINED), "-"]
    return subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout


def statement(text: str, start: int, opcode: str) -> str:
    """What stands between the parentheses of the first `asm` from `start` on that has this opcode."""
    for opening in re.compile(r"\basm\s*(?:volatile)?\s*\(").finditer(text, start):
        depth, quoted, at = 1, False, opening.end()
        while depth:
            quoted ^= text[at] == '"'
            depth += 0 if quoted else (text[at] == "(") - (text[at] == ")")
            at += 1
        if opcode in text[opening.end() : at]:
            return text[opening.end() : at - 1]
    raise AssertionError(f"no asm statement with {opcode}")


def plain(operand: str) -> str:
    """`int32_t(scale)` is scale, `shared_address(to)` is to, acc[4 + 1] and d05 are numbered acc5 and d5."""
    while match := re.fullmatch(r"(?:int|int32_t|shared_address)\s*\((.*)\)", operand.strip()):
        operand = match[1]
    if match := re.fullmatch(r"(\w+)\[([\d +]+)\]", operand.strip()):
        return f"{match[1]}{sum(int(part) for part in match[2].split('+'))}"
    return re.sub(r"^([a-z]+)0(\d)$", r"\1\2", operand.strip())


def instruction(text: str, opcode: str) -> str:
    """The instruction of an asm statement that starts with opcode, its operands by their names."""
    code, operands = re.match(r'((?:\s*"(?:[^"\\]|\\.)*")+)(.*)', text, flags=re.S).groups()
    code = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', code)).replace("\\n", " ").replace("\\t", " ")
    listed = [plain(o) for o in re.findall(r'"[=+]?[a-z]"\s*\(((?:[^()]|\([^()]*\))*)\)', operands)]
    (one,) = [part.strip() for part in re.split(r"[;{]\s(?=\s*[.@a-z])|;", code) if opcode in part]
    one = re.sub(r"^@p\s+", "", one)
    one = re.sub(r"%(\d+)", lambda match: listed[int(match[1])], one)
    name, _, rest = one.partition(" ")
    rest = re.sub(r"([A-Za-z_]\w*?)(\d*)\b", lambda m: NAMES.get(m[0]) or NAMES.get(m[1], m[1]) + m[2], rest)
    if name.startswith("ldmatrix"):  # whose shape and number of matrices stand in either order
        name = ".".join(sorted(name.split(".")))
    return name + " " + re.sub(r"\s", "", rest)


MMA, LDSM, GMMA = "cute/arch/mma_sm80.hpp", "cute/arch/copy_sm75.hpp", "cute/arch/mma_sm90_gmma.hpp"
COPY, CP_ASYNC, BULK = "cute/arch/copy_sm80.hpp", "cutlass/arch/memory_sm80.h", "cute/arch/copy_sm90_tma.hpp"
BARRIER, REGISTERS = "cutlass/arch/barrier.h", "cutlass/arch/reg_reconfig.h"
CASES = [  # our file and a place in it, theirs, the opcode
    ("mma.h", "multiply_add<Bf16>", MMA, "struct SM80_16x8x16_F32BF16BF16F32_TN", "mma.sync"),
    ("mma.h", "multiply_add<Fp16>", MMA, "struct SM80_16x8x16_F32F16F16F32_TN", "mma.sync"),
    ("mma.h", "multiply_add<Tf32>", MMA, "struct SM80_16x8x8_F32TF32TF32F32_TN", "mma.sync"),
    ("mma.h", "load_matrices", LDSM, "struct SM75_U32x4_LDSM_N", "ldmatrix"),
    ("mma.h", "copy_async16", CP_ASYNC, "struct cp_async<SizeInBytes, CacheOperation::Global>", "cp.async.cg"),
    ("mma.h", "commit_copies", COPY, "cp_async_fence", "cp.async.commit_group"),
    ("mma.h", "wait_copies", COPY, "cp_async_wait", "cp.async.wait_group"),
    ("hopper.h", "<Element, Bf16>", GMMA, "struct MMA_64x128x16_F32BF16BF16_SS", "wgmma.mma_async"),
    ("hopper.h", "<Element, Fp16>", GMMA, "struct MMA_64x128x16_F32F16F16_SS", "wgmma.mma_async"),
    ("hopper.h", "else\n", GMMA, "struct MMA_64x128x8_F32TF32TF32_SS_TN", "wgmma.mma_async"),
    ("hopper.h", "begin_products", GMMA, "warpgroup_arrive", "wgmma.fence"),
    ("hopper.h", "commit_products", GMMA, "warpgroup_commit_batch", "wgmma.commit_group"),
    ("hopper.h", "wait_earlier_products", GMMA, "warpgroup_wait", "wgmma.wait_group"),
    ("hopper.h", "init_barrier", BARRIER, "void init(ValueType const*", "mbarrier.init"),
    ("hopper.h", "publish_barriers", BARRIER, "fence_barrier_init", "fence.mbarrier_init"),
    ("hopper.h", "void arrive(", BARRIER, "void arrive(ValueType const* smem_ptr)", "mbarrier.arrive"),
    (
        "hopper.h",
        "arrive_expecting",
        BARRIER,
        "void arrive_and_expect_tx(ValueType const*",
        "mbarrier.arrive.expect_tx",
    ),
    ("hopper.h", "wait_barrier", BARRIER, "bool try_wait(ValueType const*", "mbarrier.try_wait"),
    ("hopper.h", "copy_bulk", BULK, "struct SM90_BULK_COPY_G2S", "cp.async.bulk"),
    ("hopper.h", "fewer_registers", REGISTERS, "warpgroup_reg_dealloc", "setmaxnreg"),
    ("hopper.h", "more_registers", REGISTERS, "warpgroup_reg_alloc", "setmaxnreg"),
]


@pytest.mark.parametrize(("ours", "place", "theirs", "their_place", "opcode"), CASES)
def test_instruction_and_its_operands_are_cutlass_s(ours, place, theirs, their_place, opcode):
    mine, other = preprocessed(COMMON / ours), preprocessed(cutlass() / theirs)
    expected = instruction(statement(other, other.index(their_place), opcode), opcode)
    assert instruction(statement(mine, mine.index(place), opcode), opcode) == expected


def test_every_asm_statement_is_compared_or_known():
    """cp.async of 4 bytes exists in CUTLASS with a prefetch hint alone; its form is that of 16 bytes."""
    count = sum(len(re.findall(r"\basm\b", preprocessed(COMMON / name))) for name in ("mma.h", "hopper.h"))
    ordering = 1  # of the accumulators after a wait: an empty statement
    assert count == len(CASES) + ordering + 1
