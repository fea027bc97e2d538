"""A convolution's gradient as a convolution: ConvTranspose -> Conv with the flipped, transposed weight.

With stride 1, output o is the sum over kernel positions k with o + skip = i + d * k of x[i] * w[k]: a convolution whose
kernel runs backwards. A stride is zeros between the elements of x. Exact: the same products, summed in another order,
and products with zero. The weight's new order is nodes on the weight, folded at load.

ONNX Runtime's Conv keeps the blocked layout that ConvTranspose leaves, and has a depthwise kernel that ConvTranspose
lacks. Measured on one thread (batch 4, milliseconds before -> after): 3x3 of 64 channels at 56x56 22 -> 19, of 256 at
14x14 19 -> 16; depthwise 3x3 of 96 at 56x56 2.4 -> 1.1, 5x5 of 240 at 28x28 8.2 -> 0.9. What the strides
bring, and the layout they pass through, is in ``phases.py``; which grouped convolutions pay, in ``groups.py``.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.engine.emit import Emit
from onnxplain.engine.lowering import phases
from onnxplain.engine.lowering.transposed import Transposed, crop_of


def as_conv(op: Emit, node: ir.Node) -> ir.Value | None:
    """The output of ``node``, a ConvTranspose or the Slice that crops one, by Conv. None where it stays."""
    if node.op_type == "ConvTranspose" and crop_of(node) is not None:
        return None  # the Slice comes next
    found = Transposed.of(node)
    if found is None:
        return None
    if set(found.strides) == {1}:
        return _flipped(op, found, found.x)
    if set(found.dilations) != {1}:
        return None
    if found.depthwise:
        return _flipped(op, found, phases.spread(op, found))
    images = any(user.op_type in phases.ON_IMAGES for user, _ in node.outputs[0].uses())
    return phases.interleaved(op, found, images=images)


def _flipped(op: Emit, t: Transposed, x: ir.Value) -> ir.Value | None:
    """The convolution on ``x``, which has the zeros that the strides put between elements, and after the last one."""
    reach = [d * (k - 1) for d, k in zip(t.dilations, t.kernel, strict=True)]
    size = [n * s for n, s in zip(t.x_size, t.strides, strict=True)]
    before = [r - s for r, s in zip(reach, t.skip, strict=True)]
    after = [out + r - n - b for out, r, n, b in zip(t.out_size, reach, size, before, strict=True)]
    if min(before + after) < 0:
        return None
    weight, group = t.exchanged(op)
    for axis, k in enumerate(t.kernel, start=2):
        if k > 1:
            weight = op("Gather", weight, op.ints(*range(k - 1, -1, -1)), axis=axis)
    return op(
        "Conv",
        x,
        weight,
        group=group,
        kernel_shape=t.kernel,
        dilations=t.dilations,
        pads=before + after,
    )
