"""The *moments* part of a program: per request, sums of its samples' gradients about the first sample.

A run holds R rows of Q requests in S *segments*: the rows of one sample that stand together in this run. A sample may
go on over many runs, so the state of a request is carried from run to run. Everything is (.., E): one row's tensor
flat. Sums over rows are products with small matrices made on the host; what belongs to one request is gathered, never
multiplied by zero, so that an overflow in one request cannot reach another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain.engine.emit import Emit
from onnxplain.engine.points import PathTensor, Point
from onnxplain.engine.rowaxis import ROW

STATE = ("partial", "first", "sum", "squares", "check", "last")
"""Of every request (Q, E): the open sample's sum so far; the first sample; sum and sum of squares of (sample - first);
the weighted sum of the second quadrature rule; the last row's gradient."""
RESULT = ("first", "sum", "squares", "check")

LARGEST = {ir.DataType.FLOAT: 1e15, ir.DataType.DOUBLE: 1e150}
"""A row whose gradient has a larger L2 norm counts as not finite: its square would overflow in the sums."""


@dataclass(frozen=True)
class Plan:
    """The host's tables of one run, the same for every tensor; each is an input of the program named by its field."""

    weights: ir.Value
    """(S, R) weight of a row in the sum of its segment."""
    checks: ir.Value
    """(Q, R) weight of a row in its request's check sum."""
    counts: ir.Value
    """(Q, S) 1 where a segment closes a sample of the request."""
    segment_slot: ir.Value
    """(S,) request of a segment."""
    continues: ir.Value
    """(S, 1) bool: the segment goes on with the sample that the request left open."""
    closes: ir.Value
    """(S, 1) bool: the segment ends its sample."""
    open_segment: ir.Value
    """(Q,) the request's last segment."""
    leaves_open: ir.Value
    """(Q, 1) bool: that segment's sample goes on in the next run."""
    first_segment: ir.Value
    """(Q,) the segment that closes the request's first sample."""
    sets_first: ir.Value
    """(Q, 1) bool: there is one in this run."""
    last_row: ir.Value
    """(Q,) the request's last row."""
    previous: ir.Value
    """(R,) the row of this run before it in its sample, where there is one."""
    has_previous: ir.Value
    """(R,) bool: there is a row before it in its sample."""
    from_before: ir.Value
    """(R, 1) bool: that row is the last of the run before."""
    slot: ir.Value
    """(Q,) where the request's state stood in the state that comes in."""
    carried: ir.Value
    """(Q, 1) bool: it has a state."""
    finished: ir.Value
    """(F,) requests whose result is wanted after this run."""
    multiply: ir.Value
    """(R, 1) bool: the gradient times the displacement."""

    @classmethod
    def declare(cls, op: Emit, wide: ir.DataType) -> Plan:
        number, flag = ir.DataType.INT64, ir.DataType.BOOL

        def i(name: str, dtype: ir.DataType, *shape: str | int) -> ir.Value:
            return op.input(f"plan/{name}", dtype, shape)

        return cls(
            weights=i("weights", wide, "segments", ROW),
            checks=i("checks", wide, "requests", ROW),
            counts=i("counts", wide, "requests", "segments"),
            segment_slot=i("segment_slot", number, "segments"),
            continues=i("continues", flag, "segments", 1),
            closes=i("closes", flag, "segments", 1),
            open_segment=i("open_segment", number, "requests"),
            leaves_open=i("leaves_open", flag, "requests", 1),
            first_segment=i("first_segment", number, "requests"),
            sets_first=i("sets_first", flag, "requests", 1),
            last_row=i("last_row", number, "requests"),
            previous=i("previous", number, ROW),
            has_previous=i("has_previous", flag, ROW),
            from_before=i("from_before", flag, ROW, 1),
            slot=i("slot", number, "requests"),
            carried=i("carried", flag, "requests", 1),
            finished=i("finished", number, "finished"),
            multiply=i("multiply", flag, ROW, 1),
        )


