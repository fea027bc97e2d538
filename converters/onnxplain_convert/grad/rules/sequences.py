"""Sequences of tensors: the gradient of a sequence is a sequence, of what arrives at each of its tensors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.rules.body import Body
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.shapes import captured, is_float, is_sequence

RULES = RuleSet("sequences")

RULES.has_no_gradient(
    "its result depends on how many tensors there are, not on their values", "SequenceLength", "SequenceEmpty"
)
RULES.has_no_gradient("it says whether there is a value, not which", "OptionalHasElement")


@RULES.rule("Optional", "OptionalGetElement")
def optional(b: Backward) -> ir.Value:
    """The gradient of an optional value is that of the value."""
    return b.g


@RULES.rule("SequenceConstruct")
def sequence_construct(b: Backward) -> Gradients:
    return tuple(b.op.SequenceAt(b.g, i) if b.wants(i) else None for i in range(len(b.inputs)))


@RULES.rule("SequenceAt")
def sequence_at(b: Backward) -> ir.Value:
    """Zeros, but for the tensor that was taken."""
    place = _place(b, b.x, b.input(1))
    longer = b.op.SequenceInsert(b.op.zeros_like(b.x), b.g, place)
    return b.op.SequenceErase(longer, b.op.Add(place, b.op.const(1, place.dtype)))


@RULES.rule("SequenceInsert")
def sequence_insert(b: Backward) -> Gradients:
    place = _place(b, b.x, b.input(2)) if b.has(2) else b.op.const(np.int64(-1))
    return b.op.SequenceErase(b.g, place), b.op.SequenceAt(b.g, place)


@RULES.rule("SequenceErase")
def sequence_erase(b: Backward) -> ir.Value:
    at = b.input(1) if b.has(1) else b.op.const(np.int64(-1))
    place = _place(b, b.x, at)
    zeros = b.op.zeros_like(b.op.SequenceAt(b.x, place))
    # one more at the end and off again: onnx's evaluator takes a place behind the last one for the first
    longer = b.op.SequenceInsert(b.op.SequenceInsert(b.g, zeros), zeros, place)
    return b.op.SequenceErase(longer, b.op.const(np.int64(-1)))


@RULES.rule("SplitToSequence")
def split_to_sequence(b: Backward) -> ir.Value:
    dropped = not b.has(1) and not b.attr("keepdims", 1)
    return b.op.ConcatFromSequence(b.g, axis=b.attr("axis", 0), new_axis=int(dropped))


@RULES.rule("ConcatFromSequence")
def concat_from_sequence(b: Backward) -> ir.Value:
    axis = int(b.attr("axis"))
    if b.attr("new_axis", 0):
        return b.op.SplitToSequence(b.g, axis=axis, keepdims=0)
    end = axis + 1 if axis != -1 else None
    sizes = b.op.each(lambda op, element: op.Shape(element[0], start=axis, end=end), b.x)
    return b.op.SplitToSequence(b.g, b.op.ConcatFromSequence(sizes, axis=0), axis=axis)


@RULES.rule("SequenceMap")
def sequence_map(b: Backward) -> Gradients:
    """The map of the body's backward pass; a tensor that all steps share gets the sum of what each gave it."""
    inputs = [b.input(i) for i in range(len(b.inputs))]
    step = Body.copy(b, b.node.attributes["body"].as_graph(), closed=True)
    elements = list(step.graph.inputs)
    arriving = [step.input_like(y) for y in step.graph.outputs]
    wanted = [i for i in range(len(inputs)) if i in b.wanted and is_float(elements[i])]
    shared = [v for v in captured(step.graph) if is_float(v)]
    if shared:
        raise Unsupported(
            f"SequenceMap {b.node.name!r} (opset {b.opset}) captures {shared[0].name!r} from outside its body: "
            "give it to the node as an additional input"
        )
    found = step.gradients(zip(step.graph.outputs, arriving, strict=True), [elements[i] for i in wanted])
    step.graph.inputs[:] = [*elements, *arriving]
    step.finish(found)
    like = [ir.val(None, type=ir.SequenceType(ir.TensorType(_dtype(v))), shape=v.shape) for v in found]
    gs = [b.g_or_zeros(k) for k in range(len(b.outputs))]
    result = b.op.place("SequenceMap", [*inputs, *gs], like, body=step.graph)
    by_input: dict[int, ir.Value] = {}
    for i, g in zip(wanted, result, strict=True):
        stacked = None if is_sequence(inputs[i]) else b.op.ConcatFromSequence(g, axis=0, new_axis=1)
        by_input[i] = g if stacked is None else b.op.ReduceSum(stacked, [0], keepdims=0)
    return tuple(by_input.get(i) for i in range(len(inputs)))


def _place(b: Backward, sequence: ir.Value, at: ir.Value) -> ir.Value:
    """A place counted from the front: from the back it would mean another one once the length has changed."""
    count = b.op.Cast(b.op.SequenceLength(sequence), to=at.dtype)
    return b.op.Where(b.op.Less(at, b.op.const(0, at.dtype)), b.op.Add(at, count), at)


def _dtype(value: ir.Value) -> ir.DataType:
    assert value.dtype is not None
    return value.dtype
