"""Where the windows of a convolution or a pooling lie, from the node's attributes; what depends on a size known only at
run time is emitted, the rest is plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import Dim, const_array, dims

Padding = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Windows of a kernel (one entry per spatial axis) gliding over a tensor (n, channels, *sizes).

    ``begin`` and ``end``: the padding before and after each axis, None where it is known only at run time (``same``).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: Padding | None
    end: Padding | None
    same: str = ""

    @classmethod
    def of(cls, node: ir.Node, kernel: Sequence[int], sizes: Sequence[Dim]) -> Windows:
        """The windows of a Conv or a pooling over axes of these sizes."""
        n = len(kernel)
        strides, dilations = _ints(node, "strides") or (1,) * n, _ints(node, "dilations") or (1,) * n
        auto_pad = _string(node, "auto_pad")
        windows = cls(tuple(kernel), strides, dilations, (0,) * n, (0,) * n)
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            totals = [_same_total(*a) for a in zip(sizes, strides, windows.extents, strict=True)]
            return windows.padded_by(totals, auto_pad)
        pads = _ints(node, "pads") if auto_pad in ("", "NOTSET") else ()
        return cls(tuple(kernel), strides, dilations, pads[:n], pads[n:]) if pads else windows

    @classmethod
    def of_transposed(cls, node: ir.Node, kernel: Sequence[int], sizes: Sequence[Dim]) -> Windows:
        """The windows over the *output* of a ConvTranspose whose input axes have these sizes."""
        n = len(kernel)
        windows = cls.of(node, kernel, [0] * n)
        auto_pad = _string(node, "auto_pad")
        extra = _ints(node, "output_padding") or (0,) * n
        if shape := _ints(node, "output_shape")[-n:]:
            full = [None if f is None else f + e for f, e in zip(windows.covered(sizes), extra, strict=True)]
            totals = [None if f is None else max(0, f - o) for f, o in zip(full, shape, strict=True)]
            # the operator's text puts the odd element in front unless auto_pad says SAME_UPPER
            return windows.padded_by(totals, "SAME_UPPER" if auto_pad == "SAME_UPPER" else "SAME_LOWER")
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            sums = zip(windows.extents, extra, windows.strides, strict=True)
            return windows.padded_by([max(0, extent + e - s) for extent, e, s in sums], auto_pad)
        return windows

    def padded_by(self, totals: Sequence[int | None], same: str) -> Windows:
        """The same windows with a total padding per axis split as auto_pad says."""
        begin = end = None
        known = [t for t in totals if t is not None]
        if len(known) == len(totals):
            small, large = tuple(t // 2 for t in known), tuple(t - t // 2 for t in known)
            begin, end = (small, large) if same == "SAME_UPPER" else (large, small)
        return Windows(self.kernel, self.strides, self.dilations, begin, end, same)

    def without_padding(self) -> Windows:
        """The same windows over a tensor that is padded already."""
        return Windows(self.kernel, self.strides, self.dilations, (0,) * self.rank, (0,) * self.rank)

    def cut(self, sizes: Sequence[Dim], counts: Sequence[Dim]) -> Windows:
        """The same windows, a single one no larger than what it covers: some networks pool over 2560 of 7 elements."""
        if self.begin is None or self.end is None:
            return self
        kernel, strides, end = list(self.kernel), list(self.strides), list(self.end)
        axes = zip(sizes, counts, self.dilations, self.begin, strict=True)
        for axis, (size, count, dilation, before) in enumerate(axes):
            if count == 1 and dilation == 1 and before == 0 and isinstance(size, int) and kernel[axis] > size > 0:
                kernel[axis], strides[axis], end[axis] = size, size, 0
        return replace(self, kernel=tuple(kernel), strides=tuple(strides), end=tuple(end))

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def extents(self) -> tuple[int, ...]:
        """How far one window reaches, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def pads(self) -> list[int]:
        """The padding as ONNX's attribute lists it."""
        assert self.begin is not None and self.end is not None
        return [*self.begin, *self.end]

    @property
    def padded(self) -> bool:
        """Is there any padding, as far as is known?"""
        return self.begin is None or any(self.pads)

    @property
    def overlap(self) -> bool:
        """Can an element lie in two windows?"""
        return any(e > s for e, s in zip(self.extents, self.strides, strict=True))

    @property
    def tile(self) -> bool:
        """Do they stand side by side from the first element on?"""
        return self.kernel == self.strides and max(self.dilations) == 1 and not self.padded

    @property
    def glide(self) -> bool:
        """Are they one element apart, padded alike on both sides? Then summing over them is its own transpose."""
        plain = max(self.strides) == 1 and max(self.dilations) == 1
        return plain and self.begin is not None and self.begin == self.end and max(self.begin) < min(self.kernel)

    def covered(self, counts: Sequence[Dim]) -> list[int | None]:
        """How many elements that many windows cover, per axis."""
        axes = zip(counts, self.strides, self.extents, strict=True)
        return [(n - 1) * s + e if isinstance(n, int) else None for n, s, e in axes]

    def rest(self, sizes: Sequence[Dim], counts: Sequence[Dim]) -> list[int | None]:
        """How many padded elements no window reaches, per axis: negative where ceil_mode reaches beyond the padding."""
        if self.begin is None or self.end is None:
            return [None] * self.rank
        found: list[int | None] = []
        for size, covered, begin, end in zip(sizes, self.covered(counts), self.begin, self.end, strict=True):
            known = isinstance(size, int) and covered is not None
            found.append(size + begin + end - covered if known else None)  # type: ignore[operator]
        return found

    def runtime_padding(self, op: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(begin, end) as int64 vectors where auto_pad depends on the sizes of ``x`` (n, channels, *sizes)."""
        size, strides = op.Shape(x, start=2), op.ints(*self.strides)
        count = op.Div(op.Add(size, op.Sub(strides, 1)), strides)
        reach = op.Add(op.Mul(op.Sub(count, 1), strides), op.ints(*self.extents))
        return split_padding(op, op.Max(op.Sub(reach, size), 0), self.same)


def split_padding(op: Emitter, total: ir.Value, same: str) -> tuple[ir.Value, ir.Value]:
    """(begin, end) of a total padding known at run time."""
    small = op.Div(total, 2)
    large = op.Sub(total, small)
    return (small, large) if same == "SAME_UPPER" else (large, small)


def spatial(value: ir.Value, rank: int) -> tuple[Dim, ...]:
    """The sizes of the spatial axes of (n, channels, *sizes), None where unknown."""
    shape = dims(value)
    return (None,) * rank if shape is None else shape[2:]


def vector(op: Emitter, *parts: int | ir.Value) -> ir.Value:
    """Numbers and int64 vectors joined to one int64 vector: a constant where all of it is known."""
    known: list[int] | None = []
    for part in parts:
        array = np.array([part]) if isinstance(part, int) else const_array(part)
        known = None if known is None or array is None else [*known, *array.ravel().tolist()]
    if known is not None:
        return op.ints(*known)
    return op.Concat(*(op.ints(part) if isinstance(part, int) else part for part in parts), axis=0)


def reshaped(op: Emitter, x: ir.Value, *target: int) -> ir.Value:
    """``Reshape`` (0 keeps an axis, -1 takes what is left), also of an empty batch, where -1 would have no meaning."""
    shape = dims(x)
    sizes = [size for size in (shape or ())[1:] if isinstance(size, int)]
    if target[0] == 0 and shape is not None and len(sizes) == len(shape) - 1 and 0 not in sizes:
        kept = [sizes[k - 1] if size == 0 else size for k, size in enumerate(target) if k]
        left = prod(sizes) // prod(size for size in kept if size != -1)
        target = (-1, *(left if size == -1 else size for size in kept))
    return op.Reshape(x, list(target))


def sizes_of(op: Emitter, value: ir.Value, rank: int) -> ir.Value:
    """The sizes of the spatial axes as an int64 vector: a constant where they are known."""
    known = [size for size in spatial(value, rank) if isinstance(size, int)]
    return op.ints(*known) if len(known) == rank else op.Shape(value, start=2)


def kernel_of(node: ir.Node, weight: ir.Value) -> tuple[int, ...]:
    """The kernel's sizes, from its attribute or the weight; Unsupported where neither says."""
    if given := _ints(node, "kernel_shape"):
        return given
    shape = (dims(weight) or (None, None, None))[2:]
    known = tuple(k for k in shape if isinstance(k, int))
    if len(known) != len(shape):
        raise Unsupported(
            f"{node.op_type} {node.name!r}: its weight {weight.name!r} is computed and its kernel size {shape} not "
            "known. Give the node a kernel_shape attribute, or the model fixed shapes."
        )
    return known


def _same_total(size: Dim, stride: int, extent: int) -> int | None:
    if stride == 1:
        return extent - 1
    return max(0, (-(-size // stride) - 1) * stride + extent - size) if isinstance(size, int) else None


def _ints(node: ir.Node, name: str) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return () if attribute is None else tuple(attribute.as_ints())


def _string(node: ir.Node, name: str) -> str:
    attribute = node.attributes.get(name)
    return "" if attribute is None else attribute.as_string()
