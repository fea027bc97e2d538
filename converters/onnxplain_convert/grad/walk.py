"""The walk: one reverse pass over a canonical graph, emitting the backward pass of every rule set asked for.

It does everything that rules have in common: it prunes to the nodes between what is differentiated and the seeds, sums
gradients to their input's shape after broadcasting, accumulates them, checks type, rank and number, names backward
nodes after the forward node and records which rule made them. Then the rule of ``Add`` is ``return g, g``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.artifact import gradient_name, seed_name
from onnxplain.errors import NotFound, Unsupported, nearest
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.path import Path, between, missing
from onnxplain_convert.grad.ruleset import QUANTISERS, Rule, RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import dims, is_float, is_sequence


@dataclass(frozen=True)
class Differentiated:
    """What the walk did, by names: ``gradients`` {rule set: {tensor: tensor holding its gradient}}."""

    gradients: dict[str, dict[str, str]] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    """Nodes between what is differentiated and what is explained, in execution order."""
    zero_gradient: tuple[str, ...] = ()
    """Piecewise constant nodes on the way from the inputs: their gradient is zero by definition."""
    straight_through: tuple[str, ...] = ()
    """Quantising nodes on the path: rounding was differentiated as the identity."""
    unreachable: tuple[str, ...] = ()
    """Differentiated tensors that cannot influence the explained outputs: their gradient is an explicit zero."""


def differentiate_graph(
    model: ir.Model, wrt: Sequence[str], outputs: Sequence[str], rules: Sequence[RuleSet]
) -> Differentiated:
    """Add to a canonical model, in place, inputs ``seed/y`` and outputs ``R/t``: gradients of sum(seed/y * y) under R.

    Raises Unsupported (node, operator, opset, remedy) where a node on the path has no rule, NotFound for unknown names.
    """
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    sources = [_value(values, name, "tensor to differentiate") for name in wrt]
    explained = [_value(values, name, "output") for name in outputs]
    nodes = list(graph)
    op = Emitter(graph, model.opset_imports[""])
    path = Path.find(nodes, sources, explained, rules[0], op.opset)

    seeds: dict[ir.Value, ir.Value] = {}
    for y in explained:
        seed = ir.val(seed_name(_name(y)), y.dtype, None if y.shape is None else y.shape.copy())
        graph.inputs.append(seed)
        seeds[y] = seed

    named: dict[str, dict[ir.Value, ir.Value]] = {}
    taken: set[ir.Value] = set()  # rule sets share tensors; one that has its name keeps it
    for rule_set in rules:
        found = _Walk(op, rule_set, path, seeds).run()
        named[rule_set.name] = _name_gradients(op, rule_set.name, found, sources, taken)
    RemoveUnusedNodesPass()(model)
    return Differentiated(
        gradients={rules: {_name(t): _name(g) for t, g in pairs.items()} for rules, pairs in named.items()},
        path=tuple(n.name or "" for n in path.nodes),
        zero_gradient=tuple(n.name or "" for n in path.constant),
        straight_through=tuple(n.name or "" for n in path.nodes if n.op_type in QUANTISERS),
        unreachable=tuple(_name(t) for t in sources if t not in path.active or t not in path.useful),
    )


def _value(values: Mapping[str, ir.Value], name: str, what: str) -> ir.Value:
    if name not in values:
        raise NotFound(f"no {what} {name!r} in the graph; {nearest(name, values)}")
    value = values[name]
    if not is_float(value):
        raise Unsupported(f"{what} {name!r} is {value.dtype}: only floating-point tensors have a gradient")
    return value


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name


class _Walk:
    def __init__(self, op: Emitter, rules: RuleSet, path: Path, seeds: dict[ir.Value, ir.Value]) -> None:
        self.op, self.rules, self.path = op, rules, path
        self.pending: dict[ir.Value, list[ir.Value]] = {y: [seed] for y, seed in seeds.items()}
        self.done: dict[ir.Value, ir.Value] = {}

    def run(self) -> dict[ir.Value, ir.Value]:
        """The accumulated gradient of every tensor on the path."""
        for node in reversed(self.path.nodes):
            gs = tuple(self.gradient(v) for v in node.outputs)
            if all(g is None for g in gs):
                continue
            for value, contribution in self.backward(node, gs):
                if value in self.path.active:
                    self.pending.setdefault(value, []).append(contribution)
        for value in list(self.pending):
            self.gradient(value)
        return self.done

    def gradient(self, value: ir.Value) -> ir.Value | None:
        """What arrives at a value, summed; complete, since the walk is in reverse topological order."""
        if value not in self.done and value in self.pending:
            first, *rest = self.pending.pop(value)
            with self.op.scope(gradient_name(self.rules.name, f"{value.name}/sum")):
                for other in rest:
                    first = self.op.plus(first, other)
                # one that was reduced away comes back only now: a sum with another broadcasts by itself
                self.done[value] = first if is_sequence(value) else self.op.expand_like(first, value)
        return self.done.get(value)

    def backward(self, node: ir.Node, gs: tuple[ir.Value | None, ...]) -> Iterator[tuple[ir.Value, ir.Value]]:
        """What a node contributes to the gradients of what it reads."""
        wanted = frozenset(i for i, v in enumerate(node.inputs) if v is not None and v in self.path.active)
        b = Backward(self.op, node, tuple(node.inputs), tuple(node.outputs), gs, wanted, self)
        props = {"onnxplain.rule": f"{self.rules.name}/{node.op_type}"}
        with self.op.scope(gradient_name(self.rules.name, node.name or node.op_type), props):
            b = b.in_floats()
            result = self.rule(self.rules, b)(b)
            if isinstance(result, Mapping):
                for x, g in result.items():
                    if g is not None and x in self.path.active:
                        yield x, self.fit(b, _name(x), g, x)
                return
            for i, g in enumerate(self.per_input(b, result)):
                read = node.inputs[i]
                if g is not None and read is not None:
                    yield read, g

    def standard(self, b: Backward) -> Gradients:
        """The rule of the root rule set on the same node."""
        *_, root = self.rules.lineage()
        return self.per_input(b, self.rule(root, b)(b))

    def through(self, outputs: Mapping[ir.Value, ir.Value | None], sources: Sequence[ir.Value]) -> Gradients:
        """Back from values, given the gradients arriving there, to ``sources``: over the nodes in between."""
        seeds = {y: g for y, g in outputs.items() if g is not None}
        path = Path.find(between(sources, list(seeds)), list(sources), list(seeds), self.rules, self.op.opset)
        found = _Walk(self.op, self.rules, path, seeds).run()
        return tuple(found.get(x) for x in sources)

    def inside(self, op: Emitter) -> _Walk:
        """The same walk for a subgraph, whose nodes another emitter appends."""
        return _Walk(op, self.rules, self.path, {})

    def rule(self, rules: RuleSet, b: Backward) -> Rule:
        rule = rules.find(b.node, b.opset)
        if rule is None:
            raise missing(b.node, rules, b.opset, self.path.nodes)
        return rule

    def per_input(self, b: Backward, result: Any) -> Gradients:
        """A rule's result as one gradient per input, each in its input's shape."""
        given = (result,) if isinstance(result, ir.Value) or result is None else tuple(result)
        if any(g is not None for g in given[len(b.inputs) :]):
            raise TypeError(
                f"the rule of {b.node.op_type} gave {len(given)} gradients for {len(b.inputs)} inputs. This is a bug."
            )
        given = (given + (None,) * len(b.inputs))[: len(b.inputs)]
        return tuple(
            None if g is None or x is None or i not in b.wanted else self.fit(b, f"input {i}", g, x)
            for i, (g, x) in enumerate(zip(given, b.inputs, strict=True))
        )

    def fit(self, b: Backward, where: str, g: ir.Value, x: ir.Value) -> ir.Value:
        """A contribution of its input's type and a shape that broadcasts to its own: here a wrong rule is caught."""
        if is_sequence(x):
            return g
        g = self.op.sum_to(g, x)
        have, want = dims(g), dims(x)
        wrong = have is not None and want is not None and len(have) != len(want)
        wrong = wrong or any(
            isinstance(h, int) and isinstance(w, int) and h not in (1, w)
            for h, w in zip(have or (), want or (), strict=False)
        )
        if (g.dtype != x.dtype and is_float(x)) or wrong:
            raise TypeError(
                f"the rule of {b.node.op_type} {b.node.name!r} gave {where} a gradient of {g.dtype} {have} "
                f"for a tensor of {x.dtype} {want}. This is a bug in the rule."
            )
        return g


