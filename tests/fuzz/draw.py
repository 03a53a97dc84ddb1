"""What a random problem is made of: sizes, values and memory layouts. Every choice is one call of `Choices.pick`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
INF, NAN = math.inf, math.nan


class Choices(Protocol):
    """Where choices come from: a seed here, hypothesis in test_fuzz.py. The first option is the plainest."""

    generator: torch.Generator
    may_be_large: bool

    def pick(self, name: str, options: Sequence[T]) -> T: ...


class Seeded:
    """Choices that follow from a text, and are kept for the report of a failure."""

    may_be_large = True

    def __init__(self, key: str) -> None:
        self._random = random.Random(key)
        self.generator = torch.Generator().manual_seed(self._random.getrandbits(63))
        self.picked: dict[str, object] = {}

    def pick(self, name: str, options: Sequence[T]) -> T:
        self.picked[name] = choice = self._random.choice(options)
        return choice


def seldom(choices: Choices, name: str, one_in: int) -> bool:
    return choices.pick(name, (False,) * (one_in - 1) + (True,))


def randn(choices: Choices, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=choices.generator, dtype=torch.float64).to(dtype)


# Around the kernels' vectors (4, 8, 16), panels (8 to 32 columns) and tasks (64 to 128 rows).
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 127, 128, 129, 200)
DIMENSIONS = (1, 2, 3, 4, 5, 6, 8, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 100, 130)
LEADS = ((), (), (), (1,), (2,), (5,), (2, 3), (0,), (2, 0))


def within(most: int, *sizes: int) -> tuple[int, ...]:
    """The sizes, the largest of them halved until their product is at most `most`."""
    found = list(sizes)
    while math.prod(found) > most:
        found[found.index(max(found))] //= 2
    return tuple(found)


# ---- values of x [..., N, D] and y [..., M, D]: `r` draws normal numbers

Draw = Callable[..., Tensor]
Shape = tuple[int, ...]


def _copies(r: Draw, xs: Shape, ys: Shape) -> tuple[Tensor, Tensor]:
    """A few points of y stand there many times, and x are some of them, or near."""
    y = r(*ys)
    y = y[..., torch.arange(ys[-2]) % 3, :] if ys[-2] else y
    x = y[..., torch.arange(xs[-2]) * 7 % max(1, ys[-2]), :] if ys[-2] else r(*xs)
    return torch.where(r(*xs[:-1], 1) > 0, x, x + r(*xs)), y


def _clusters(r: Draw, xs: Shape, ys: Shape) -> tuple[Tensor, Tensor]:
    return 1e3 * r(*xs[:-1], 1).sign() + 1e-3 * r(*xs), 1e3 * r(*ys[:-1], 1).sign() + 1e-3 * r(*ys)


def _scaled(scale: float) -> Callable[[Draw, Shape, Shape], tuple[Tensor, Tensor]]:
    return lambda r, xs, ys: (scale * r(*xs), scale * r(*ys))


CLOUDS: dict[str, Callable[[Draw, Shape, Shape], tuple[Tensor, Tensor]]] = {
    "normal": _scaled(1.0),
    "integers": lambda r, xs, ys: (r(*xs).mul(2).round(), r(*ys).mul(2).round()),
    "few integers": lambda r, xs, ys: (r(*xs).round().clamp(-1, 1), r(*ys).round().clamp(-1, 1)),
    "all equal": lambda r, xs, ys: (torch.ones(xs, dtype=torch.float64), torch.ones(ys, dtype=torch.float64)),
    "all y equal": lambda r, xs, ys: (r(*xs), r(*ys[:-2], 1, ys[-1]).expand(ys).clone()),
    "copies": _copies,
    "far away": lambda r, xs, ys: (1e3 + 1e-3 * r(*xs), 1e3 + 1e-3 * r(*ys)),
    "very far away": lambda r, xs, ys: (1e6 + r(*xs), 1e6 + r(*ys)),
    "two tight clusters": _clusters,
    "one sided": lambda r, xs, ys: (r(*xs).relu(), r(*ys).relu()),
    "x far larger": lambda r, xs, ys: (1e4 * r(*xs), r(*ys)),
    "many scales": lambda r, xs, ys: (r(*xs) * 10 ** (6 * r(*xs[:-1], 1)), r(*ys) * 10 ** (6 * r(*ys[:-1], 1))),
    "1e18": _scaled(1e18),
    "1e-18": _scaled(1e-18),
    "1e-22": _scaled(1e-22),
    "subnormal in float32": _scaled(1e-42),
    "squares leave float32": _scaled(1e25),
}
PLAIN = tuple(CLOUDS)[:12]  # whose squares no float type but float16 loses
SPECIAL = (NAN, INF, -INF, 3e38, -3e38, 1e-42, -0.0, 65504.0)


def cloud(choices: Choices, xs: Shape, ys: Shape, kinds: Sequence[str] = tuple(CLOUDS)) -> tuple[Tensor, Tensor]:
    return CLOUDS[choices.pick("cloud", kinds)](lambda *shape: randn(choices, *shape), xs, ys)


POTENTIALS = ("none", "none", "normal", "large", "integers", "-inf", "some inf", "few", "1e30", "equal")


def potential(choices: Choices, shape: Shape) -> Tensor | None:
    """[..., M] in float64, or None."""
    r = randn(choices, *shape)
    match choices.pick("potential", POTENTIALS):
        case "normal":
            return r
        case "large":
            return 20 * r
        case "integers":
            return r.round()
        case "-inf":
            return torch.where(r > 1, r, -INF)
        case "some inf":
            return torch.where(r > 2, INF, r)
        case "few":
            return r.sign().clamp_min(0)
        case "1e30":
            return 1e30 * r
        case "equal":
            return torch.full_like(r, 0.5)
    return None


def with_special(choices: Choices, **tensors: Tensor | None) -> None:
    """Writes up to three special values into the tensors, in place."""
    given = {name: t for name, t in tensors.items() if t is not None and t.numel()}
    for k in range(choices.pick("special values", (0, 0, 0, 0, 1, 2, 3)) if given else 0):
        name = choices.pick(f"special {k} in", tuple(given))
        at = choices.pick(f"special {k} at", range(given[name].numel()))
        given[name].view(-1)[at] = choices.pick(f"special {k}", SPECIAL)


# ---- memory layouts: the same values, but where the name says that a dimension is expanded. Gaps hold NaN.

LAYOUTS = (
    "dense", "dense", "dense", "transposed", "every second", "every second row", "offset", "padded rows", "reversed",
    "negated", "expanded rows", "expanded batch",
)  # fmt: skip


def _inside(tensor: Tensor, shape: Shape, at: tuple[slice, ...]) -> Tensor:
    """The tensor as a view of a larger one, [shape], whose other values are NaN."""
    outer = tensor.new_full(shape, NAN)
    view = outer[(..., *at)]
    view.copy_(tensor)
    return view


def laid_out(choices: Choices, name: str, tensor: Tensor) -> Tensor:
    """The tensor [..., K] or [..., K, D] with strides of its own."""
    layout, shape = choices.pick(f"layout of {name}", LAYOUTS), tuple(tensor.shape)
    match layout:
        case "transposed" if tensor.dim() > 1:
            return tensor.mT.contiguous().mT
        case "every second":
            return _inside(tensor, (*shape[:-1], 2 * shape[-1]), (slice(1, None, 2),))
        case "every second row" if tensor.dim() > 1:
            return _inside(tensor, (*shape[:-2], 2 * shape[-2], shape[-1]), (slice(None, None, 2), slice(None)))
        case "offset":
            flat = tensor.new_full((tensor.numel() + 8,), NAN)
            flat[3 : 3 + tensor.numel()] = tensor.reshape(-1)
            return flat[3 : 3 + tensor.numel()].view(shape)
        case "padded rows":
            return _inside(tensor, (*shape[:-1], shape[-1] + 5), (slice(2, 2 + shape[-1]),))
        case "reversed" if tensor.dim() > 2:  # leading dimensions whose strides descend and ascend
            return tensor.transpose(0, 1).contiguous().transpose(0, 1)
        case "negated":
            return torch._neg_view(-tensor)
        case "expanded rows" if tensor.dim() > 1 and shape[-2]:
            return tensor[..., :1, :].expand(shape)
        case "expanded batch" if tensor.dim() > 1 and shape[0]:
            return tensor[:1].expand(shape)
    return tensor


def dense(tensor: Tensor | None) -> Tensor | None:
    """A copy with plain strides."""
    return None if tensor is None else tensor.resolve_neg().clone(memory_format=torch.contiguous_format)


def batched(tensor: Tensor, lead: int) -> Tensor:
    """With one dimension in place of `lead` of them."""
    return tensor[None] if lead == 0 else tensor.flatten(0, lead - 1)


def same_bits(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Equal values in equal places, NaN included."""
    return all(torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0)) and torch.equal(a.isnan(), b.isnan())
               for a, b in zip(first, second, strict=True))  # fmt: skip
