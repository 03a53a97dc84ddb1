"""A recorded list of operations, made short and quick to play; finite numbers stay the same.

Networks of points are so small that calling an operation takes longer than its sums. So operations whose result is
known are taken out, and the rest is written out as one Python function without any look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

aten = torch.ops.aten
SAME = (aten.detach.default, aten.alias.default)
VIEWS = (aten.t.default, aten.transpose.int, aten.view.default, aten.unsqueeze.default, aten.expand.default)
FILLED = {aten.zeros_like.default: 0.0, aten.new_zeros.default: 0.0, aten.ones_like.default: 1.0}
# Which inputs make a result zero by being zero.
ZERO_BY: Mapping[Any, tuple[int, ...]] = {
    **dict.fromkeys((aten.sum.dim_IntList, aten.threshold_backward.default), (0,)),
    **dict.fromkeys((aten.mm.default, aten.mul.Tensor), (0, 1)),
}


def simplify(graph: GraphModule) -> None:
    """Take out of ``graph`` what need not be computed at each step.

    That is: second handles of a tensor; products with one and sums with zero; views of parameters, which are made once;
    what depends on sizes alone; and what is zero for all finite numbers. Much is zero in the gradient of a gradient
    penalty: whatever the second derivative of a ReLU multiplies.
    """
    fixed = _fixed_memory(graph.graph)
    known: dict[Node, Tensor] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or _is_impure(node):
            continue
        replacement = _same(node, known, fixed)
        if replacement is None and node in fixed and (value := _value(graph, node, known)) is not None:
            name = f"known_{node.name}"
            graph.register_buffer(name, value, persistent=False)
            with graph.graph.inserting_before(node):
                replacement = graph.graph.get_attr(name)
            replacement.meta = node.meta
            if not _shows_parameter(node, known):
                known[replacement] = value
        if replacement is not None:
            node.replace_all_uses_with(replacement)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph.named_buffers() if name.startswith("known_") and name not in used]:
        delattr(graph, name)
    graph.recompile()


def straight(graph: GraphModule, early: int = 0) -> Callable[..., Any]:
    """``graph`` as one Python function whose operations and constants are its globals.

    Almost all operations have a direct Python binding, and calling that takes half the time. Each result is freed after
    its last use. early: the last ``early`` outputs are computed first; the function is then a generator, which yields
    them and after them the other outputs.
    """
    scope: dict[str, Any] = {}
    lines: list[str] = []

    def constant(value: Any) -> str:
        name = f"constant_{len(scope)}"
        scope[name] = value
        return name

    def text(value: Any) -> str:
        if isinstance(value, Node):
            return value.name
        if isinstance(value, list | tuple) and any(isinstance(each, Node) for each in value):
            return f"[{', '.join(map(text, value))}]"
        return constant(value)

    *nodes, output = graph.graph.nodes
    results = list(output.args[0])
    results, first = results[: len(results) - early], results[len(results) - early :]
    before = _ancestors(first)
    nodes.sort(key=lambda node: node not in before)  # which keeps the order on either side
    last = {given: node for node in (*nodes, output) for given in node.all_input_nodes}
    for number, node in enumerate(nodes):
        if early and number == len(before):
            lines.append(f"yield {text(first)}")
        if node.op == "get_attr":
            scope[node.name] = getattr(graph, node.target)
        elif node.op == "call_function":
            given = [*map(text, node.args), *(f"{name}={text(value)}" for name, value in node.kwargs.items())]
            lines.append(f"{node.name} = {constant(bound(node.target))}({', '.join(given)})")
            over = [each.name for each in node.all_input_nodes if last[each] is node and each.op == "call_function"]
            lines += [f"del {', '.join(over)}"] if over else []
    lines.append(f"{'yield' if early else 'return'} {text(results)}")
    arguments = ", ".join(node.name for node in nodes if node.op == "placeholder")
    exec("\n    ".join([f"def play({arguments}):", *lines]), scope)
    played: Callable[..., Any] = scope["play"]
    return played


def _ancestors(nodes: list[Node]) -> set[Node]:
    """``nodes``, and all that they are made of."""
    found, new = set(nodes), list(nodes)
    while new:
        more = set(new.pop().all_input_nodes) - found
        found |= more
        new += more
    return found


def bound(operation: Any) -> Callable[..., Any]:
    """The Python function of an operation of PyTorch's own; the operation itself where there is none."""
    if getattr(operation, "namespace", "") != "aten":
        return operation
    name = operation.overloadpacket.__name__
    return getattr(torch._C._VariableFunctions, name, None) or getattr(torch._C.TensorBase, name, operation)


