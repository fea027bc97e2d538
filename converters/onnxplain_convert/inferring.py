"""Types and shapes of every value, by ONNX's own inference, without handing it the weights."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnxplain.errors import BadModel

_SMALL = 1024
"""Bytes. Larger initializers cannot be shapes or axes; inference gets their type and shape alone."""


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """The graph as a proto with large initializers as inputs: cheap to serialise, enough to check or infer from."""
    light = model.clone()
    for value in list(light.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes > _SMALL:
            if tensor is not None:
                value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
                value.const_value = None
            light.graph.initializers.pop(value.name or "")
            if value not in light.graph.inputs:
                light.graph.inputs.append(value)
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    light.ir_version = max(light.ir_version, 4)  # before that initializers had to be inputs as well
    return ir.to_proto(light)


def infer(model: ir.Model, *, strict: bool) -> None:
    """Write inferred types and shapes onto the values. Raises BadModel where ``strict`` and they contradict."""
    try:
        proto = onnx.shape_inference.infer_shapes(
            without_weights(model), check_type=strict, strict_mode=strict, data_prop=True
        )
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise BadModel(f"types or shapes in the graph contradict each other: {error}".strip()) from error
    inferred = ir.from_proto(proto)
    for mine, theirs in zip(model.graphs(), inferred.graphs(), strict=True):
        known = ir.convenience.create_value_mapping(theirs)
        for name, value in ir.convenience.create_value_mapping(mine).items():
            other = known.get(name)
            if other is None:
                continue
            if other.type is not None and value.type != other.type:
                value.type = other.type
            if other.shape is not None and value.shape != other.shape:
                value.shape = other.shape


def forget_inner_shapes(model: ir.Model) -> None:
    """Drop what the file claims about inner tensors and outputs, so that inference decides (types stay)."""
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                value.shape = None
