"""Takes the backward pass of outputs that nobody explains out of a cut graph.

An artifact's gradient is that of all explained outputs together, each with a seed of its own. A program explains one:
the other seeds are zero, and so is everything linear in them, which is left out instead of computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxplain.engine.emit import Emit
from onnxplain.errors import BadModel

ANY_INPUT = frozenset({"Mul", "MatMul"})
"""Zero where any input is."""
SHAPING = frozenset({"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile"})
LINEAR = frozenset({"Neg", "Div", "Slice", "Gather", "ReduceSum", "ReduceMean", "Conv", "ConvTranspose", "Gemm"})
FIRST_INPUT = SHAPING | LINEAR
"""Zero where the first input is (and there is no bias)."""


def silence(graph: ir.Graph, seeds: Sequence[ir.Value]) -> dict[ir.Value, ir.Value]:
    """Let every sum skip the terms that are zero when ``seeds`` are; returns sum -> what takes its place.

    What is not known to be zero goes on to depend on its seed, on which :func:`zeros` puts zeros.
    """
    zero = set(seeds)
    replaced: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if not any(v in zero for v in node.inputs):
            continue
        out = node.outputs[0]
        if _is_zero(node, zero):
            zero.add(out)
        elif node.op_type in ("Add", "Sum"):
            kept = [v for v in node.inputs if v is not None and v not in zero]
            # A term may be broadcast to the shape of the one that goes.
            if len(kept) == 1 and kept[0].shape is not None and kept[0].shape == out.shape:
                ir.convenience.replace_all_uses_with(out, kept[0])
                replaced[out] = kept[0]
    return replaced


def zeros(graph: ir.Graph, outputs: Mapping[ir.Value, ir.Value]) -> None:
    """Put zeros on the seeds that are still asked for; ``outputs``: seed -> its output, whose shape they have."""
    op = Emit(graph)
    for seed, y in outputs.items():
        if seed.dtype is None:
            raise BadModel(f"{seed.name!r} has no type: convert the model again")
        zero = op.constant(0.0, seed.dtype.numpy())
        ir.convenience.replace_all_uses_with(seed, op("Expand", zero, op("Shape", y)))


def _is_zero(node: ir.Node, zero: set[ir.Value]) -> bool:
    first, *others = node.inputs
    if node.op_type in ANY_INPUT:
        return True
    if node.op_type in FIRST_INPUT:
        has_bias = node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2
        return first in zero and not has_bias
    if node.op_type == "Where":  # a gate: its condition comes from the forward pass, its other branch is a constant
        return first not in zero and all(v in zero or _is_constant_zero(v) for v in others)
    return node.op_type in ("Add", "Sum", "Sub") and all(v in zero for v in node.inputs)


def _is_constant_zero(value: ir.Value | None) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size == 1 and not tensor.numpy().any()
