"""soft_forest in Triton: F(z) = (1/T) sum_t sum_l mu[t, l](z) leaf[t, l] and its gradients.

Layout    z [B, N, d], thresholds [B, T, 2^D - 1], leaves [B, T, 2^D, o], any strides. In heap order, leaf l passes at
          level v node ((2^D + l) >> (D - v)) - 1, and goes right where bit D - 1 - v of l is set.
Forward   a program owns BLOCK_N rows and BLOCK_O outputs and streams the T 2^D leaves: a tile of routing weights, made
          from z on the fly, times a tile of leaves.
Backward  h = mu <grad_out, leaf> / T per leaf, then upwards from level to level: at a node with shares p and q = 1 - p
          the gradient of z - threshold is q h(left) - p h(right), and h(node) = h(left) + h(right). No division by a
          share. A program holds a subtree of at most 5 levels; deeper trees repeat the step on the subtrees' roots.
Memory    never [N, T, 2^D, o]. The backward pass keeps one float per (row, node), about 2^24 at a time by slicing the
          rows, from which grad_z and grad_thresholds are plain sums. Leaf gradients: one partial sum per group of rows
          (a few), added in order. No atomics: every result is deterministic.
Numerics  float32 throughout, products without tf32; half inputs are widened, gradients rounded once. Shares are
          sigmoid(+-(z - threshold)), each with its own relative precision (exp: about |z - threshold| 2^-23), and 0
          below 1e-38.
Launch    no synchronisation; fixed by shapes and strides: capturable in a CUDA graph. Configurations are one fixed
          table (`python -m benchmarks.triton_resources`), not yet tuned or run on a GPU.
"""

# ruff: noqa: N803 (kernels name their sizes as the header does)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import on_device, parts, strides, supports

__all__ = ["soft_forest", "soft_forest_backward", "supports"]

# The inner size of each product is 16: without tensor cores Triton keeps both operands whole in registers.
# maxnreg: without it the assembler spills a register or two to fit one more block on a multiprocessor.
_FORWARD = {"BLOCK_N": 32, "BLOCK_L": 16, "num_warps": 4, "num_stages": 2, "maxnreg": 168}
_LEAVES = {"BLOCK_N": 16, "BLOCK_L": 32, "num_warps": 4, "num_stages": 2, "maxnreg": 255}
_CLIMB = {"BLOCK_N": 32, "BLOCK_O": 16, "num_warps": 4, "num_stages": 2, "maxnreg": 168}
_SUBTREE_LEVELS = 5
_WORKSPACE = 1 << 24  # floats


@triton.jit
def _share(z_rows, row_ok, thresholds, tree, node, node_ok, sign, nodes, d, szd, stt, sti):
    """sigmoid(sign (z - threshold)) of BLOCK_N rows at a list of nodes: the left share for sign 1, the right for -1."""
    feature = ((tree * nodes + node) % d).to(tl.int64)
    z = tl.load(z_rows[:, None] + feature[None, :] * szd, mask=row_ok[:, None] & node_ok[None, :], other=0.0)
    threshold = tl.load(thresholds + tree.to(tl.int64) * stt + node.to(tl.int64) * sti, mask=node_ok, other=0.0)
    return tl.sigmoid(sign[None, :] * (z.to(tl.float32) - threshold.to(tl.float32)[None, :]))


@triton.jit
def _routing(
    z_rows, row_ok, thresholds, leaf, leaf_ok, depth, d, szd, stt, sti, BLOCK_N: tl.constexpr, BLOCK_L: tl.constexpr
):
    """mu of BLOCK_N rows and BLOCK_L leaves, which count through all trees: leaf = t 2^D + l."""
    tree = leaf >> depth
    heap = leaf - (tree << depth) + (leaf * 0 + 1 << depth)
    nodes = (leaf * 0 + 1 << depth) - 1
    mu = tl.full([BLOCK_N, BLOCK_L], 1.0, tl.float32)
    for level in range(depth):
        node = (heap >> (depth - level)) - 1
        goes_right = (heap >> (depth - 1 - level)) & 1
        sign = (1 - 2 * goes_right).to(tl.float32)
        mu *= _share(z_rows, row_ok, thresholds, tree, node, leaf_ok, sign, nodes, d, szd, stt, sti)
    return mu


