"""Pooling over boxes. RoiAlign's boxes have a gradient too (torchvision gives them none); MaxRoiPool rounds its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.geometry import vector
from onnxplain_convert.graph.shapes import dims

RULES = RuleSet("regions")


@RULES.rule("RoiAlign")
def roi_align(b: Backward) -> Gradients:
    """Each cell of a box is the mean (or the largest term) of what linear interpolation reads at points within."""
    rows, columns = (_Points.of(b, axis) for axis in (0, 1))
    if b.attr("mode", "avg") != "avg":
        return _largest(b, rows, columns)
    gx = _mean(b, rows, columns) if b.wants(0) else None
    return gx, _through_boxes(b, _means(b, rows, columns), b.g) if b.wants(1) else None


def _through_boxes(b: Backward, y: ir.Value, g: ir.Value) -> ir.Value | None:
    """Back from the result, computed anew, to the boxes that its points and weights depend on."""
    return b.walk.through({y: g}, [b.input(1)])[0]


def _means(b: Backward, rows: _Points, columns: _Points) -> ir.Value:
    """y[r,c,p,q] = sum over h, w: rows[r,p,h] x[r,c,h,w] columns[r,q,w], x of the box's image."""
    op = b.op
    x = b.x if (dims(b.x) or (None,))[0] == 1 else op.Gather(b.x, b.input(2), axis=0)
    wide = op.Transpose(op.CastLike(columns.matrix(op), b.g), perm=[0, 2, 1])
    across = op.MatMul(x, op.Unsqueeze(wide, [1]))
    return op.MatMul(op.Unsqueeze(op.CastLike(rows.matrix(op), b.g), [1]), across)


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
            most, number = op.ints(ratio), op.const(np.full((1, 1, 1), ratio), boxes.dtype)
        else:  # the largest box says how many there may be
            number = op.Ceil(step)
            several = op.Concat(op.Reshape(number, [-1]), op.const(np.ones(1), boxes.dtype), axis=0)  # or no box at all
            most = op.Cast(op.ReduceMax(several, keepdims=1), to=ir.DataType.INT64)
        index = op.CastLike(_range(op, most), boxes)
        cell = op.const(np.arange(cells).reshape(1, -1, 1), boxes.dtype)
        within = op.Div(op.Mul(op.Add(index, 0.5), step), op.Max(number, 1.0))
        place = op.Add(op.Add(op.Unsqueeze(start, [2]), op.Mul(cell, step)), within)
        length = op.CastLike(op.dim(b.x, 2 + axis), boxes)
        counts = op.Less(index, number)
        near = op.And(op.GreaterOrEqual(place, -1.0), op.LessOrEqual(place, length))
        place = op.Max(op.Min(place, op.Sub(length, 1.0)), 0.0)
        reads = op.And(near, counts)
        return cls(place, op.Or(reads, counts), reads, number, length)  # both in the shape of the places

    def matrix(self, op: Emitter) -> ir.Value:
        """(boxes, cells, length): how much each element is worth to the mean over the points."""
        elements = op.CastLike(_range(op, op.Cast(self.length, to=ir.DataType.INT64)), self.place)
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
        present = op.Expand(op.Unsqueeze(self.counts, [3]), [1, 1, 1, 2])
        whole = op.Cast(index, to=ir.DataType.INT64)
        return op.Reshape(whole, [0, 0, -1]), op.Reshape(weight, [0, 0, -1]), op.Reshape(present, [0, 0, -1])


def _mean(b: Backward, rows: _Points, columns: _Points) -> ir.Value:
    """gX[n,c,h,w] = sum over boxes r of image n, cells p, q: rows[r,p,h] g[r,c,p,q] columns[r,q,w]."""
    op = b.op
    tall = op.Transpose(op.CastLike(rows.matrix(op), b.g), perm=[0, 2, 1])
    lines = op.Transpose(op.MatMul(op.Unsqueeze(tall, [1]), b.g), perm=[1, 2, 0, 3])
    lines = op.Unsqueeze(op.Reshape(lines, [0, 0, -1]), [0])  # (1, channels, height, boxes cells)
    images = op.Unsqueeze(_range(op, op.dim(b.x, 0)), [1])
    mine = op.Unsqueeze(op.CastLike(op.Equal(images, b.input(2)), b.g), [2, 3])  # (images, boxes, 1, 1)
    wide = op.Mul(mine, op.CastLike(columns.matrix(op), b.g))
    return op.typed(op.MatMul(lines, op.Reshape(wide, vector(op, 0, 1, -1, op.dim(b.x, 3)))), b.x)


