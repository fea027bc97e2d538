"""Pools with ceil_mode whose shape ONNX's inference gets wrong until opset 21, said in a way that it gets right.

A window that would start in the end padding is left out by every runtime, but counted by shape inference: the inferred
shape, and all shapes behind it, are one too large. Without ceil_mode, and with the elements that the other axes reach
beyond the end as padding, the same windows are inferred as they are.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxplain_convert.graph.geometry import Windows, spatial

_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


def settle_one(model: ir.Model) -> bool:
    """Rewrite the first such pool, in place; False where there is none. Shapes behind it are to be inferred again."""
    return any(
        _settle(node) for graph in model.graphs() for node in graph if node.op_type in _POOLS and not node.domain
    )


def _settle(node: ir.Node) -> bool:
    x, kernel = node.inputs[0], node.attributes.get("kernel_shape")
    ceil_mode = node.attributes.get("ceil_mode")
    if x is None or kernel is None or ceil_mode is None or not ceil_mode.as_int():
        return False
    sizes = spatial(x, len(kernel.as_ints()))
    windows = Windows.of(node, kernel.as_ints(), sizes)
    if windows.begin is None or windows.end is None or windows.same:
        return False
    beyond, dropped = [], False
    axes = zip(sizes, windows.begin, windows.end, windows.extents, windows.strides, strict=True)
    for size, begin, end, extent, stride in axes:
        if not isinstance(size, int):
            return False
        room = size + begin + end - extent
        steps = -(-room // stride)
        drops = steps * stride >= size + begin
        dropped = dropped or drops
        beyond.append(0 if drops else steps * stride - room)
    counts_padding = node.attributes.get("count_include_pad")
    if not dropped or (any(beyond) and counts_padding is not None and counts_padding.as_int()):
        return False  # padding would count, what ceil_mode reaches beyond it does not
    ends = [end + more for end, more in zip(windows.end, beyond, strict=True)]
    if any(end >= size for end, size in zip(ends, windows.kernel, strict=True)):
        return False  # more than runtimes accept, which dilation can ask for
    node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
    node.attributes["pads"] = ir.AttrInt64s("pads", [*windows.begin, *ends])
    return True