@triton.jit(do_not_specialize=["N", "row_blocks", "szb"])
def _forward_kernel(
    z, thresholds, leaves, out, N, T, depth, d, d_out, row_blocks, out_blocks,
    szb, szn, szd, stb, stt, sti, slb, slt, sll, slo,
    BLOCK_N: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    o = (program % out_blocks) * BLOCK_O + tl.arange(0, BLOCK_O)
    block = program // out_blocks
    rows = (block % row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    batch = block // row_blocks
    row_ok = rows < N
    z_rows = z + batch * szb + rows * szn
    thresholds += batch * stb
    leaves += batch * slb
    acc = tl.zeros([BLOCK_N, BLOCK_O], tl.float32)
    for start in range(0, T << depth, BLOCK_L):
        leaf = start + tl.arange(0, BLOCK_L)
        leaf_ok = leaf < (T << depth)
        mu = _routing(z_rows, row_ok, thresholds, leaf, leaf_ok, depth, d, szd, stt, sti, BLOCK_N, BLOCK_L)
        tree = leaf >> depth
        at = tree.to(tl.int64) * slt + (leaf - (tree << depth)).to(tl.int64) * sll
        mask = leaf_ok[:, None] & (o < d_out)[None, :]
        value = tl.load(leaves + at[:, None] + o[None, :] * slo, mask=mask, other=0.0)
        acc = tl.dot(mu, value.to(tl.float32), acc, input_precision="ieee")
    where = out + (batch * N + rows)[:, None] * d_out + o[None, :]
    tl.store(where, (acc / T).to(out.dtype.element_ty), mask=row_ok[:, None] & (o < d_out)[None, :])


@triton.jit(do_not_specialize=["B", "N", "row_blocks", "groups", "szb"])
def _leaves_kernel(
    grad_out, z, thresholds, partial, B, N, T, depth, d, d_out, row_blocks, groups, leaf_blocks, out_blocks,
    sgb, sgn, sgo, szb, szn, szd, stb, stt, sti,
    BLOCK_N: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """partial[group, b, leaf, o] = sum over the group's rows of mu grad_out / T."""
    program = tl.program_id(0).to(tl.int64)
    o = (program % out_blocks) * BLOCK_O + tl.arange(0, BLOCK_O)
    program = program // out_blocks
    leaf = ((program % leaf_blocks) * BLOCK_L).to(tl.int32) + tl.arange(0, BLOCK_L)
    leaf_ok = leaf < (T << depth)
    program = program // leaf_blocks
    group = program % groups
    batch = program // groups
    z += batch * szb
    thresholds += batch * stb
    grad_out += batch * sgb
    acc = tl.zeros([BLOCK_L, BLOCK_O], tl.float32)
    for block in range(group * row_blocks // groups, (group + 1) * row_blocks // groups):
        rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
        row_ok = rows < N
        mu = _routing(z + rows * szn, row_ok, thresholds, leaf, leaf_ok, depth, d, szd, stt, sti, BLOCK_N, BLOCK_L)
        g = tl.load(
            grad_out + rows[:, None] * sgn + o[None, :] * sgo, mask=row_ok[:, None] & (o < d_out)[None, :], other=0.0
        )
        acc = tl.dot(tl.trans(mu), g.to(tl.float32), acc, input_precision="ieee")
    where = partial + (((group * B + batch) * T << depth) + leaf)[:, None] * d_out + o[None, :]
    tl.store(where, acc / T, mask=leaf_ok[:, None] & (o < d_out)[None, :])


@triton.jit(do_not_specialize=["N", "row_blocks", "szb"])
def _climb_kernel(
    grad_out, z, thresholds, leaves, below, roots, grad_logit, N, T, depth, top, d, d_out, row_blocks, width,
    sgb, sgn, sgo, szb, szn, szd, stb, stt, sti, slb, slt, sll, slo,
    LEVELS: tl.constexpr, FROM_LEAVES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Gradients of z - threshold in the LEVELS levels of one subtree whose root lies on level `top`; h of its root."""
    program = tl.program_id(0).to(tl.int64)
    subtrees = T << top
    subtree = (program % subtrees).to(tl.int32)
    block = program // subtrees
    rows = (block % row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    batch = block // row_blocks
    row_ok = rows < N
    z_rows = z + batch * szb + rows * szn
    thresholds += batch * stb
    flat = batch * N + rows
    tree = subtree >> top
    within = subtree - (tree << top)
    leaf = (subtree << LEVELS) + tl.arange(0, 1 << LEVELS)  # the subtree's own, counted through all trees
    if FROM_LEAVES:
        leaf_ok = leaf >= 0
        h = tl.zeros([BLOCK_N, 1 << LEVELS], tl.float32)
        leaf_rows = leaves + batch * slb + tree.to(tl.int64) * slt + (leaf - (tree << depth)).to(tl.int64) * sll
        grad_rows = grad_out + batch * sgb + rows * sgn
        for start in range(0, d_out, BLOCK_O):
            o = start + tl.arange(0, BLOCK_O).to(tl.int64)
            o_ok = (o < d_out)[None, :]
            g = tl.load(grad_rows[:, None] + o[None, :] * sgo, mask=row_ok[:, None] & o_ok, other=0.0)
            v = tl.load(leaf_rows[:, None] + o[None, :] * slo, mask=leaf_ok[:, None] & o_ok, other=0.0)
            h = tl.dot(g.to(tl.float32), tl.trans(v.to(tl.float32)), h, input_precision="ieee")
        h *= _routing(z_rows, row_ok, thresholds, leaf, leaf_ok, depth, d, szd, stt, sti, BLOCK_N, 1 << LEVELS) / T
    else:
        h = tl.load(below + flat[:, None] * (subtrees << LEVELS) + leaf[None, :], mask=row_ok[:, None], other=0.0)
    for i in tl.static_range(LEVELS):
        here = tl.arange(0, 1 << (LEVELS - 1 - i))  # nodes of the subtree on this level, from the lowest level up
        node = (((here * 0 + 1 << top) + within) << (LEVELS - 1 - i)) - 1 + here
        trees = node * 0 + tree
        nodes = (node * 0 + 1 << depth) - 1
        sign = (here * 0 + 1).to(tl.float32)
        left, right = tl.split(tl.reshape(h, (BLOCK_N, 1 << (LEVELS - 1 - i), 2)))
        q = _share(z_rows, row_ok, thresholds, trees, node, node >= 0, -sign, nodes, d, szd, stt, sti)
        p = _share(z_rows, row_ok, thresholds, trees, node, node >= 0, sign, nodes, d, szd, stt, sti)
        at = (trees * nodes + node)[None, :]
        tl.store(grad_logit + flat[:, None] * width + at, q * left - p * right, mask=row_ok[:, None])
        h = left + right
    if top > 0:
        tl.store(roots + flat[:, None] * subtrees + subtree, h, mask=row_ok[:, None])


def soft_forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """F(z) = (1/T) sum_t sum_l mu[t, l](z) leaf[t, l]   (POT-GAN, section 4.2, Fig. 2).

    z [B, N, d], thresholds [B, T, 2^D - 1], leaves [B, T, 2^D, o] -> [B, N, o], all float32, float16 or bfloat16.
    """
    batch, n, d = z.shape
    trees, depth, d_out = _sizes(leaves)
    out = torch.empty(batch, n, d_out, dtype=z.dtype, device=z.device)
    if out.numel() == 0:
        return out
    row_blocks, block_o = triton.cdiv(n, _FORWARD["BLOCK_N"]), _block_o(d_out)
    out_blocks = triton.cdiv(d_out, block_o)
    with on_device(z.device):
        _forward_kernel[(batch * row_blocks * out_blocks,)](
            z, thresholds, leaves, out, n, trees, depth, d, d_out, row_blocks, out_blocks,
            *z.stride(), *thresholds.stride(), *leaves.stride(), BLOCK_O=block_o, **_FORWARD,
        )  # fmt: skip
    return out


def soft_forest_backward(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad_out * soft_forest(z, thresholds, leaves)): shapes and dtypes of z, thresholds, leaves."""
    batch, n, d = z.shape
    trees, depth, _ = _sizes(leaves)
    if batch * n == 0:
        return torch.empty_like(z), torch.zeros_like(thresholds), torch.zeros_like(leaves)
    with on_device(z.device):
        grad_leaves = _grad_leaves(grad_out, z, thresholds, leaves)
        grad_z = torch.empty(z.shape, dtype=z.dtype, device=z.device)
        grad_thresholds = torch.zeros(thresholds.shape, dtype=torch.float32, device=z.device)
        if depth == 0:
            return grad_z.zero_(), grad_thresholds.to(z.dtype), grad_leaves
        columns = trees * (2**depth - 1)
        width = triton.cdiv(columns, d) * d  # rows of whole periods of the features
        slice_rows = max(_CLIMB["BLOCK_N"], _WORKSPACE // (batch * width))
        for start in range(0, n, slice_rows):
            rows = slice(start, start + slice_rows)
            grad_logit = _grad_logit(grad_out[:, rows], z[:, rows], thresholds, leaves, width)  # [B, rows, width]
            grad_z[:, rows] = grad_logit.unflatten(-1, (-1, d)).sum(-2)
            grad_thresholds -= grad_logit[..., :columns].sum(1).view_as(grad_thresholds)
    return grad_z, grad_thresholds.to(z.dtype), grad_leaves


def _grad_leaves(grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    batch, n, d = z.shape
    trees, depth, d_out = _sizes(leaves)
    row_blocks, block_o = triton.cdiv(n, _LEAVES["BLOCK_N"]), _block_o(d_out)
    leaf_blocks, out_blocks = triton.cdiv(trees << depth, _LEAVES["BLOCK_L"]), triton.cdiv(d_out, block_o)
    groups = parts(batch * leaf_blocks * out_blocks, row_blocks, z.device)
    partial = torch.empty(groups, *leaves.shape, dtype=torch.float32, device=z.device)
    _leaves_kernel[(batch * groups * leaf_blocks * out_blocks,)](
        grad_out, z, thresholds, partial, batch, n, trees, depth, d, d_out, row_blocks, groups, leaf_blocks, out_blocks,
        *strides(grad_out), *z.stride(), *thresholds.stride(), BLOCK_O=block_o, **_LEAVES,
    )  # fmt: skip
    return partial.sum(0).to(leaves.dtype)


def _grad_logit(grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor, width: int) -> Tensor:
    """The gradient of z - threshold at node n of tree t in column t (2^D - 1) + n, zeros behind: [B, N, width]."""
    batch, n, d = z.shape
    trees, depth, d_out = _sizes(leaves)
    grad_logit = torch.empty(batch, n, width, dtype=torch.float32, device=z.device)
    grad_logit[..., trees * (2**depth - 1) :] = 0
    row_blocks = triton.cdiv(n, _CLIMB["BLOCK_N"])
    below = grad_logit  # not read by the first step, which starts from the leaves
    bottom = depth
    while bottom > 0:
        top = max(0, bottom - _SUBTREE_LEVELS)
        roots = grad_logit.new_empty(batch, n, trees << top) if top > 0 else grad_logit
        _climb_kernel[(batch * row_blocks * (trees << top),)](
            grad_out, z, thresholds, leaves, below, roots, grad_logit,
            n, trees, depth, top, d, d_out, row_blocks, width,
            *strides(grad_out), *z.stride(), *thresholds.stride(), *leaves.stride(),
            LEVELS=bottom - top, FROM_LEAVES=bottom == depth, **_CLIMB,
        )  # fmt: skip
        below, bottom = roots, top
    return grad_logit


def _sizes(leaves: Tensor) -> tuple[int, int, int]:
    """T, D, o."""
    trees, count, d_out = leaves.shape[1:]
    if trees * count >= 2**31:
        raise ValueError(f"soft_forest: leaves must be fewer than 2^31 in Triton, got {list(leaves.shape)}")
    return trees, count.bit_length() - 1, d_out


def _block_o(d_out: int) -> int:
    return min(128, max(16, triton.next_power_of_2(d_out)))