def _largest(b: Backward, rows: _Points, columns: _Points) -> Gradients:
    """The largest weighted element around any point of a cell, not the largest point: so the operator is defined."""
    op, g = b.op, b.g
    cells = b.attr("output_height", 1) * b.attr("output_width", 1)

    def terms(operator: str, one: ir.Value, other: ir.Value) -> ir.Value:  # (boxes, cells, all pairs)
        pairs: ir.Value = op.emit(operator, op.Unsqueeze(one, [2, 4]), op.Unsqueeze(other, [1, 3]))
        return op.Reshape(pairs, [0, cells, -1])

    (row, tall, above), (column, wide, left) = rows.corners(op), columns.corners(op)
    image = op.Mul(b.input(2), op.Mul(op.dim(b.x, 2), op.dim(b.x, 3)))
    index = op.Add(terms("Add", op.Mul(row, op.dim(b.x, 3)), column), op.Unsqueeze(image, [1, 2]))
    weight = op.CastLike(terms("Mul", tall, wide), g)
    turned = op.Transpose(b.x, perm=[1, 0, 2, 3])
    x = op.Reshape(turned, [0, -1])  # (channels, elements of all images)
    values = op.Where(terms("And", above, left), op.Mul(op.Gather(x, index, axis=1), weight), -np.inf)
    best = op.ArgMax(values, axis=3, keepdims=0)  # (channels, boxes, cells)
    arriving = op.Transpose(op.Reshape(g, [0, 0, -1]), perm=[1, 0, 2])
    gboxes = None
    if b.wants(1):
        chosen = op.Squeeze(op.GatherElements(values, op.Unsqueeze(best, [3]), axis=3), [3])
        gboxes = _through_boxes(b, chosen, arriving)
    if not b.wants(0):
        return None, gboxes
    lines = op.Reshape(_range(op, op.Mul(op.dim(b.input(1), 0), cells)), [-1, cells])
    best = op.Add(op.Mul(lines, op.dim(weight, 2)), best)  # among the terms of all cells
    updates = op.Mul(arriving, op.Gather(op.Reshape(weight, [-1]), best))
    where = op.Gather(op.Reshape(index, [-1]), best)
    gx = op.ScatterElements(
        op.zeros_like(x), op.Reshape(where, [0, -1]), op.Reshape(updates, [0, -1]), axis=1, reduction="add"
    )
    return op.Transpose(op.reshape_like(gx, turned), perm=[1, 0, 2, 3]), gboxes


@RULES.rule("MaxRoiPool")
def max_roi_pool(b: Backward) -> ir.Value:
    """g goes to the largest element of each cell: first along the rows, then among the rows' largest."""
    op, boxes = b.op, b.input(1)
    rows, columns = (_members(b, axis) for axis in (0, 1))  # (boxes, cells, elements)
    image = op.Cast(op.Gather(boxes, 0, axis=1), to=ir.DataType.INT64)
    x = op.Unsqueeze(op.Gather(b.x, image, axis=0), [2])  # (boxes, channels, 1, height, width)
    along = op.Where(op.Unsqueeze(columns, [1, 3]), x, -np.inf)
    column = op.ArgMax(along, axis=4, keepdims=0)  # (boxes, channels, cells across, height)
    largest = op.Unsqueeze(op.ReduceMax(along, [4], keepdims=0), [3])
    row = op.ArgMax(op.Where(op.Unsqueeze(rows, [1, 2]), largest, -np.inf), axis=4, keepdims=0)
    flat = op.Add(op.Mul(row, op.dim(b.x, 3)), op.GatherElements(column, row, axis=3))
    flat = op.Add(flat, op.Unsqueeze(op.Mul(image, op.Mul(op.dim(b.x, 2), op.dim(b.x, 3))), [1, 2, 3]))

    some_row, some_column = (_any(op, members) for members in (rows, columns))
    some = op.And(op.Unsqueeze(some_row, [1, 2]), op.Unsqueeze(some_column, [1, 3]))  # a cell may lie outside
    g = op.Where(some, op.Transpose(b.g, perm=[0, 1, 3, 2]), 0.0)
    turned = op.Transpose(b.x, perm=[1, 0, 2, 3])
    index, updates = (op.Reshape(op.Transpose(v, perm=[1, 0, 2, 3]), [0, -1]) for v in (flat, g))
    gx = op.ScatterElements(op.zeros_like(op.Reshape(turned, [0, -1])), index, updates, axis=1, reduction="add")
    return op.Transpose(op.reshape_like(gx, turned), perm=[1, 0, 2, 3])


def _members(b: Backward, axis: int) -> ir.Value:
    """Which elements along an axis belong to each cell of each box, (boxes, cells, elements)."""
    op, boxes = b.op, b.input(1)
    scaled = (op.Mul(op.Gather(boxes, [k], axis=1), float(b.attr("spatial_scale", 1.0))) for k in (2 - axis, 4 - axis))
    # halves are rounded away from zero
    start, end = (op.Mul(op.Sign(v), op.Floor(op.Add(op.Abs(v), 0.5))) for v in scaled)
    cells = b.attr("pooled_shape")[axis]
    step = op.Div(op.Max(op.Add(op.Sub(end, start), 1.0), 1.0), float(cells))
    cell = op.const(np.arange(cells)[None], boxes.dtype)
    first = op.Unsqueeze(op.Add(op.Floor(op.Mul(cell, step)), start), [2])
    behind = op.Unsqueeze(op.Add(op.Ceil(op.Mul(op.Add(cell, 1.0), step)), start), [2])
    elements = op.CastLike(_range(op, op.dim(b.x, 2 + axis)), boxes)
    return op.And(op.GreaterOrEqual(elements, first), op.Less(elements, behind))


def _any(op: Emitter, members: ir.Value) -> ir.Value:
    return op.Greater(op.ReduceMax(op.Cast(members, to=ir.DataType.INT32), [2], keepdims=0), op.const(np.int32(0)))


def _range(op: Emitter, count: ir.Value) -> ir.Value:
    """0, 1, ... below a (1,) int64."""
    return op.Range(op.const(np.int64(0)), op.Squeeze(count, [0]), op.const(np.int64(1)))
