"""Pooling over boxes. As in torchvision the boxes themselves get no gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.geometry import vector
from onnxplain_convert.graph.shapes import const_array

RULES = RuleSet("regions")


@RULES.rule("RoiAlign")
def roi_align(b: Backward) -> ir.Value:
    """Each cell of a box is the mean (or the largest term) of what linear interpolation reads at points within."""
    rows, columns = (_Points.of(b, axis) for axis in (0, 1))
    return _mean(b, rows, columns) if b.attr("mode", "avg") == "avg" else _largest(b, rows, columns)


@dataclass(frozen=True)
class _Points:
    """Along one axis of each box: places (boxes, cells, points) on an axis of ``length`` elements."""

    place: ir.Value
    counts: ir.Value
    """Is the point one of its box's? Boxes may have fewer points than the largest has."""
    reads: ir.Value
    """Does it count, and lie near enough to read anything?"""
    number: ir.Value
    """(boxes, 1, 1): how many points a cell has, in the type of the places."""
    length: ir.Value
    """In the type of the places."""

    @classmethod
    def of(cls, b: Backward, axis: int) -> _Points:
        op, boxes = b.op, b.input(1)
        shift = 0.5 if b.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel" else 0.0
        scale = float(b.attr("spatial_scale", 1.0))
        start, end = (op.Sub(op.Mul(op.Gather(boxes, [k], axis=1), scale), shift) for k in (1 - axis, 3 - axis))
        extent = op.Sub(end, start)
        extent = extent if shift else op.Max(extent, 1.0)
        cells = b.attr(("output_height", "output_width")[axis], 1)
        step = op.Unsqueeze(op.Div(extent, float(cells)), [2])
        ratio = b.attr("sampling_ratio", 0)
        if ratio > 0:
            most, number = op.const(np.int64(ratio)), op.const(np.full((1, 1, 1), ratio), boxes.dtype)
        else:  # the largest box says how many there may be
            number = op.Ceil(step)
            most = op.Cast(op.Max(op.ReduceMax(number, keepdims=0), 1.0), to=ir.DataType.INT64)
        one = op.const(np.int64(1))
        index = op.CastLike(op.Range(op.const(np.int64(0)), most, one), boxes)
        cell = op.const(np.arange(cells).reshape(1, -1, 1), boxes.dtype)
        within = op.Div(op.Mul(op.Add(index, 0.5), step), op.Max(number, 1.0))
        place = op.Add(op.Add(op.Unsqueeze(start, [2]), op.Mul(cell, step)), within)
        length = op.CastLike(op.dim(b.x, 2 + axis), boxes)
        counts = op.Less(index, number)
        near = op.And(op.GreaterOrEqual(place, -1.0), op.LessOrEqual(place, length))
        place = op.Max(op.Min(place, op.Sub(length, 1.0)), 0.0)
        return cls(place, counts, op.And(near, counts), number, length)

    def matrix(self, op: Emitter) -> ir.Value:
        """(boxes, cells, length): how much each element is worth to the mean over the points."""
        whole = op.Cast(op.Squeeze(self.length, [0]), to=ir.DataType.INT64)
        elements = op.CastLike(op.Range(op.const(np.int64(0)), whole, op.const(np.int64(1))), self.place)
        away = op.Abs(op.Sub(op.Unsqueeze(self.place, [3]), elements))
        worth = op.Where(op.Unsqueeze(self.reads, [3]), op.Relu(op.Sub(1.0, away)), 0.0)
        return op.Div(op.ReduceSum(worth, [2], keepdims=0), op.Max(self.number, 1.0))

    def corners(self, op: Emitter) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Index, weight and presence of the two elements around each point, (boxes, cells, 2 points)."""
        below = op.Floor(self.place)
        beyond = op.Unsqueeze(op.Sub(self.place, below), [3])
        weight = op.Concat(op.Sub(1.0, beyond), beyond, axis=3)
        weight = op.Where(op.Unsqueeze(self.reads, [3]), weight, 0.0)
        pair = op.const(np.array([0.0, 1.0]), self.place.dtype)
        index = op.Min(op.Add(op.Unsqueeze(below, [3]), pair), op.Sub(self.length, 1.0))
        present = op.Or(op.Unsqueeze(self.counts, [3]), op.Less(index, 0.0))
        return tuple(op.Reshape(v, [0, 0, -1]) for v in (op.Cast(index, to=ir.DataType.INT64), weight, present))  # type: ignore[return-value]


def _mean(b: Backward, rows: _Points, columns: _Points) -> ir.Value:
    """gX[n,c,h,w] = sum over boxes r of image n, cells p, q: rows[r,p,h] g[r,c,p,q] columns[r,q,w]."""
    op = b.op
    tall = op.Transpose(op.Unsqueeze(op.CastLike(rows.matrix(op), b.g), [1]), perm=[0, 1, 3, 2])
    lines = op.Transpose(op.MatMul(tall, b.g), perm=[1, 2, 0, 3])  # (channels, height, boxes, cells)
    lines = op.Reshape(lines, vector(op, 0, 0, -1))
    images = op.Unsqueeze(op.Range(op.const(np.int64(0)), op.Squeeze(op.dim(b.x, 0), [0]), op.const(np.int64(1))), [1])
    mine = op.Unsqueeze(op.CastLike(op.Equal(images, b.input(2)), b.g), [2, 3])  # (images, boxes, 1, 1)
    wide = op.Mul(mine, op.CastLike(columns.matrix(op), b.g))
    wide = op.Reshape(wide, vector(op, 0, -1, op.dim(b.x, 3)))
    flat = op.Reshape(lines, vector(op, 1, -1, op.Mul(op.dim(b.input(1), 0), b.attr("output_width", 1))))
    return op.reshape_like(op.MatMul(flat, wide), b.x)


def _largest(b: Backward, rows: _Points, columns: _Points) -> ir.Value:
    """The largest of all weighted elements around the points of a cell, not of the points: so the operator has it."""
    op, g = b.op, b.g
    (row, tall, above), (column, wide, left) = rows.corners(op), columns.corners(op)
    size, cells = op.Mul(op.dim(b.x, 2), op.dim(b.x, 3)), vector(op, 0, -1)
    index = _outer(op, "Add", op.Mul(row, op.dim(b.x, 3)), column)  # (boxes, cells, terms)
    weight, present = op.CastLike(_outer(op, "Mul", tall, wide), g), _outer(op, "And", above, left)
    index = op.Add(index, op.Unsqueeze(op.Mul(b.input(2), size), [1, 2]))
    x = op.Reshape(op.Transpose(b.x, perm=[1, 0, 2, 3]), cells)  # (channels, elements of all images)
    terms = op.Where(present, op.Mul(op.Gather(x, index, axis=1), weight), -np.inf)
    best = op.ArgMax(terms, axis=3, keepdims=0)  # (channels, boxes, cells)
    count = op.dim(index, 2)
    number = op.Reshape(op.Range(op.const(np.int64(0)), op.Squeeze(op.Size(best)), op.const(np.int64(1))), [-1])
    return number
