"""A convolution's gradient as a convolution: ConvTranspose of stride 1 -> Conv with the flipped, transposed weight.

Output o of a transposed convolution is the sum over kernel positions k with o + p = i + d * k of x[i] * w[k]: a
convolution whose kernel runs backwards. Exact: the same products, summed in another order. The weight's new order is
nodes on the weight, folded at load.

ONNX Runtime's Conv keeps the blocked layout that ConvTranspose leaves, and has a depthwise kernel that ConvTranspose
lacks. Measured on one thread (batch 4, milliseconds before -> after): 3x3 of 64 channels at 56x56 22 -> 19, of 256 at
14x14 19 -> 16; depthwise 3x3 of 96 at 56x56 2.4 -> 1.1, 5x5 of 240 at 28x28 8.2 -> 0.9. Strides were tried as s * s
phases with DepthToSpace, in one convolution or one per phase: slower than ConvTranspose but for patch embeddings (a
whole gradient of a small ResNet 91 -> 110), so they stay; so do grouped convolutions (2.7 -> 3.4). CPU time of a whole
gradient of EfficientNet-Lite0, batch 4: 167 -> 138 ms.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.engine.emit import Emit


def as_conv(op: Emit, node: ir.Node) -> ir.Value | None:
    """The output of ``node``, a ConvTranspose of two spatial axes without bias, by Conv. None where it stays."""
    x, weight, *bias = node.inputs
    x_size, w_size, out_size = _static(x, 2), _static(weight, 4), _static(node.outputs[0], 2)
    if x is None or weight is None or x_size is None or w_size is None or out_size is None or bias:
        return None
    attributes = node.attributes
    if "output_shape" in attributes or attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    if set(attributes.get_ints("strides", [1, 1])) != {1}:
        return None
    group, (c, m, *kernel) = attributes.get_int("group", 1), w_size
    is_depthwise = group == c and m == 1
    if group > 1 and not is_depthwise:
        return None
    pads, dilations = attributes.get_ints("pads", [0] * 4), attributes.get_ints("dilations", [1, 1])
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    before = [r - p for r, p in zip(reach, pads[:2], strict=True)]
    after = [out + r - size - b for out, r, size, b in zip(out_size, reach, x_size, before, strict=True)]
    if min(before + after) < 0:
        return None
    return op(
        "Conv",
        x,
        _flipped(op, weight, kernel, transposed=not is_depthwise),
        group=group,
        kernel_shape=kernel,
        dilations=list(dilations),
        pads=before + after,
    )


def _flipped(op: Emit, weight: ir.Value, kernel: list[int], *, transposed: bool) -> ir.Value:
    """(C, M, K, K) as (M, C, K, K) with both kernel axes backwards; a depthwise weight (C, 1, K, K) keeps its axes."""
    turned = op("Transpose", weight, perm=[1, 0, 2, 3]) if transposed else weight
    for axis, size in enumerate(kernel, start=2):
        if size > 1:
            turned = op("Gather", turned, op.ints(*range(size - 1, -1, -1)), axis=axis)
    return turned


def _static(value: ir.Value | None, axes: int) -> list[int] | None:
    """Sizes of the last ``axes`` of four axes. None where there are not four, or a size is not known."""
    if value is None or value.shape is None or len(value.shape) != 4:
        return None
    sizes = [d for d in value.shape[4 - axes :] if isinstance(d, int)]
    return sizes if len(sizes) == axes else None
