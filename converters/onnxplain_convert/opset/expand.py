"""Expands a node through its operator's ONNX function body, as an operator of the standard defines itself by others."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxplain_convert.opset.site import Site


def function_body(node: ir.Node, version: int, target: int) -> onnx.FunctionProto | None:
    """The function that defines the node's operator, for the newest opset up to ``target``, else for ``version``.

    None where the operator has none. Context-dependent bodies need the types of the node's inputs.
    """
    schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)  # onnx's stubs lack the function bodies
    if schema.has_function:
        versions = sorted(schema.function_opset_versions)
        chosen = max((v for v in versions if v <= target), default=versions[0])
        return _parsed(schema.get_function_with_opset_version(chosen))
    if schema.has_context_dependent_function:
        types = [_type_of(v) for v in node.inputs]
        if any(v is not None and not t for v, t in zip(node.inputs, types, strict=True)):
            return None
        versions = sorted(schema.context_dependent_function_opset_versions)
        chosen = max((v for v in versions if v <= target), default=versions[0])
        proto = ir.to_proto(node).SerializeToString()
        return _parsed(schema.get_context_dependent_function_with_opset_version(chosen, proto, types))
    return None


def _parsed(body: bytes | None) -> onnx.FunctionProto | None:
    if not body:
        return None
    function = onnx.FunctionProto()
    function.ParseFromString(body)
    return function


def _type_of(value: ir.Value | None) -> bytes:
    if value is None or value.type is None:
        return b""
    return bytes(ir.serde.serialize_value(value).type.SerializeToString())


def expand(site: Site, function: onnx.FunctionProto, version: int) -> list[ir.Node]:
    """Put the body in the node's place and return the new nodes, each marked with the opset that it is written in.

    ``version``: the opset to assume where the function does not say. Outputs keep their names.
    """
    node = site.node
    spell_out_defaults(node, onnx.defs.get_schema(node.op_type, version, node.domain))
    # Bodies leave out what a node with fewer outputs does not ask for, but still list it.
    made = {*function.input, *(name for inner in function.node for name in inner.output)}
    kept = [i for i, name in enumerate(function.output) if name in made and i < len(node.outputs)]
    names = [function.output[i] for i in kept]
    del function.output[:]
    function.output.extend(names)
    body = ir.serde.deserialize_function(function)
    for inner in body.all_nodes():
        inner.version = body.opset_imports.get("", version)
    body.opset_imports.clear()
    return _splice(site, body, [node.outputs[i] for i in kept])


def spell_out_defaults(node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """Give the node every attribute whose default it relies on: function bodies refer to attributes by name."""
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)


def _splice(site: Site, body: ir.Function, outputs: list[ir.Value]) -> list[ir.Node]:
    """Inline one call through onnx-ir's own pass, in a graph of its own, and move the result into the node's graph."""
    node = site.node
    function = ir.Function("onnxplain", "body", graph=body.graph, attributes=list(body.attributes.values()))
    inputs = [None if v is None else ir.Value(name=f"in_{i}", type=v.type) for i, v in enumerate(node.inputs)]
    call = ir.Node("onnxplain", "body", inputs, node.attributes, num_outputs=len(outputs), name=node.name)
    for i, value in enumerate(call.outputs):
        value.name = f"out_{i}"
    given = {v: w for v, w in zip(inputs, node.inputs, strict=True) if v is not None}
    graph = ir.Graph(list(given), call.outputs, nodes=[call], opset_imports={})
    InlinePass()(ir.Model(graph, ir_version=10, functions=[function]))
    made, results = list(graph), list(graph.outputs)
    for inner in ir.traversal.RecursiveGraphIterator(graph):
        inner.name = site.fresh(f"{node.name}/{inner.name or inner.op_type}")
        for value in inner.outputs:
            value.name = site.fresh(f"{node.name}/{value.name}")
        for i, read in enumerate(inner.inputs):
            if read in given:
                inner.replace_input_with(i, given[read])
    graph.outputs.clear()
    graph.remove(made)
    names = [v.name for v in outputs]
    ir.convenience.replace_nodes_and_values(site.graph, node, [node], made, outputs, results)
    for value, name in zip(results, names, strict=True):
        value.name = name
    return made
