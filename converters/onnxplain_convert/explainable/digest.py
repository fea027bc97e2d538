"""Names a model by what it computes: its forward graph and the bytes of its weights."""

from __future__ import annotations

import hashlib

import onnx_ir as ir

from onnxplain_convert.inferring import without_weights


def digest(model: ir.Model) -> str:
    """SHA-256 (hex) over the canonical forward graph and every initializer.

    Does not depend on the file's name, on documentation or metadata, nor on where and in what order weights are stored.
    """
    proto = without_weights(model)
    graph = proto.graph
    graph.name = ""
    for field in ("doc_string", "value_info", "metadata_props", "initializer", "quantization_annotation"):
        graph.ClearField(field)
    inputs = sorted(graph.input, key=lambda x: x.name)
    del graph.input[:]
    graph.input.extend(inputs)
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    sha = hashlib.sha256(graph.SerializeToString(deterministic=True))
    sha.update(repr(sorted(model.opset_imports.items())).encode())
    for name, value in sorted(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None:
            sha.update(f"{name}:{tensor.dtype.name}:{list(tensor.shape.numpy())}:".encode())
            sha.update(memoryview(tensor.tobytes()))
    return sha.hexdigest()
