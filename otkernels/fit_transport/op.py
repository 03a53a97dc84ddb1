"""fit_transport as a torch op that updates its state in place: public function, checks, fake."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .. import _checks, _dispatch, _transforms
from .state import AdamState

PAIRINGS = ("cover", "literal")


class FitTransport(NamedTuple):
    """What fit_transport returns.

    index [..., N] int64 is the last step's assignment; cost [..., iters] each step's matched cost before its update.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody misses here
    cost: Tensor


# torch.load(weights_only=True) and torch.export.save know the results of ops by these names
torch.serialization.add_safe_globals([FitTransport])
pytree._register_namedtuple(FitTransport, serialized_type_name="otkernels.FitTransport")


@torch.no_grad()
def fit_transport(
    z_r: Tensor,
    z_g: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
    state: AdamState,
    *,
    iters: int = 5,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.5, 0.9),
    eps: float = 1e-8,
    pairing: str = "cover",
    impl: str = "auto",
) -> FitTransport:
    """Algorithm 1 of POT-GAN (Avraham et al. 2019) in one call: moves the leaves of F towards a transport map.

        iters times:  index_i = argmin_j |z_r[i] - F(z_g[j])|^2
                      one Adam step on the leaves for the matched cost

        matched cost, cover:    mean_i |z_r[i] - F(z_g[index_i])|^2
        matched cost, literal:  mean_i |z_r[index_i] - F(z_g[i])|^2, N = M

    F is `soft_forest(., thresholds, leaves)`; the paper calls the index rho. Pairs are held fixed in the
    gradient; thresholds do not move.

    Args:
        z_r: [..., N, d_out] real latents; float32 or float64 (CUDA kernels: float32).
        z_g: [..., M, d] generated latents, before F.
        thresholds: [T, 2^D - 1], or [..., T, 2^D - 1] with z_r's leading dimensions.
        leaves: [..., T, 2^D, d_out], one forest per batch element; contiguous, updated in place.
        state: Adam's moments, contiguous and shaped like leaves, and its count of steps, which grows by iters; all are
            updated in place. `AdamState.zeros_like(leaves)` is the state before the first step.
        iters: inner steps, at least 1.
        lr: Adam's learning rate.
        betas: Adam's decay rates of both moments, in [0, 1).
        eps: what Adam adds to the denominator.
        pairing: "cover" (section 4.1: every real latent has a generated one near it) or "literal" (Algorithm 1 as
            printed).
        impl: "auto", "cpu", "cuda" or "reference"; one that cannot run raises and says why.

    Returns:
        index [..., N] and cost [..., iters] (squared units of z_r). Distances with a NaN give index -1 and, by the
        step that follows, NaN leaves.

    No gradient flows through it. Deterministic: the same bits on every run and for every number of threads.

    Raises:
        ValueError: a shape, dtype, device, layout or option is wrong, or what is updated in place shares memory with
            another argument; the message names it.
        RuntimeError: the named impl cannot run here.
        NotImplementedError: an input carries a forward-mode tangent.
    """
    lead = _check(z_r, z_g, thresholds, leaves, state)
    check_pairing("fit_transport", pairing, z_r, z_g)
    _dispatch.check("fit_transport", impl)
    iters, lr, betas, eps = _settings(iters, lr, betas, eps)
    batch = math.prod(lead)
    if thresholds.dim() == 2:
        thresholds = thresholds.expand(batch, *thresholds.shape)
    inputs = (x.reshape(batch, *x.shape[-2:]) for x in (z_r, z_g, thresholds))
    trained = (x.view(batch, *x.shape[-3:]) for x in (leaves, state.exp_avg, state.exp_avg_sq))
    index, cost = torch.ops.otkernels.fit_transport(
        *inputs, *trained, state.step, iters, lr, *betas, eps, pairing, impl
    )
    return FitTransport(index.view(*lead, z_r.shape[-2]), cost.view(*lead, iters))


def _check(z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, state: AdamState) -> torch.Size:
    """Raises what is wrong; returns the leading dimensions."""
    op = "fit_transport"
    if not isinstance(state, AdamState):
        raise ValueError(f"{op}: state must be an otkernels.AdamState, got {type(state).__name__}")
    trained = {"leaves": leaves, "state.exp_avg": state.exp_avg, "state.exp_avg_sq": state.exp_avg_sq}
    _checks.alike(op, z_r=z_r, z_g=z_g, thresholds=thresholds, **trained)
    _transforms.refuse_tangents(op, z_r, z_g, thresholds, *trained.values())
    lead, d_out = check_latents(op, z_r, z_g), z_r.shape[-1]
    trees, width = leaves.shape[-3:-1] if leaves.dim() > 2 else (0, 0)
    if trees < 1 or width < 1 or width & (width - 1) or leaves.shape != (*lead, trees, width, d_out):
        raise ValueError(
            f"{op}: leaves must be {_checks.named(lead, 'T, 2^D, d_out')} with d_out={d_out}, "
            f"got {_checks.shape(leaves)}"
        )
    check_thresholds(op, thresholds, leaves, lead)
    for name, tensor in trained.items():
        if tensor.shape != leaves.shape or not tensor.is_contiguous():
            layout = "" if tensor.is_contiguous() else f" with strides {list(tensor.stride())}"
            raise ValueError(
                f"{op}: {name} must be contiguous {_checks.shape(leaves)}, got {_checks.shape(tensor)}{layout}"
            )
    step = state.step
    if not isinstance(step, Tensor) or step.dtype != torch.float32 or step.dim() or step.device != z_r.device:
        got = f"{step.dtype} {_checks.shape(step)} on {step.device}" if isinstance(step, Tensor) else repr(step)
        raise ValueError(f"{op}: state.step must be a float32 scalar tensor on {z_r.device}, got {got}")
    return lead


