"""Any ONNX model with all its floating-point values in another precision; in double, rounding does not touch it.

What a float32 file cannot say more exactly (weights, epsilon attributes) stays as it is, only the arithmetic changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "output_dtype", "softmax_precision", "result_type"})
"""Integer attributes that hold an element type."""

FLOAT_BY_DEFAULT = {
    "HannWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "BlackmanWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
    "RandomNormal": "dtype",
    "RandomUniform": "dtype",
    "SequenceEmpty": "dtype",
}
"""Operators that make float32 out of nothing unless this attribute says otherwise."""


@dataclass(frozen=True)
class Precision:
    """Replaces the element types ``old`` by ``new``: models, functions, subgraphs, attributes."""

    old: frozenset[int]
    new: int

    def model(self, model: ModelProto) -> ModelProto:
        changed = ModelProto()
        changed.CopyFrom(model)
        self._graph(changed.graph)
        for function in changed.functions:
            self._function(function)
        return changed

    def function(self, function: FunctionProto) -> FunctionProto:
        """onnx evaluates some operators through the function body of their schema."""
        changed = FunctionProto()
        changed.CopyFrom(function)
        self._function(changed)
        return changed

    def _function(self, function: FunctionProto) -> None:
        self._nodes(function.node)
        for info in function.value_info:
            self._type(info.type)

    def _graph(self, graph: GraphProto) -> None:
        for info in (*graph.input, *graph.output, *graph.value_info):
            self._type(info.type)
        for tensor in graph.initializer:
            self._tensor(tensor)
        for sparse in graph.sparse_initializer:
            self._tensor(sparse.values)
        self._nodes(graph.node)

    def _type(self, kind: TypeProto) -> None:
        match kind.WhichOneof("value"):
            case "tensor_type" if kind.tensor_type.elem_type in self.old:
                kind.tensor_type.elem_type = self.new
            case "sparse_tensor_type" if kind.sparse_tensor_type.elem_type in self.old:
                kind.sparse_tensor_type.elem_type = self.new
            case "sequence_type":
                self._type(kind.sequence_type.elem_type)
            case "optional_type":
                self._type(kind.optional_type.elem_type)

    def _tensor(self, tensor: TensorProto) -> None:
        if tensor.data_type in self.old:
            array, dtype = onnx.numpy_helper.to_array(tensor), onnx.helper.tensor_dtype_to_np_dtype(self.new)
            least = np.finfo(dtype).min  # an attention mask holds the least float64, which becomes the least float32
            finite = np.isfinite(array.astype(np.float64))
            array = np.where(finite, np.clip(array.astype(np.float64), least, -least), array).astype(dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    def _nodes(self, nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                self._attribute(attribute)
            present = {attribute.name for attribute in node.attribute}
            if TensorProto.FLOAT not in self.old:
                continue
            if node.op_type == "ConstantOfShape" and "value" not in present:
                zero = onnx.numpy_helper.from_array(np.zeros(1, onnx.helper.tensor_dtype_to_np_dtype(self.new)))
                node.attribute.append(onnx.helper.make_attribute("value", zero))
            default = FLOAT_BY_DEFAULT.get(node.op_type)
            if default is not None and default not in present:
                node.attribute.append(onnx.helper.make_attribute(default, self.new))

    def _attribute(self, attribute: AttributeProto) -> None:
        if attribute.name in TYPE_ATTRIBUTES and attribute.i in self.old:
            attribute.i = self.new
        elif attribute.name in ("value_float", "value_floats") and TensorProto.FLOAT in self.old:  # Constant's
            floats = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            tensor = onnx.numpy_helper.from_array(np.asarray(floats, onnx.helper.tensor_dtype_to_np_dtype(self.new)))
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
        self._tensor(attribute.t)
        self._tensor(attribute.sparse_tensor.values)
        for tensor in attribute.tensors:
            self._tensor(tensor)
        if attribute.type == AttributeProto.GRAPH:
            self._graph(attribute.g)
        for graph in attribute.graphs:
            self._graph(graph)


FLOAT64 = Precision(frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}), TensorProto.DOUBLE)
FLOAT32 = Precision(frozenset({TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}), TensorProto.FLOAT)


def to_float64(model: ModelProto) -> ModelProto:
    """A copy of ``model`` in double precision."""
    return FLOAT64.model(model)


def to_float32(model: ModelProto) -> ModelProto:
    """A copy of ``model`` in single precision, its weights rounded."""
    return FLOAT32.model(model)
