"""Whether an optimizer's steps on one parameter are those of plain Adam, which `otkernels.fit_transport` plays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")


def not_plain_adam(optimizer: Any, parameter: Tensor) -> str:
    """What ``optimizer`` is instead of plain Adam on ``parameter`` alone, in words; empty if it is that.

    Plain: torch.optim.Adam itself with numbers for lr and betas, no decay, no AMSGrad, not maximising and not
    differentiable, without hooks whom a step would call, on a float32 or float64 parameter whose gradient it would get.
    Its state, if it has any yet, must be one that the steps can go on from.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        return f"a {type(optimizer).__name__}"
    return _settings(optimizer) or _parameter(optimizer, parameter) or _hooks(optimizer, parameter) or (
        _state(optimizer.state.get(parameter, {}), parameter)
    )  # fmt: skip


def _settings(optimizer: torch.optim.Optimizer) -> str:
    name, groups = type(optimizer).__name__, optimizer.param_groups
    if len(groups) != 1:
        return f"{name} with {len(groups)} parameter groups"
    group = groups[0]
    switches = ["weight_decay", "decoupled_weight_decay", "amsgrad", "maximize", "differentiable"]
    if not all(parameter.is_cuda for parameter in group["params"]):
        switches.append("capturable")  # which Adam itself refuses there
    on = [f"{switch}={group[switch]}" for switch in switches if group.get(switch)]
    if type(optimizer) is not torch.optim.Adam or on:
        return name + (f" with {', '.join(on)}" if on else "")
    if isinstance(group["lr"], Tensor) or any(isinstance(beta, Tensor) for beta in group["betas"]):
        return "Adam whose lr or betas are tensors"
    return ""


def _parameter(optimizer: torch.optim.Optimizer, parameter: Tensor) -> str:
    held = optimizer.param_groups[0]["params"]
    if not any(other is parameter for other in held):
        return "Adam on other parameters"
    if len(held) > 1:
        return f"Adam on {len(held)} parameters"
    if not parameter.requires_grad:
        return "leaves that require no gradient"
    if parameter.dtype not in (torch.float32, torch.float64):
        return f"leaves of {parameter.dtype}"
    return "" if parameter.is_contiguous() else f"leaves with strides {list(parameter.stride())}"


def _hooks(optimizer: Any, parameter: Any) -> str:
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return "Adam with step hooks"
    if torch_optimizer._global_optimizer_pre_hooks or torch_optimizer._global_optimizer_post_hooks:
        return "Adam while there are step hooks of all optimizers"
    return "leaves with gradient hooks" if parameter._backward_hooks or parameter._post_accumulate_grad_hooks else ""


def _state(state: Any, parameter: Tensor) -> str:
    if not state:
        return ""
    for name in MOMENTS:
        moment = state.get(name)
        if not isinstance(moment, Tensor):
            return f"Adam whose state has no {name}"
        if (moment.shape, moment.dtype, moment.device) != (parameter.shape, parameter.dtype, parameter.device):
            return f"Adam whose {name} is {moment.dtype} {list(moment.shape)} on {moment.device}"
        if not moment.is_contiguous():
            return f"Adam whose {name} has strides {list(moment.stride())}"
    if state["exp_avg"].data_ptr() == state["exp_avg_sq"].data_ptr():
        return "Adam whose exp_avg and exp_avg_sq are one tensor"
    step = state.get("step")  # some variants keep it in float64, or on the CPU
    if not isinstance(step, Tensor) or step.dim() or step.dtype != torch.float32 or step.device != parameter.device:
        shown = f"a {step.dtype} {list(step.shape)} on {step.device}" if isinstance(step, Tensor) else repr(step)
        return f"Adam whose step is {shown}"
    return ""
