"""Puts nodes that an exporter left in training mode into inference mode: what is explained is the model in use."""

from __future__ import annotations

import onnx_ir as ir


def to_inference_mode(model: ir.Model) -> list[str]:
    """Edit BatchNormalization and Dropout nodes in place; returns one sentence per kind of change.

    Running statistics that a graph still outputs become the (unchanged) stored ones; a Dropout becomes an Identity.
    """
    normalised = dropped = 0
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type == "BatchNormalization" and node.domain == "" and _training_attribute(node):
            _stored_statistics(node)
            normalised += 1
        elif node.op_type == "Dropout" and node.domain == "" and _training_input(node):
            dropped += _to_identity(node)
    changes = []
    if normalised:
        changes.append(f"{normalised} BatchNormalization were in training mode: now with their stored statistics")
    if dropped:
        changes.append(f"{dropped} Dropout were in training mode: now Identity")
    return changes


def _training_attribute(node: ir.Node) -> bool:
    attribute = node.attributes.get("training_mode")
    return attribute is not None and attribute.as_int() == 1


def _stored_statistics(node: ir.Node) -> None:
    del node.attributes["training_mode"]
    for output, stored in zip(node.outputs[1:], node.inputs[3:], strict=False):
        _redirect(node, output, stored)
    node.resize_outputs(1)


def _training_input(node: ir.Node) -> bool:
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    return mode is not None and mode.const_value is not None and bool(mode.const_value.numpy().item())


def _to_identity(node: ir.Node) -> int:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        node.replace_input_with(2, None)  # its mask is read: Dropout without a mode is the identity and a mask of ones
        return 1
    node.op_type = "Identity"
    node.attributes.clear()
    node.resize_inputs(1)
    node.resize_outputs(1)
    return 1


def _redirect(node: ir.Node, output: ir.Value, source: ir.Value | None) -> None:
    """Everything that read ``output`` reads ``source``; a graph output keeps its name through an Identity."""
    graph = node.graph
    if output.is_graph_output() and isinstance(graph, ir.Graph):
        copy = ir.node("Identity", [source], name=f"{node.name}/{output.name}")
        result = copy.outputs[0]
        result.name, output.name = output.name, f"{output.name}/unused"
        result.type, result.shape = output.type, output.shape
        graph.insert_before(node, copy)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
    elif source is not None:
        output.replace_all_uses_with(source)
