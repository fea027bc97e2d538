"""What a rule sees: one node, the gradient arriving at it, an emitter, and the standard rule of the same node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import dims, is_float

READS_CODES = frozenset({
    "Cast", "CastLike", "DequantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul",
})  # fmt: skip
"""Operators whose own rules take integer codes."""

Gradients = tuple["ir.Value | None", ...]


class Walk(Protocol):
    """The part of the walk that a rule may call on."""

    def standard(self, b: Backward) -> Gradients: ...

    def through(self, outputs: Mapping[ir.Value, ir.Value | None], sources: Sequence[ir.Value]) -> Gradients: ...

    def inside(self, op: Emitter) -> Walk: ...


@dataclass(frozen=True)
class Backward:
    """Everything a rule may look at. ``gs``: the gradients arriving at the outputs, None where nothing arrives."""

    op: Emitter
    node: ir.Node
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]
    gs: Gradients
    wanted: frozenset[int]
    walk: Walk

    @property
    def g(self) -> ir.Value:
        """The gradient arriving at the first output."""
        g = self.gs[0]
        if g is None:
            g = self.op.zeros_like(self.outputs[0])
        return g

    @property
    def opset(self) -> int:
        return self.op.opset

    @property
    def x(self) -> ir.Value:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> ir.Value:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int) -> ir.Value:
        """An input that is there."""
        value = self.inputs[index]
        assert value is not None, f"{self.node.op_type} {self.node.name!r} has no input {index}. This is a bug."
        return value

    def has(self, index: int) -> bool:
        """Is this optional input given?"""
        return index < len(self.inputs) and self.inputs[index] is not None

    def wants(self, index: int) -> bool:
        """Does anyone ask for the gradient of this input? What nobody asks for need not be emitted."""
        return index in self.wanted

    def g_or_zeros(self, index: int) -> ir.Value:
        """The gradient arriving at an output, zeros where it is not explained."""
        g = self.gs[index]
        return self.op.zeros_like(self.outputs[index]) if g is None else g

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute of the node as a Python value, else ``default``."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        value = attribute.value
        return list(value) if isinstance(value, tuple) else value

    def rank(self, value: ir.Value) -> int:
        """How many axes a value has. Raises Unsupported where that is not known."""
        shape = dims(value)
        if shape is None:
            raise Unsupported(
                f"{self.node.op_type} {self.node.name!r} (opset {self.opset}): rank of {value.name!r} not known: "
                "give the model's inputs shapes (symbolic axes will do), so that shape inference can find it."
            )
        return len(shape)

    def vjp(self, *, g: ir.Value | None = None, inputs: Sequence[ir.Value | None] | None = None) -> Gradients:
        """The standard rule of this node: for another arriving gradient, or emitted again on other inputs."""
        b = self if inputs is None else self._on(inputs)
        if g is not None:
            b = replace(b, gs=(g, *b.gs[1:]))
        return self.walk.standard(b)

    def in_floats(self) -> Backward:
        """Where the node moves or pools quantised codes: the same node on the codes as floating-point numbers."""
        codes = {x.dtype for i in self.wanted if not is_float(x := self.input(i))}
        if not codes or self.node.op_type in READS_CODES:
            return self
        g = next(g for g in self.gs if g is not None)
        inputs = [self.op.Cast(x, to=g.dtype) if x is not None and x.dtype in codes else x for x in self.inputs]
        return self._on(inputs)

    def _on(self, inputs: Sequence[ir.Value | None]) -> Backward:
        """The same node emitted again, on other inputs."""
        attributes = {k: a.value for k, a in self.node.attributes.items()}
        made = self.op.emit(self.node.op_type, *inputs, outputs=len(self.outputs), **attributes)
        outputs = made if isinstance(made, tuple) else (made,)
        return replace(self, node=outputs[0].producer(), inputs=tuple(inputs), outputs=outputs)

    def through(self, *outputs: ir.Value) -> Gradients:
        """The rule of an operator that decomposes: ``outputs`` are the node's, computed anew by simpler nodes."""
        arriving = dict(zip(outputs, self.gs, strict=False))
        sources = [x for i, x in enumerate(self.inputs) if x is not None and self.wants(i)]
        found = dict(zip(sources, self.walk.through(arriving, sources), strict=True))
        return tuple(None if x is None else found.get(x) for x in self.inputs)
