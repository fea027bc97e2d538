"""The body of a branch or a loop on the way to its backward pass: a copy of the forward body, to be appended to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Walk
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import dims


@dataclass
class Body:
    """A copy of a subgraph with names of its own, an emitter for it, and the walk to go back through it."""

    name: str
    graph: ir.Graph
    op: Emitter
    walk: Walk

    @classmethod
    def copy(cls, b: Backward, forward: ir.Graph, closed: bool = False) -> Body:
        """``closed``: what the copy needs of constants it must hold itself."""
        graph = forward.clone(allow_outer_scope_values=True)
        name = b.op.unique("body")
        _rename(graph, name)
        op = Emitter(graph, b.opset, outer=b.op, closed=closed)
        return cls(name, graph, op, b.walk.inside(op))

    def input_like(self, value: ir.Value) -> ir.Value:
        """A new value of the same type, to become an input of the graph."""
        shape = None if value.shape is None else value.shape.copy()
        return ir.val(self.op.unique("in"), value.dtype, shape)

    @contextmanager
    def before(self) -> Iterator[None]:
        """What is emitted inside comes before all nodes of the copied body."""
        nodes = list(self.graph)
        self.graph.remove(nodes)
        yield
        self.graph.extend(nodes)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """``new`` wherever the body read ``old``, its outputs included."""
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)

    def gradients(
        self, seeds: Iterable[tuple[ir.Value, ir.Value | None]], sources: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """The gradients of ``sources`` given those arriving at values of the body, zeros where nothing arrives."""
        arriving: dict[ir.Value, ir.Value] = {}
        for y, g in seeds:
            if g is not None:
                arriving[y] = self.op.Add(arriving[y], g) if y in arriving else g
        found = self.walk.through(arriving, list(sources))
        return [self.op.zeros_like(x) if g is None else g for x, g in zip(sources, found, strict=True)]

    def finish(self, outputs: Sequence[ir.Value]) -> None:
        """Make these the body's outputs, each a value of its own computed inside."""
        self.graph.outputs.clear()
        for value in outputs:
            self.graph.outputs.append(self.op.anew(value))


def stacked(value: ir.Value) -> ir.Value:
    """The type of a scan output: ``value`` with a leading axis of unknown length."""
    shape = dims(value)
    return ir.val(None, value.dtype, None if shape is None else ir.Shape([None, *shape]))


def _rename(graph: ir.Graph, prefix: str) -> None:
    """No name of the copy may be one of the original's: ONNX names are unique across a graph and its subgraphs."""
    for value in (*graph.inputs, *graph.initializers.values()):
        value.name = f"{prefix}/{value.name}"
    for node in graph:
        node.name = f"{prefix}/{node.name}"
        for value in node.outputs:
            if value.name:
                value.name = f"{prefix}/{value.name}"
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _rename(attribute.as_graph(), prefix)