def _is_impure(node: Node) -> bool:
    """Whether the operation writes into a tensor or draws numbers."""
    schema, tags = getattr(node.target, "_schema", None), getattr(node.target, "tags", ())
    return (schema is not None and schema.is_mutable) or torch.Tag.nondeterministic_seeded in tags


def _fixed_memory(graph: Graph) -> set[Node]:
    """The nodes whose memory no operation writes into and no caller gets, through whatever view."""
    exposed: set[Node] = set()
    for node in reversed(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            if node.op == "output" or node in exposed:
                exposed.update(node.all_input_nodes)
            continue
        for given, argument in zip(node.args, schema.arguments, strict=False):
            alias = argument.alias_info
            if isinstance(given, Node) and alias is not None and (alias.is_write or node in exposed):
                exposed.add(given)
    return set(graph.nodes) - exposed


def _same(node: Node, known: Mapping[Node, Tensor], fixed: set[Node]) -> Node | None:
    """The input that ``node`` is the same as, and whose memory may stand for the node's own."""
    target, (first, *rest) = node.target, node.args or (None,)
    if not isinstance(first, Node):
        return None
    if target in SAME:
        return first
    if target is aten.t.default and first.target is aten.t.default:
        return first.all_input_nodes[0]
    copied = []
    if target in (aten.mul.Tensor, aten.pow.Tensor_Scalar) and type(rest[0]) is float and rest[0] == 1:
        copied = [first]
    if target is aten.add.Tensor and isinstance(rest[0], Node) and not node.kwargs:
        pairs = (first, rest[0]), (rest[0], first)
        copied = [given for given, other in pairs if other in known and not known[other].any()]
    for given in copied:
        if _alike(node, given) and ({node, given} <= fixed or _is_last_use(given)):
            return given
    return None


def _is_last_use(node: Node) -> bool:
    """Whether nobody else sees the memory of ``node``, an operation's result, after the one operation that takes it."""
    while node.op == "call_function" and len(node.users) == 1:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return False
        shown = [given for given, a in zip(node.args, schema.arguments, strict=False) if a.alias_info is not None]
        if not shown:
            return True
        if not isinstance(shown[0], Node):
            return False
        node = shown[0]
    return False


def _alike(a: Node, b: Node) -> bool:
    first, second = a.meta.get("tensor_meta"), b.meta.get("tensor_meta")
    return first is not None and second is not None and (first.shape, first.dtype) == (second.shape, second.dtype)


def _shows_parameter(node: Node, known: Mapping[Node, Tensor]) -> bool:
    return node.target in VIEWS and node.all_input_nodes[0] not in known


def _value(graph: GraphModule, node: Node, known: Mapping[Node, Tensor]) -> Tensor | None:
    """What ``node`` is at every step, if that is known: of a parameter's view the view."""
    meta = node.meta.get("tensor_meta")
    if meta is None:
        return None
    zero_by = (node.args[number] for number in ZERO_BY.get(node.target, ()))
    filled = FILLED.get(node.target)  # type: ignore[call-overload]
    if any(given in known and not known[given].any() for given in zero_by if isinstance(given, Node)):
        filled = 0.0
    if filled is not None:
        return torch.full(meta.shape, filled, dtype=meta.dtype, device=node.meta["val"].device)
    inputs = node.all_input_nodes
    if all(given in known for given in inputs) or (node.target in VIEWS and inputs[0].op == "get_attr"):
        args = map_arg(node.args, lambda given: getattr(graph, str(given.target)).detach())
        value = node.target(*args, **node.kwargs)  # type: ignore[operator]
        return value if isinstance(value, Tensor) else None
    return None
