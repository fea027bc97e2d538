"""The place in a graph where a node is rewritten: constants, extra nodes and attributes, named after the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from onnxplain.errors import Unsupported
from onnxplain_convert.graph.shapes import const_array


@dataclass
class Site:
    """One node under conversion, whose form is at present that of opset ``version``."""

    node: ir.Node
    version: int
    target: int
    """Opset that the model is brought to."""
    notes: list[str]
    """Sentences for the user about what had to be decided."""
    taken: set[str]
    """Names of values and nodes in use anywhere in the model."""

    @property
    def graph(self) -> ir.Graph:
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        return graph

    @property
    def where(self) -> str:
        full = f"{self.node.domain}::{self.node.op_type}" if self.node.domain else self.node.op_type
        return f"{full}-{self.version} {self.node.name!r}"

    def attribute(self, name: str, default: Any = None) -> Any:
        """Python value of an attribute (str, int, float, sequence), or the default."""
        attr = self.node.attributes.get(name)
        return default if attr is None else attr.value

    def take(self, name: str, default: Any = None) -> Any:
        """The same, removing it from the node."""
        value = self.attribute(name, default)
        self.node.attributes.pop(name, None)
        return value

    def set(self, name: str, value: Any) -> None:
        self.node.attributes[name] = ir.convenience.convert_attribute(name, value)

    def fresh(self, name: str) -> str:
        """``name``, or the first of name_2, name_3, ... that is free."""
        candidate, n = name, 1
        while candidate in self.taken:
            n += 1
            candidate = f"{name}_{n}"
        self.taken.add(candidate)
        return candidate

    def constant(self, suffix: str, array: ArrayLike, dtype: ir.DataType) -> ir.Value:
        """A constant next to the node: an initializer of its graph."""
        tensor = ir.tensor(np.asarray(array, dtype.numpy()), dtype=dtype, name=self.fresh(f"{self.node.name}/{suffix}"))
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def put(self, index: int, value: ir.Value | None) -> None:
        """Make ``value`` the input at ``index``, with absent inputs before it where there are none yet."""
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, value)

    def insert(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        after: bool = False,
    ) -> ir.Value:
        """A new node with one output before (or after) this one, at the version that this node is being brought to."""
        name = self.fresh(f"{self.node.name}/{op}")
        made = ir.node(op, _trimmed(inputs), attributes or {}, name=name, version=self.target)
        made.outputs[0].name = name
        (self.graph.insert_after if after else self.graph.insert_before)(self.node, made)
        return made.outputs[0]

    def known(self, index: int) -> NDArray[Any] | None:
        """The value of a constant input, where it is one."""
        if index >= len(self.node.inputs):
            return None
        return const_array(self.node.inputs[index])

    def dtype(self, index: int = 0) -> ir.DataType:
        value = self.node.inputs[index]
        if value is None or value.dtype is None:
            raise Unsupported(f"{self.where}: the type of its input {index} is not known, so it cannot be converted")
        return value.dtype

    @property
    def x(self) -> ir.Value:
        """The first input."""
        value = self.node.inputs[0]
        assert value is not None, f"{self.where} has no first input. This is a bug."
        return value

    def given(self, index: int) -> ir.Value | None:
        """An optional input, None where it is absent."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def become(self, *results: ir.Value | None) -> None:
        """Take the node out and put ``results`` in the place of its outputs, under their names."""
        pairs = [(o, r) for o, r in zip(self.node.outputs, results, strict=False) if r is not None]
        for output, result in pairs:
            name = output.name
            output.name = self.fresh(f"{self.node.name}/replaced")
            ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
            result.name = name
        self.graph.remove(self.node, safe=True)

    def refuse(self, why: str) -> Unsupported:
        return Unsupported(f"{self.where} cannot be brought into opset 18 to 21: {why}")


def _trimmed(inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value | None]:
    """Without absent inputs at the end."""
    return inputs if not inputs or inputs[-1] is not None else _trimmed(inputs[:-1])
