"""Derivatives of the ops, however they are taken.

torch.library's registrations serve backward(), the compiler and vmap. torch.func (grad, vjp, jacrev, jvp, jacfwd,
hessian) and forward mode know torch.autograd.Function alone. So an op has both, made of the same rules, and a call
takes the one that its surroundings need.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad


def register(
    name: str,
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
    jvp: Callable[..., Any],
    vmap: Callable[..., Any],
) -> Callable[..., Any]:
    """Gives torch.ops.otkernels.<name> its rules; returns what calls it. Rules call other ops through such functions.

    The rules are those of torch.autograd.Function; jvp finds in ctx.saved_tensors what backward does.
    """
    torch.library.register_autograd(f"otkernels::{name}", backward, setup_context=setup_context)
    torch.library.register_vmap(f"otkernels::{name}", vmap)
    op = getattr(torch.ops.otkernels, name)

    def forward(*inputs: Any) -> Any:
        return op(*inputs)

    # the compiler counts the parameters to tell whether a ctx comes first
    arguments = [Parameter(argument.name, Parameter.POSITIONAL_ONLY) for argument in op.default._schema.arguments]
    forward.__signature__ = Signature(arguments)  # type: ignore[attr-defined]

    def setup_both(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        setup_context(ctx, inputs, output)
        ctx.save_for_forward(*ctx.to_save)

    rules = {"forward": forward, "setup_context": setup_context, "backward": backward, "vmap": vmap}
    reverse = _function(name, rules)  # the compiler accepts no Function that has a jvp
    both = _function(name, rules | {"setup_context": setup_both, "jvp": jvp})

    def call(*inputs: Any) -> Any:
        mode = derivatives()
        if not mode:
            return op(*inputs)
        if mode == "reverse":
            if torch.compiler.is_compiling():  # which sees that torch.func tracks a tensor once an operation made it
                inputs = tuple(t.view_as(t) if isinstance(t, Tensor) else t for t in inputs)
            return reverse.apply(*inputs)
        if mode == "nested":
            # An autograd.Function's jvp is not differentiated in forward mode again: the result would be wrong.
            raise NotImplementedError(
                f"{name}: forward mode inside forward mode (jvp of jvp, jacfwd of jacfwd) is not supported; "
                "take one of the two in reverse mode"
            )
        if torch.compiler.is_compiling():
            raise NotImplementedError(f"{name}: forward mode is not supported inside torch.compile")
        return both.apply(*inputs)

    return call


def _function(name: str, rules: dict[str, Callable[..., Any]]) -> Any:
    return type(name, (torch.autograd.Function,), {key: staticmethod(rule) for key, rule in rules.items()})


@torch.compiler.assume_constant_result
def derivatives() -> str:
    """What takes derivatives here beside backward(): "", "reverse", "forward", or "nested" for two forward modes.

    While the compiler traces, the answer is that of the place in the program which it traces.
    """
    in_forward_mode = forward_ad._current_level >= 0
    if _functorch.maybe_current_level() is None:
        return "forward" if in_forward_mode else ""
    levels = [level.key() for level in _functorch.get_interpreter_stack() or ()]
    count = levels.count(_functorch.TransformType.Jvp)
    if count > 1:
        return "nested"
    if count or in_forward_mode:
        return "forward"
    return "reverse" if _functorch.TransformType.Grad in levels else ""


def refuse_tangents(op: str, *tensors: Tensor) -> None:
    """For an op that trains: no derivative passes through it, and what it updates must not keep a stale tangent."""
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError(f"{op}: forward mode is not supported: no derivative passes through this op")
