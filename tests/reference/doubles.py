"""Any ONNX model with every floating-point value in double precision: the model that rounding does not touch.

What a float32 file cannot say more exactly (weights, epsilon attributes) stays as it is, only the arithmetic changes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

NARROW = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})

TYPE_ATTRIBUTES = frozenset(
    {"to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision", "result_type"}
)
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


def to_float64(model: ModelProto) -> ModelProto:
    """A copy of ``model`` whose narrower floats are float64, in subgraphs and functions as well."""
    wide = ModelProto()
    wide.CopyFrom(model)
    _widen_graph(wide.graph)
    for function in wide.functions:
        _widen_function(function)
    return wide


def function_to_float64(function: FunctionProto) -> FunctionProto:
    """The same for one function: onnx evaluates some operators through the function body of their schema."""
    wide = FunctionProto()
    wide.CopyFrom(function)
    _widen_function(wide)
    return wide


def _widen_function(function: FunctionProto) -> None:
    _widen_nodes(function.node)
    for info in function.value_info:
        _widen_type(info.type)


def _widen_graph(graph: GraphProto) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(info.type)
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for sparse in graph.sparse_initializer:
        _widen_tensor(sparse.values)
    _widen_nodes(graph.node)


def _widen_type(kind: TypeProto) -> None:
    match kind.WhichOneof("value"):
        case "tensor_type" if kind.tensor_type.elem_type in NARROW:
            kind.tensor_type.elem_type = TensorProto.DOUBLE
        case "sparse_tensor_type" if kind.sparse_tensor_type.elem_type in NARROW:
            kind.sparse_tensor_type.elem_type = TensorProto.DOUBLE
        case "sequence_type":
            _widen_type(kind.sequence_type.elem_type)
        case "optional_type":
            _widen_type(kind.optional_type.elem_type)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in NARROW:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _widen_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            _widen_attribute(attribute)
        present = {attribute.name for attribute in node.attribute}
        if node.op_type == "ConstantOfShape" and "value" not in present:
            node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.zeros(1))))
        default = FLOAT_BY_DEFAULT.get(node.op_type)
        if default is not None and default not in present:
            node.attribute.append(onnx.helper.make_attribute(default, TensorProto.DOUBLE))


def _widen_attribute(attribute: AttributeProto) -> None:
    if attribute.name in TYPE_ATTRIBUTES and attribute.i in NARROW:
        attribute.i = TensorProto.DOUBLE
    elif attribute.name in ("value_float", "value_floats"):  # only Constant has these
        floats = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        tensor = onnx.numpy_helper.from_array(np.asarray(floats, np.float64))
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
    _widen_tensor(attribute.t)
    _widen_tensor(attribute.sparse_tensor.values)
    for tensor in attribute.tensors:
        _widen_tensor(tensor)
    if attribute.type == AttributeProto.GRAPH:
        _widen_graph(attribute.g)
    for graph in attribute.graphs:
        _widen_graph(graph)
