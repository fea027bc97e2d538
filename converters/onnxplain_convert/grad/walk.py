"""The walk: one reverse pass over a canonical graph, emitting the backward pass of every rule set asked for.

It does everything that rules have in common: it prunes to the nodes between what is differentiated and the seeds, sums
gradients to their input's shape after broadcasting, accumulates them, checks type, rank and number, names backward nodes
after the forward node and records which rule made them. Then the rule of ``Add`` is ``return g, g``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.artifact import gradient_name, seed_name
from onnxplain.errors import NotFound, Unsupported, nearest
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import dims, is_float


@dataclass(frozen=True)
class Differentiated:
    """What the walk did, by names: ``gradients`` {rule set: {tensor: tensor holding its gradient}}."""

    gradients: dict[str, dict[str, str]] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    """Nodes between what is differentiated and what is explained, in execution order."""
    zero_gradient: tuple[str, ...] = ()
    """Piecewise constant nodes on the way from the inputs: their gradient is zero by definition."""
    unreachable: tuple[str, ...] = ()
    """Differentiated tensors that cannot influence the explained outputs: their gradient is an explicit zero."""


def differentiate_graph(
    model: ir.Model, wrt: Sequence[str], outputs: Sequence[str], rules: Sequence[RuleSet]
) -> Differentiated:
    """Add to a canonical model, in place, inputs ``seed/y`` and outputs ``R/t``: the gradient of sum(seed/y * y) under R.

    Raises Unsupported (node, operator, opset, what to do) where a node on the path has no rule, NotFound for unknown names.
    """
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    sources = [_value(values, name, "tensor to differentiate") for name in wrt]
    explained = [_value(values, name, "output") for name in outputs]
    nodes = list(graph)
    op = Emitter(graph, model.opset_imports[""])
    path = _Path.find(nodes, sources, explained, rules[0], op.opset)

    seeds: dict[ir.Value, ir.Value] = {}
    for y in explained:
        seed = ir.val(seed_name(_name(y)), y.dtype, None if y.shape is None else y.shape.copy())
        graph.inputs.append(seed)
        seeds[y] = seed

    gradients: dict[str, dict[str, str]] = {}
    for rule_set in rules:
        found = _Walk(op, rule_set, path, seeds).run()
        named = _name_gradients(op, rule_set.name, found, sources)
        gradients[rule_set.name] = {_name(t): _name(g) for t, g in named.items()}
    RemoveUnusedNodesPass()(model)
    return Differentiated(
        gradients=gradients,
        path=tuple(n.name or "" for n in path.nodes),
        zero_gradient=tuple(n.name or "" for n in path.constant),
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


@dataclass(frozen=True)
class _Path:
    nodes: list[ir.Node]
    active: set[ir.Value]
    """Values that depend differentiably on what is differentiated."""
    useful: set[ir.Value]
    """Values that the explained outputs depend on differentiably."""
    constant: list[ir.Node]

    @classmethod
    def find(
        cls, nodes: list[ir.Node], sources: list[ir.Value], explained: list[ir.Value], rules: RuleSet, opset: int
    ) -> _Path:
        active, constant = set(sources), []
        for node in nodes:
            if not _reads(node, active):
                continue
            if rules.why_none(node) is None:
                active.update(v for v in node.outputs if is_float(v))
            elif _is_piecewise_constant(node):
                constant.append(node)
        useful: set[ir.Value] = set(explained)
        path: list[ir.Node] = []
        reached: set[ir.Value] = set(explained)
        for node in reversed(nodes):
            if reached.isdisjoint(node.outputs):
                continue
            reached.update(v for v in node.inputs if v is not None)
            if useful.isdisjoint(node.outputs) or active.isdisjoint(node.outputs):
                continue
            useful.update(v for v in node.inputs if v is not None and v in active)
            path.append(node)
        path = [n for n in reversed(path) if _reads(n, active)]
        constant = [n for n in constant if not reached.isdisjoint(n.outputs)]
        for node in path:
            if rules.state(node, opset) == "missing":
                raise _missing(node, rules, opset, path)
        return cls(path, active, useful, constant)


def _reads(node: ir.Node, values: set[ir.Value]) -> bool:
    inner = (v for g in _subgraphs(node) for n in g.all_nodes() for v in n.inputs)
    return not values.isdisjoint(node.inputs) or any(v in values for v in inner)  # type: ignore[arg-type]


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]


def _is_piecewise_constant(node: ir.Node) -> bool:
    """As against Shape and its like, which do not look at the values at all."""
    return node.op_type not in {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}


def _missing(node: ir.Node, rules: RuleSet, opset: int, path: list[ir.Node]) -> Unsupported:
    full = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    count = sum((n.domain, n.op_type) == (node.domain, node.op_type) for n in path)
    return Unsupported(
        f"{full} {node.name!r} (opset {opset}; {count} such on the path): rule set {rules.name!r} has no rule for it. "
        f"{nearest(node.op_type, rules.operators())}. Take the gradient with respect to a tensor behind the node (wrt=), "
        f"or add a rule: RuleSet({rules.name!r}).rule({node.op_type!r})."
    )


class _Walk:
    def __init__(self, op: Emitter, rules: RuleSet, path: _Path, seeds: dict[ir.Value, ir.Value]) -> None:
        self.op, self.rules, self.path = op, rules, path
        self.pending: dict[ir.Value, list[ir.Value]] = {y: [seed] for y, seed in seeds.items()}
        self.done: dict[ir.Value, ir.Value] = {}

    def run(self) -> dict[ir.Value, ir.Value]:
        """The accumulated gradient of every tensor on the path."""
        for node in reversed(self.path.nodes):
            gs = tuple(self.gradient(v) for v in node.outputs)
            if all(g is None for g in gs):
                continue
            for value, contribution in zip(node.inputs, self.backward(node, gs), strict=True):
                if value is not None and contribution is not None and value in self.path.active:
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
                    first = self.op.Add(first, other)
            self.done[value] = first
        return self.done.get(value)

    def backward(self, node: ir.Node, gs: Gradients) -> Gradients:
        wanted = frozenset(i for i, v in enumerate(node.inputs) if v is not None and v in self.path.active)
        b = Backward(self.op, node, tuple(node.inputs), tuple(node.outputs), gs, wanted, self.standard)
        props = {"onnxplain.rule": f"{self.rules.name}/{node.op_type}"}
        with self.op.scope(gradient_name(self.rules.name, node.name or node.op_type), props):
            return self.apply(self.rules, b)

    def standard(self, b: Backward) -> Gradients:
        *_, root = self.rules.lineage()
        return self.apply(root, b)

    def apply(self, rules: RuleSet, b: Backward) -> Gradients:
        rule = rules.find(b.node, b.opset)
        if rule is None:
            raise _missing(b.node, rules, b.opset, self.path.nodes)
        result = rule(b)
        given = (result,) if isinstance(result, ir.Value) or result is None else tuple(result)
        if any(g is not None for g in given[len(b.inputs) :]):
            raise TypeError(
                f"the rule of {b.node.op_type} gave {len(given)} gradients for {len(b.inputs)} inputs. This is a bug."
            )
        given = (given + (None,) * len(b.inputs))[: len(b.inputs)]
        return tuple(
            None if g is None or x is None or i not in b.wanted else self.fit(b, i, g, x)
            for i, (g, x) in enumerate(zip(given, b.inputs, strict=True))
        )

    def fit(self, b: Backward, index: int, g: ir.Value, x: ir.Value) -> ir.Value:
        """A contribution in its input's shape and type: here a wrong rule is caught."""
        g = self.op.sum_to(g, x)
        have, want = dims(g), dims(x)
        wrong = have is not None and want is not None and len(have) != len(want)
        wrong = wrong or any(
            isinstance(h, int) and isinstance(w, int) and h != w for h, w in zip(have or (), want or (), strict=False)
        )
        if g.dtype != x.dtype or wrong:
            raise TypeError(
                f"the rule of {b.node.op_type} {b.node.name!r} gave input {index} a gradient of {g.dtype} {have} "
                f"for a tensor of {x.dtype} {want}. This is a bug in the rule."
            )
        return self.op.typed(g, x)


def _name_gradients(
    op: Emitter, rules: str, found: dict[ir.Value, ir.Value], sources: Sequence[ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Name every gradient ``R/t``; an output gets a value of its own where the gradient is shared with another tensor."""
    named: dict[ir.Value, ir.Value] = {}

    def is_free(g: ir.Value) -> bool:
        return g in op.emitted and not g.is_graph_output() and g not in named.values()

    for t in sources:
        g = found.get(t)
        with op.scope(gradient_name(rules, f"{t.name}/output")):
            g = op.zeros_like(t) if g is None else g
            named[t] = g if is_free(g) else op.anew(g)
        named[t].name = gradient_name(rules, _name(t))
        op.graph.outputs.append(named[t])
    taken = set(named.values())
    for t, g in found.items():
        if t not in named:
            if g in op.emitted and g not in taken:
                g.name = gradient_name(rules, _name(t))
                taken.add(g)
            named[t] = g
    return named
