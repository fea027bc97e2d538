"""Types and shapes of one node's results, by ONNX's own inference for that operator."""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir

from onnxplain_convert.graph.shapes import const_array, dims, is_sequence

_SMALL = 64
"""Constants up to so many elements are shown to inference: shapes, axes, bounds."""


@functools.cache
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op_type, opset, "")


class Types:
    """Infers node by node, remembering the types that it has already put into ONNX's form."""

    def __init__(self) -> None:
        self._protos: dict[ir.Value, onnx.TypeProto] = {}

    def forget(self, value: ir.Value) -> None:
        """The value's type or shape has changed."""
        self._protos.pop(value, None)

    def infer(self, node: ir.Node, opset: int) -> None:
        """Give the outputs of a node of the default domain their types and, where they follow, their shapes.

        Raises TypeError where ONNX says that the node is invalid.
        """
        present = [v for v in node.inputs if v is not None]
        names = {v: f"i{k}" for k, v in enumerate(dict.fromkeys(present))}
        proto = onnx.NodeProto(op_type=node.op_type)
        proto.input.extend("" if v is None else names[v] for v in node.inputs)
        proto.output.extend(f"o{k}" for k in range(len(node.outputs)))
        proto.attribute.extend(ir.serde.serialize_attribute(a) for a in node.attributes.values())
        try:
            found = onnx.shape_inference.infer_node_outputs(
                _schema(node.op_type, opset),
                proto,
                {names[v]: self._proto(v) for v in names},
                input_data={name: data for v, name in names.items() if (data := _data(v, name)) is not None},
                opset_imports=[onnx.helper.make_opsetid("", opset)],
                ir_version=10,
            )
        except Exception as error:
            shapes = ", ".join(f"{v.name}: {v.dtype} {dims(v)}" for v in present)
            raise TypeError(f"an invalid {node.op_type}-{opset} ({node.name}) on {shapes}: {error}") from error
        for k, value in enumerate(node.outputs):
            if f"o{k}" in found:
                value.type = ir.serde.deserialize_type_proto_for_type(found[f"o{k}"])
                value.shape = ir.serde.deserialize_type_proto_for_shape(found[f"o{k}"])

    def _proto(self, value: ir.Value) -> onnx.TypeProto:
        proto = self._protos.get(value)
        if proto is None:
            if value.dtype is None:
                raise TypeError(f"{value.name} has no type")
            if is_sequence(value):
                return ir.serde.serialize_value(value).type
            proto = onnx.helper.make_tensor_type_proto(int(value.dtype), dims(value))
            if value.shape is not None:
                self._protos[value] = proto
        return proto


def _data(value: ir.Value, name: str) -> onnx.TensorProto | None:
    """The integers of a small constant, which shapes depend on."""
    if not value.is_initializer() or value.const_value is None or value.const_value.size > _SMALL:
        return None
    array = const_array(value)
    return None if array is None or array.dtype.kind not in "iu" else onnx.numpy_helper.from_array(array, name)