def moments(
    op: Emit,
    tensors: Sequence[PathTensor],
    points: Sequence[Point],
    gradients: Sequence[ir.Value],
    request: ir.Value,
) -> None:
    """State in ``state/part/t``, state out ``next/part/t``; ``done/part/t`` (F, E), ``jump/t`` and ``finite`` (R,).

    ``request``: (R,) of every row. Tensors of different width share the tables of the widest. A state that comes in may
    be (1, 1) where no request has one: it is broadcast, and costs nothing.
    """
    wide = ir.DataType.DOUBLE if any(t.wide == ir.DataType.DOUBLE for t in tensors) else ir.DataType.FLOAT
    plan = Plan.declare(op, wide)
    rows = [_row_gradient(op, *x, plan, wide) for x in zip(tensors, points, gradients, strict=True)]
    limit = op.constant(LARGEST[wide] ** 2, wide.numpy())
    finite = [op("Less", op("ReduceSumSquare", g, op.ints(1), keepdims=1), limit) for g in rows]
    all_finite = finite[0]
    for one in finite[1:]:
        all_finite = op("And", all_finite, one)
    op.output("finite", op("Squeeze", all_finite, op.ints(1)), ir.DataType.BOOL, [ROW])
    zero = op.constant(0.0, wide.numpy())
    for tensor, gradient in zip(tensors, rows, strict=True):
        _sums(op, tensor.name, op("Where", all_finite, gradient, zero), plan, request, wide)


def _row_gradient(
    op: Emit, tensor: PathTensor, point: Point, gradient: ir.Value, plan: Plan, wide: ir.DataType
) -> ir.Value:
    flat = op.cast(op.flat(gradient, tensor.squeezed), tensor.dtype, wide)
    displacement = op.cast(point.displacement, tensor.wide, wide)
    one = op.constant(1.0, wide.numpy())
    return op("Mul", flat, op("Where", plan.multiply, displacement, one))


def _sums(op: Emit, name: str, g: ir.Value, plan: Plan, request: ir.Value, wide: ir.DataType) -> None:
    zero = op.constant(0.0, wide.numpy())
    shape = ["requests", f"size of {name}"]
    state = {}
    for part in STATE:
        given = op.input(f"state/{part}/{name}", wide, ["requests before", f"kept of {name}"])
        state[part] = op("Where", plan.carried, op("Gather", given, plan.slot, axis=0), zero)

    def of_request(values: ir.Value) -> ir.Value:
        return op("Gather", values, plan.segment_slot, axis=0)

    carried = op("Where", plan.continues, of_request(state["partial"]), zero)
    samples = op("Add", op("MatMul", plan.weights, g), carried)
    first = op("Where", plan.sets_first, op("Gather", samples, plan.first_segment, axis=0), state["first"])
    deviation = op("Where", plan.closes, op("Sub", samples, of_request(first)), zero)
    square = op("Mul", deviation, deviation)
    following = {
        "partial": op("Where", plan.leaves_open, op("Gather", samples, plan.open_segment, axis=0), zero),
        "first": first,
        "sum": op("Add", state["sum"], op("MatMul", plan.counts, deviation)),
        "squares": op("Add", state["squares"], op("MatMul", plan.counts, square)),
        "check": op("Add", state["check"], op("MatMul", plan.checks, g)),
        "last": op("Gather", g, plan.last_row, axis=0),
    }
    last = op("Gather", state["last"], request, axis=0)
    before = op("Where", plan.from_before, last, op("Gather", g, plan.previous, axis=0))
    jump = op("ReduceSumSquare", op("Sub", g, before), op.ints(1), keepdims=0)
    op.output(f"jump/{name}", op("Where", plan.has_previous, jump, zero), wide, [ROW])
    for part in STATE:
        op.output(f"next/{part}/{name}", following[part], wide, shape)
    for part in RESULT:
        done = op("Gather", following[part], plan.finished, axis=0)
        op.output(f"done/{part}/{name}", done, wide, ["finished", shape[1]])


def carried_names(name: str) -> dict[str, str]:
    """Output of a run -> input of the next, for one tensor."""
    return {f"next/{part}/{name}": f"state/{part}/{name}" for part in STATE}


def accumulator(tensors: Sequence[PathTensor]) -> np.dtype[np.floating]:
    """The type of the tables: of the widest tensor."""
    return np.dtype(np.float64 if any(t.wide == ir.DataType.DOUBLE for t in tensors) else np.float32)
