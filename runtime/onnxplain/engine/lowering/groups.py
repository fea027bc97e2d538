"""Grouped convolutions. ONNX Runtime computes one in its blocked layout where every group fills blocks of 16 channels.

Smaller groups are put together until they do: the weight between channels of different groups is zero. Exact, but for
the order of summation, and for infinities, which meet those zeros as NaN. Measured on one thread, 3x3, batch 2, with
the 1x1 convolutions around it (milliseconds): 32 groups of 4 at 56x56 3.0 -> 2.7, of 8 at 28x28 1.8 -> 1.5, of 16 at
14x14 1.3 -> 0.7, all from ConvTranspose; as a grouped Conv the first two are slower than that (3.4, 2.1). A whole
gradient of ResNeXt-50 takes 4 percent less. Forward convolutions stay: 1.5 percent more, for gates at the corner that
another order of summation flips.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.engine.emit import Emit

BLOCK = 16
"""Channels in a block, with AVX-512; with less it is 8, which divides this."""


def together(group: int, inner: int, outer: int) -> int | None:
    """How many groups of ``inner`` channels, ``outer`` of the result, to make one of. None where blocks do not fit."""
    if inner % BLOCK == 0 and outer % BLOCK == 0:
        return 1
    if inner != outer or BLOCK % inner or group % (BLOCK // inner):
        return None
    return BLOCK // inner


def merged(op: Emit, weight: ir.Value, n: int, inner: int, channels: int) -> ir.Value:
    """A weight (channels, inner, K, K), ``n`` groups with as many results made one: (channels, n * inner, K, K)."""
    if n == 1:
        return weight
    place = np.arange(channels)[:, None] // inner % n == np.arange(n * inner)[None, :] // inner
    repeated = op("Tile", weight, op.ints(1, n, 1, 1))
    return op("Mul", repeated, op.constant(place[:, :, None, None], np.float32))
