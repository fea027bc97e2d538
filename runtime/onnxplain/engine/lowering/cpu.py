"""For ONNX Runtime's CPU provider, whose fast kernels keep a blocked layout through Conv, sums, products and pools."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.engine.emit import PREFIX, Emit
from onnxplain.engine.lowering import convolution, gate, images

REWRITES = {
    "ConvTranspose": convolution.as_conv,
    "Slice": convolution.as_conv,
    "Where": gate.as_product,
    "Sub": images.complement,
    "Add": images.added,
    "Mul": images.multiplied,
    "ReduceMean": images.mean,
    "ReduceSum": images.mean,
}
"""Operator -> rewrite: returns what takes the place of a node's output, or None to leave the node as it is."""


def lower(model: ir.Model) -> None:
    """Rewrite ``model`` in place."""
    op = Emit(model.graph, prefix=f"{PREFIX}lowered/")
    for node in list(model.graph):
        rewrite = REWRITES.get(node.op_type) if node.domain == "" else None
        made = rewrite(op, node) if rewrite is not None else None
        if made is not None:
            old = node.outputs[0]
            made.type, made.shape = old.type, old.shape
            ir.convenience.replace_all_uses_with(old, made)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
