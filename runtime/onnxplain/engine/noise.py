"""Standard normal noise inside a program: Widynski's Squares and Box-Muller.

A draw depends on its key and its counter alone, never on the order of runs, the neighbours in a batch or the provider.
Squares (B. Widynski, "Squares: A Fast Counter-Based RNG", 2020) needs wrapping uint64 Mul, Add and Div, which both
providers have; they lack Bitwise* and BitShift (CUDA), and their RandomNormalLike is seeded per session.
"""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.engine.emit import Emit

UInts = NDArray[np.uint64]

_SHIFT = 2**32


def keys(seed: int, tensor: str, samples: NDArray[np.int64]) -> UInts:
    """One key per sample, (n,) uint64: splitmix64 of the request's seed, the tensor's name and the sample's number.

    Small keys begin with zeros and give correlated streams, so each part goes through the mix; keys are odd, so that
    counter * key visits every value.
    """
    name = int.from_bytes(hashlib.blake2b(tensor.encode(), digest_size=8).digest(), "little")
    start = np.array([seed % 2**64], np.uint64)
    return _splitmix(_splitmix(_splitmix(start) ^ np.uint64(name)) + samples.astype(np.uint64)) | np.uint64(1)


def _splitmix(x: UInts) -> UInts:
    """Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014 (the constants are Vigna's)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def normal(op: Emit, key: ir.Value, size: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Standard normal noise (R, ``size``) of ``dtype`` from one uint64 key per row (R,); ``size`` an int64 (1,).

    Elements i and i + half make one Box-Muller pair of the draws at counters i and i + half, half = ceil(size / 2).
    """
    half = op("Div", op("Add", size, op.ints(1)), op.ints(2))
    scalar = op("Squeeze", half, op.ints(0))
    low = op("Range", op.constant(0, np.int64), scalar, op.constant(1, np.int64))
    column = op("Unsqueeze", key, op.ints(1))
    numpy_dtype = dtype.numpy()

    def uniform(counter: ir.Value) -> ir.Value:
        """In (0, 1): never 0, whose logarithm is infinite; 1 only by rounding, where the radius is 0."""
        draw = op("Cast", _squares(op, op("Cast", counter, to=int(ir.DataType.UINT64)), column), to=int(dtype))
        shifted = op("Add", draw, op.constant(0.5, numpy_dtype))
        return op("Mul", shifted, op.constant(2.0**-32, numpy_dtype))

    radius = op("Sqrt", op("Mul", op("Log", uniform(low)), op.constant(-2.0, numpy_dtype)))
    angle = op("Mul", uniform(op("Add", low, scalar)), op.constant(2 * np.pi, numpy_dtype))
    pair = op("Concat", op("Mul", radius, op("Cos", angle)), op("Mul", radius, op("Sin", angle)), axis=1)
    return op("Slice", pair, op.ints(0), size, op.ints(1))


def _squares(op: Emit, counter: ir.Value, key: ir.Value) -> ir.Value:
    """Four rounds of x = rotate(x * x + y or z, 32), the last without its lower half: 32 random bits as uint64."""
    shift = op.constant(_SHIFT, np.uint64)
    y = op("Mul", counter, key)
    z = op("Add", y, key)
    x = y
    for step in (y, z, y):
        x = op("Add", op("Mul", x, x), step)
        x = op("Add", op("Div", x, shift), op("Mul", x, shift))
    return op("Div", op("Add", op("Mul", x, x), z), shift)
