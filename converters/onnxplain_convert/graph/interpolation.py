"""Reading tensors at computed places: which elements are read around each place, and with what weights and slopes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.geometry import reshaped, vector

_A = -0.75
_KERNELS: dict[str, list[list[float]]] = {
    "nearest": [[1.0]],
    "linear": [[1.0, 0.0], [-1.0, 1.0]],
    "cubic": [[0, 1, 0, 0], [_A, 0, -_A, 0], [-2 * _A, -_A - 3, 2 * _A + 3, _A], [_A, _A + 2, -_A - 2, -_A]],
}
"""The weights of the elements around a place as polynomials in its fraction: a row of coefficients per power."""


@dataclass(frozen=True)
class Border:
    """What stands outside an axis: ``zeros``, the ``border`` element, or a ``reflection``, about centres or edges."""

    kind: str = "zeros"
    about_centres: bool = False


@dataclass(frozen=True)
class Taps:
    """Along one axis, per place (n, places): the elements read, (n, places, taps)."""

    index: ir.Value
    """int64, within the axis."""
    weight: ir.Value
    """0 where the element lies outside and outside is zero."""
    slope: ir.Value | None
    """Derivative of ``weight`` by the place; None where the weight is piecewise constant."""


def taps(op: Emitter, place: ir.Value, size: ir.Value, mode: str = "linear", border: Border = Border()) -> Taps:
    """The elements read at each place (n, places) of an axis, whose length is given in the type of the places."""
    kernel = [np.asarray(row) for row in _KERNELS[mode]]
    last, factor = op.Sub(size, 1.0), None
    if mode != "cubic" and border.kind != "zeros":  # the place is moved inside; cubic moves its elements
        place, factor = inside(op, place, size, border)
    below = op.Round(place) if mode == "nearest" else op.Floor(place)
    offsets = op.const(np.arange(kernel[0].size) - (kernel[0].size - 1) // 2, place.dtype)
    index = op.Add(op.Unsqueeze(below, [2]), offsets)
    t = op.Unsqueeze(op.Sub(place, below), [2])
    weight, slope = _polynomial(op, kernel, t), None
    if mode != "nearest":
        slope = _polynomial(op, [row * k for k, row in enumerate(kernel)][1:], t)
    if slope is not None and factor is not None:
        slope = op.Mul(slope, op.Unsqueeze(factor, [2]))
    if border.kind == "zeros" or mode != "cubic":
        outside = op.Or(op.Less(index, 0.0), op.Greater(index, last))
        weight = op.Where(outside, 0.0, weight)
        slope = None if slope is None else op.Where(outside, 0.0, slope)
    else:
        index, _ = inside(op, index, size, border)
    whole = op.Cast(op.Max(op.Min(index, last), 0.0), to=ir.DataType.INT64)
    return Taps(whole, weight, slope)


def inside(op: Emitter, place: ir.Value, size: ir.Value, border: Border) -> tuple[ir.Value, ir.Value]:
    """The place moved onto the axis, and the derivative of that: 0 on the outermost elements, as in PyTorch."""
    last, factor = op.Sub(size, 1.0), None
    if border.kind == "reflection":
        low, span = (0.0, op.Max(last, 1.0)) if border.about_centres else (-0.5, size)
        shifted = op.Sub(place, low)
        turns = op.Floor(op.Div(op.Abs(shifted), span))
        extra = op.Sub(op.Abs(shifted), op.Mul(turns, span))
        odd = op.Equal(op.Mod(turns, 2.0, fmod=1), 1.0)
        place = op.Add(op.Where(odd, op.Sub(span, extra), extra), low)
        sign = op.Where(op.Less(shifted, 0.0), op.const(-1.0, place.dtype), op.const(1.0, place.dtype))
        factor = op.Where(odd, op.Neg(sign), sign)
    inner = op.Cast(op.And(op.Greater(place, 0.0), op.Less(place, last)), to=place.dtype)
    return op.Max(op.Min(place, last), 0.0), inner if factor is None else op.Mul(factor, inner)


def _polynomial(op: Emitter, rows: list[NDArray[np.float64]], t: ir.Value) -> ir.Value:
    """Horner's scheme, one polynomial per tap: (n, places, 1) to (n, places, taps), (taps,) for constants."""
    *lower, value = [op.const(row, t.dtype) for row in rows]
    return reduce(lambda total, row: op.Add(op.Mul(total, t), row), reversed(lower), value)


@dataclass(frozen=True)
class Reading:
    """Elements of ``x`` (n, channels, *sizes) read at the same places (n, places) in every channel."""

    op: Emitter
    x: ir.Value
    taps: list[Taps]
    """Per spatial axis."""
    index: ir.Value
    """(n, channels, places taps): where each element stands among those of its channel."""

    @classmethod
    def of(cls, op: Emitter, x: ir.Value, taps: list[Taps]) -> Reading:
        index = taps[0].index
        for axis, t in enumerate(taps[1:], 1):
            index = _outer(op, "Add", op.Mul(index, op.dim(x, 2 + axis)), t.index)
        flat = op.Unsqueeze(op.Reshape(index, [0, -1]), [1])
        return cls(op, x, taps, op.Expand(flat, vector(op, 1, op.dim(x, 1), 1)))

    def weight(self, slope_of: int | None = None) -> ir.Value:
        """(n, places, taps) over all axes; with the slope in place of the weight on one of them."""
        parts = [t.weight if k != slope_of or t.slope is None else t.slope for k, t in enumerate(self.taps)]
        return reduce(lambda a, part: _outer(self.op, "Mul", a, part), parts)

    def elements(self, places: ir.Value) -> ir.Value:
        """The elements themselves, (n, channels, places, taps); ``places``: their number, (1,)."""
        op = self.op
        flat = op.GatherElements(reshaped(op, self.x, 0, 0, -1), self.index, axis=2)
        return op.Reshape(flat, vector(op, 0, op.dim(self.x, 1), places, -1))

    def scattered(self, g: ir.Value) -> ir.Value:
        """The transpose of reading: ``g`` (n, channels, places) added up where it was read, in the shape of ``x``."""
        op = self.op
        flat = reshaped(op, self.x, 0, 0, -1)
        updates = op.Reshape(op.Mul(op.Unsqueeze(g, [3]), op.Unsqueeze(self.weight(), [1])), [0, 0, -1])
        added = op.ScatterElements(op.zeros_like(flat), self.index, updates, axis=2, reduction="add")
        return op.reshape_like(added, self.x)


def _outer(op: Emitter, operator: str, a: ir.Value, c: ir.Value) -> ir.Value:
    """(n, places, k) with (n, places, m) as (n, places, k m)."""
    both: ir.Value = op.emit(operator, op.Unsqueeze(a, [3]), op.Unsqueeze(c, [2]))
    return op.Reshape(both, [0, 0, -1])