def _name_gradients(
    op: Emitter, rules: str, found: dict[ir.Value, ir.Value], sources: Sequence[ir.Value], taken: set[ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Name every gradient ``R/t``; an output gets a value of its own where the gradient is another tensor's too."""
    named: dict[ir.Value, ir.Value] = {}

    def is_free(g: ir.Value) -> bool:
        return g in op.emitted and not g.is_graph_output() and g not in named.values()

    for t in sources:
        g = found.get(t)
        with op.scope(gradient_name(rules, f"{t.name}/output")):
            g = op.zeros_like(t) if g is None else g
            named[t] = g if is_free(g) else op.anew(g)
        named[t].name = _free(op, rules, t)
        op.graph.outputs.append(named[t])
    taken.update(named.values())
    for t, g in found.items():
        if t not in named:
            if g in op.emitted and g not in taken:
                g.name = _free(op, rules, t)
                taken.add(g)
            named[t] = g
    return named


def _free(op: Emitter, rules: str, t: ir.Value) -> str:
    """``R/t``; in a graph that has it already, ``R^2/t``: the gradient of what holds a gradient."""
    name, order = gradient_name(rules, _name(t)), 1
    while name in op.taken:
        order += 1
        name = gradient_name(f"{rules}^{order}", _name(t))
    return name