def check_latents(op: str, z_r: Tensor, z_g: Tensor) -> torch.Size:
    """Raises what is wrong with z_r [..., N, d_out] or z_g [..., M, d]; returns the leading dimensions."""
    if z_r.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{op}: z_r must be float32 or float64, got {z_r.dtype} {_checks.shape(z_r)}")
    if z_r.dim() < 2 or 0 in z_r.shape[-2:]:
        raise ValueError(f"{op}: z_r must be [..., N, d_out] with N, d_out >= 1, got {_checks.shape(z_r)}")
    lead = z_r.shape[:-2]
    if z_g.dim() < 2 or z_g.shape[:-2] != lead or 0 in z_g.shape[-2:]:
        raise ValueError(
            f"{op}: z_g must be [..., M, d] with M, d >= 1 and z_r's leading dimensions {list(lead)}, "
            f"got {_checks.shape(z_g)}"
        )
    return lead


def check_thresholds(op: str, thresholds: Tensor, leaves: Tensor, lead: torch.Size) -> None:
    """Raises what is wrong with thresholds for leaves [..., T, 2^D, d_out]."""
    trees, width = leaves.shape[-3:-1]
    if thresholds.shape not in ((trees, width - 1), (*lead, trees, width - 1)):
        raise ValueError(
            f"{op}: thresholds must be {[trees, width - 1]} for leaves {_checks.shape(leaves)}, "
            f"got {_checks.shape(thresholds)}"
        )


def check_pairing(op: str, pairing: str, z_r: Tensor, z_g: Tensor) -> None:
    """Raises what is wrong with ``pairing`` for these latents."""
    _checks.choice(op, "pairing", pairing, PAIRINGS)
    if pairing == "literal" and z_r.shape[-2] != z_g.shape[-2]:
        raise ValueError(
            f"{op}: z_g must have as many rows as z_r for pairing 'literal', got {_checks.shape(z_g)} and "
            f"{_checks.shape(z_r)}"
        )


def _settings(
    iters: int, lr: float, betas: tuple[float, float], eps: float
) -> tuple[int, float, tuple[float, float], float]:
    """The settings as plain numbers; raises what is wrong."""
    op = "fit_transport"
    iters = _checks.count(op, "iters", iters)
    lr, eps = _checks.number(op, "lr", lr), _checks.number(op, "eps", eps)
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"{op}: betas must be two numbers in [0, 1), got {betas!r}")
    beta1, beta2 = (_checks.number(op, f"betas[{k}]", betas[k], 1, "a number in [0, 1)") for k in range(2))
    return iters, lr, (beta1, beta2), eps


def _forward(
    z_r: Tensor,
    z_g: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
    iters: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    pairing: str,
    impl: str,
) -> tuple[Tensor, Tensor]:
    _, module = _dispatch.choose("fit_transport", impl, z_r)
    state = AdamState(exp_avg, exp_avg_sq, step)
    written = {"leaves": leaves, **{f"state.{name}": tensor for name, tensor in state._asdict().items()}}
    _checks.apart("fit_transport", written, {"z_r": z_r, "z_g": z_g, "thresholds": thresholds})
    result = module.fit_transport(z_r, z_g, thresholds, leaves, state, iters, lr, (beta1, beta2), eps, pairing)
    for tensor in written.values():  # kernels write through addresses, which autograd does not see
        torch.autograd.graph.increment_version(tensor)
    return result


def _fake(z_r: Tensor, z_g: Tensor, thresholds: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    iters = rest[4]
    return z_r.new_empty(z_r.shape[:2], dtype=torch.int64), z_r.new_empty(z_r.shape[0], iters)  # type: ignore[call-overload]


NAME = "otkernels::fit_transport"
torch.library.define(
    NAME,
    "(Tensor z_r, Tensor z_g, Tensor thresholds, Tensor(a!) leaves, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, "
    "Tensor(d!) step, int iters, float lr, float beta1, float beta2, float eps, str pairing, str impl) "
    "-> (Tensor, Tensor)",
)
torch.library.impl(NAME, ("cpu", "cuda"), _forward)
torch.library.register_fake(NAME, _fake)
