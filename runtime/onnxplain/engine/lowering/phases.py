"""Strided gradients. Row and column o of an image belong to phase o mod s, and each phase is a convolution of its own.

The s * s phases of a full convolution are s * s small convolutions, whose kernels are the kernel's every s-th element:
not one product more than the forward pass has. A phase that no element reaches (a kernel smaller than the stride) is
zeros. Exact: the same products, summed in another order.

Phases are put together, and zeros between elements, with channels last: there both are copies of whole vectors of
channels, and ONNX Runtime goes from its blocked layout to channels last and back by copying vectors too. The
depthwise 1x1 convolution with ones is what makes it go back at once, where a sum or a gate comes next.

Where the result has few channels, a picture, one convolution computes all phases as channels for DepthToSpace: a block
of 16 channels is the least that the blocked layout computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxplain.engine.emit import Emit
from onnxplain.engine.lowering.transposed import Transposed

ON_IMAGES = frozenset({"Where", "Add", "Sum", "Mul"})
"""What keeps the blocked layout but does not go back to it."""
PICTURE = 4
"""Channels: up to here a result is a picture."""


def spread(op: Emit, t: Transposed) -> ir.Value:
    """What is convolved, (n, c, h, w), with s - 1 zeros after every element of both axes: (n, c, h * s, w * s)."""
    return _channels_second(op, _zeros_after(op, t.x, t.weight_size[0], t.x_size, t.strides))


def interleaved(op: Emit, t: Transposed, *, images: bool) -> ir.Value | None:
    """The result of a full convolution; ``images``: wanted in the blocked layout. None where phases do not give it."""
    size = [-(-out // s) for out, s in zip(t.out_size, t.strides, strict=True)]
    if t.channels <= PICTURE and t.group == 1:
        return _picture(op, t, size)
    made = _spread_points(op, t) if max(t.kernel) == 1 else _woven(op, t, size)
    if made is None:
        return None
    full = [n * s for n, s in zip(size, t.strides, strict=True)]
    if full != list(t.out_size):
        made = op("Slice", made, op.ints(0, 0), op.ints(*t.out_size), op.ints(1, 2))
    result = _channels_second(op, made)
    if not images:
        return result
    return op("Conv", result, op.constant(np.ones((t.channels, 1, 1, 1)), np.float32), group=t.channels)


def _spread_points(op: Emit, t: Transposed) -> ir.Value | None:
    """Channels last, of a 1x1 convolution: all but the first phase are zeros."""
    reached = [-(-out // s) for out, s in zip(t.out_size, t.strides, strict=True)]
    if any(t.skip) or reached != list(t.x_size):
        return None
    weight, group = t.exchanged(op)
    y = op("Conv", t.x, weight, kernel_shape=t.kernel, group=group)
    return _zeros_after(op, y, t.channels, t.x_size, t.strides)


def _woven(op: Emit, t: Transposed, size: Sequence[int]) -> ir.Value | None:
    """Channels last, the phases of a full convolution put together: first the columns of each row, then the rows."""
    down, across = (_taps(t, axis, size[axis]) for axis in range(2))
    if down is None or across is None:
        return None
    weight, group = t.exchanged(op)
    (height, width), (rows, columns) = size, t.strides
    lines = []
    for above, below, vertical in down:
        of_rows = op("Gather", weight, op.ints(*vertical), axis=2)
        phases = []
        for left, right, horizontal in across:
            kernel = op("Gather", of_rows, op.ints(*horizontal), axis=3)
            shape = [len(vertical), len(horizontal)]
            y = op("Conv", t.x, kernel, kernel_shape=shape, pads=[above, left, below, right], group=group)
            phases.append(_channels_last(op, y))
        line = op("Concat", *phases, axis=3)
        lines.append(op("Reshape", line, op.ints(0, height, 1, width * columns * t.channels)))
    image = op("Concat", *lines, axis=2)
    return op("Reshape", image, op.ints(0, height * rows, width * columns, t.channels))


def _taps(t: Transposed, axis: int, size: int) -> list[tuple[int, int, list[int]]] | None:
    """Per phase of an axis the padding before and after, and the kernel's positions. None where a phase has none."""
    stride, phases = t.strides[axis], []
    for phase in range(stride):
        first = (phase + t.skip[axis]) % stride
        positions = list(range(first, t.kernel[axis], stride))[::-1]
        if not positions:
            return None
        offsets = [(phase + t.skip[axis] - k) // stride for k in positions]
        before, after = -offsets[0], offsets[-1] + size - t.x_size[axis]
        if min(before, after) < 0:
            return None
        phases.append((before, after, positions))
    return phases


def _picture(op: Emit, t: Transposed, size: Sequence[int]) -> ir.Value | None:
    """All phases by one convolution, with the kernel that the longest of them needs, and DepthToSpace."""
    stride = t.strides[0]
    lead = [-(-skip // stride) for skip in t.skip]
    front = [n * stride - skip for n, skip in zip(lead, t.skip, strict=True)]
    taps = [-(-(f + k) // stride) for f, k in zip(front, t.kernel, strict=True)]
    before = [n - 1 - first for n, first in zip(taps, lead, strict=True)]
    after = [first + n - given for first, n, given in zip(lead, size, t.x_size, strict=True)]
    if len(set(t.strides)) > 1 or min(before + after) < 0:
        return None
    back = [n * stride - f - k for n, f, k in zip(taps, front, t.kernel, strict=True)]
    weight = op("Pad", t.weight, op.ints(0, 0, *front, 0, 0, *back))
    channels = t.weight_size[0]
    weight = op("Reshape", weight, op.ints(channels, t.channels, taps[0], stride, taps[1], stride))
    weight = op("Transpose", weight, perm=[3, 5, 1, 0, 2, 4])
    weight = op("Reshape", weight, op.ints(stride**2 * t.channels, channels, *taps))
    for axis, n in enumerate(taps, start=2):
        weight = op("Gather", weight, op.ints(*range(n - 1, -1, -1)), axis=axis)
    y = op("DepthToSpace", op("Conv", t.x, weight, kernel_shape=taps, pads=before + after), blocksize=stride)
    if [n * stride for n in size] == list(t.out_size):
        return y
    return op("Slice", y, op.ints(0, 0), op.ints(*t.out_size), op.ints(2, 3))


def _zeros_after(op: Emit, x: ir.Value, channels: int, size: Sequence[int], strides: Sequence[int]) -> ir.Value:
    """Channels last (n, h * s, w * s, c) from (n, c, h, w): zeros are further rows, and further channels."""
    (h, w), (rows, columns) = size, strides
    split = op("Reshape", _channels_last(op, x), op.ints(0, h, 1, w, channels))
    wide = op("Pad", split, op.ints(0, 0, 0, 0, 0, 0, 0, rows - 1, 0, (columns - 1) * channels))
    return op("Reshape", wide, op.ints(0, h * rows, w * columns, channels))


def _channels_last(op: Emit, x: ir.Value) -> ir.Value:
    return op("Transpose", x, perm=[0, 2, 3, 1])


def _channels_second(op: Emit, x: ir.Value) -> ir.Value:
    return op("Transpose", x, perm=[0, 3, 1, 2])
