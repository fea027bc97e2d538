"""Control flow: a gradient flows through both branches of If, and back through every step of Scan and Loop.

Nothing is kept from the forward pass but what a step starts from: the loop is run once more with the incoming state of
every step as one more scan output, and each backward step computes its forward step again from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward
from onnxplain_convert.grad.rules.body import Body, stacked
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import captured, dims, is_float

RULES = RuleSet("control")

ByValue = Mapping[ir.Value, "ir.Value | None"]


@RULES.rule("If")
def if_(b: Backward) -> ByValue:
    """Each branch gives the gradients of everything that either of them captured."""
    branches = {name: b.node.attributes[name].as_graph() for name in ("then_branch", "else_branch")}
    sources = _float_captures(*branches.values())
    gs = _arriving(b)
    backward: dict[str, ir.Graph] = {}
    for name, branch in branches.items():
        body = Body.copy(b, branch)
        body.finish(body.gradients(zip(body.graph.outputs, gs, strict=True), sources))
        backward[name] = body.graph
    found = b.op.place("If", [b.input(0)], sources, **backward)
    return dict(zip(sources, found, strict=True))


@RULES.rule("Scan")
def scan(b: Backward) -> ByValue:
    """The Scan of the backward step over the steps in reverse, its state the gradients of the forward state.

    Axes and directions are dealt with outside: onnx's reference evaluator knows only axis 0 and the forward direction.
    """
    op, forward = b.op, b.node.attributes["body"].as_graph()
    n_in = int(b.attr("num_scan_inputs"))
    n_state, n_out = len(b.inputs) - n_in, len(b.outputs) - (len(b.inputs) - n_in)
    initial, scanned = list(b.inputs[:n_state]), [b.input(n_state + k) for k in range(n_in)]
    in_axes, in_reversed = b.attr("scan_input_axes", [0] * n_in), b.attr("scan_input_directions", [0] * n_in)
    out_axes, out_reversed = b.attr("scan_output_axes", [0] * n_out), b.attr("scan_output_directions", [0] * n_out)
    sources = _float_captures(forward)
    steps = [_in_steps(op, x, in_axes[k], in_reversed[k]) for k, x in enumerate(scanned)]

    saving = Body.copy(b, forward)
    incoming = [saving.op.anew(v) for v in saving.graph.inputs[:n_state]]
    saving.graph.outputs[:] = [*saving.graph.outputs[:n_state], *incoming]
    like = [*b.outputs[:n_state], *(stacked(v) for v in incoming)]
    saved = op.place("Scan", [*initial, *steps], like, body=saving.graph, num_scan_inputs=n_in)[n_state:]

    floats = [k for k in range(n_state) if is_float(b.input(k))]
    arriving = [k for k in range(n_out) if b.gs[n_state + k] is not None]
    step = Body.copy(b, forward)
    states, slices = step.graph.inputs[:n_state], step.graph.inputs[n_state:]
    ends, outs = step.graph.outputs[:n_state], step.graph.outputs[n_state:]
    g_states = [step.input_like(states[k]) for k in floats]
    totals = [step.input_like(v) for v in sources]
    g_outs = [step.input_like(outs[k]) for k in arriving]
    seeds = [(ends[k], g) for k, g in zip(floats, g_states, strict=True)]
    seeds += [(outs[k], g) for k, g in zip(arriving, g_outs, strict=True)]
    wanted = [k for k in range(n_in) if is_float(slices[k])]
    found = step.gradients(seeds, [*(states[k] for k in floats), *sources, *(slices[k] for k in wanted)])
    n_kept = len(floats) + len(sources)
    g_total = [step.op.Add(t, g) for t, g in zip(totals, found[len(floats) : n_kept], strict=True)]
    step.graph.inputs[:] = [*g_states, *totals, *states, *slices, *g_outs]
    step.finish([*found[: len(floats)], *g_total, *found[n_kept:]])

    begin = [*(b.g_or_zeros(k) for k in floats), *(op.zeros_like(v) for v in sources)]
    over = [op.reversed(v) for v in (*saved, *steps)]
    over += [_in_steps(op, b.g_or_zeros(n_state + k), out_axes[k], 1 - out_reversed[k]) for k in arriving]
    targets = [*(b.input(k) for k in floats), *sources, *(scanned[k] for k in wanted)]
    like = [*targets[:n_kept], *(stacked(slices[k]) for k in wanted)]
    result = op.place("Scan", [*begin, *over], like, body=step.graph, num_scan_inputs=len(over))
    g_scanned = [
        _from_steps(op, g, in_axes[k], 1 - in_reversed[k]) for k, g in zip(wanted, result[n_kept:], strict=True)
    ]
    return _added(b, targets, [*result[:n_kept], *g_scanned])


def _in_steps(op: Emitter, x: ir.Value, axis: int, backwards: int) -> ir.Value:
    """A scan input with the step axis in front, in the order of execution."""
    perm = _to_front(x, axis)
    x = x if perm is None else op.Transpose(x, perm=perm)
    return op.reversed(x) if backwards else x


def _from_steps(op: Emitter, x: ir.Value, axis: int, backwards: int) -> ir.Value:
    """The inverse of ``_in_steps``."""
    x = op.reversed(x) if backwards else x
    perm = _to_front(x, axis)
    return x if perm is None else op.Transpose(x, perm=[int(k) for k in np.argsort(perm)])


def _to_front(x: ir.Value, axis: int) -> list[int] | None:
    if axis == 0:
        return None
    rank = len(dims(x) or ())
    return [axis % rank, *(k for k in range(rank) if k != axis % rank)]


@RULES.rule("Loop")
def loop(b: Backward) -> ByValue:
    """As Scan; how many steps there were is what the forward loop made of its condition."""
    op, forward = b.op, b.node.attributes["body"].as_graph()
    carried = [b.input(i) for i in range(2, len(b.inputs))]
    if any(not isinstance(v.type, ir.TensorType) for v in carried):
        raise Unsupported(
            f"Loop {b.node.name!r} (opset {b.opset}) carries a sequence: only tensors can be saved for the way back. "
            "Export the model with the loop unrolled, or explain a tensor behind it (wrt=)."
        )
    n = len(carried)
    sources = _float_captures(forward)

    saving = Body.copy(b, forward)
    incoming = [saving.op.anew(v) for v in (saving.graph.inputs[0], *saving.graph.inputs[2:])]
    saving.graph.outputs.extend(incoming)
    saved = op.place("Loop", b.inputs, [*b.outputs, *(stacked(v) for v in incoming)], body=saving.graph)
    saved = saved[len(b.outputs) :]
    steps = op.Size(saved[0])

    floats = [k for k in range(n) if is_float(carried[k])]
    arriving = [k for k in range(len(b.outputs) - n) if b.gs[n + k] is not None]
    step = Body.copy(b, forward)
    i, condition, *states = step.graph.inputs
    backward_i = step.input_like(i)
    with step.before():
        t = step.op.Sub(step.op.Sub(steps, op.const(np.int64(1))), backward_i)
        started = [step.op.typed(step.op.Gather(v, t), s) for v, s in zip(saved[1:], states, strict=True)]
        g_outs = [step.op.Gather(b.g_or_zeros(n + k), t) for k in arriving]
    step.replace(i, t)
    step.replace(condition, op.const(np.asarray(True)))
    for state, value in zip(states, started, strict=True):
        step.replace(state, value)
    ends, outs = step.graph.outputs[1 : 1 + n], step.graph.outputs[1 + n :]
    g_states = [step.input_like(ends[k]) for k in floats]
    totals = [step.input_like(v) for v in sources]
    seeds = [(ends[k], g) for k, g in zip(floats, g_states, strict=True)]
    seeds += [(outs[k], g) for k, g in zip(arriving, g_outs, strict=True)]
    states = started
    found = step.gradients(seeds, [*(states[k] for k in floats), *sources])
    g_total = [step.op.Add(total, g) for total, g in zip(totals, found[len(floats) :], strict=True)]
    going_on = ir.val(f"{step.name}/going_on", dtype=ir.DataType.BOOL, shape=ir.Shape([]))
    step.graph.inputs[:] = [backward_i, going_on, *g_states, *totals]
    step.finish([going_on, *found[: len(floats)], *g_total])
    targets = [*(carried[k] for k in floats), *sources]
    initial = [*(b.g_or_zeros(k) for k in floats), *(op.zeros_like(v) for v in sources)]
    result = op.place("Loop", [steps, op.const(np.asarray(True)), *initial], targets, body=step.graph)
    return _added(b, targets, result)


def _float_captures(*graphs: ir.Graph) -> list[ir.Value]:
    """What the subgraphs capture that can have a gradient, each once."""
    return list(dict.fromkeys(v for graph in graphs for v in captured(graph) if is_float(v)))


def _arriving(b: Backward) -> list[ir.Value | None]:
    return [g if is_float(y) else None for g, y in zip(b.gs, b.outputs, strict=True)]


def _added(b: Backward, targets: Sequence[ir.Value], found: Sequence[ir.Value]) -> ByValue:
    """By value; a value that came in twice (as a state and captured, say) gets the sum."""
    total: dict[ir.Value, ir.Value | None] = {}
    for x, g in zip(targets, found, strict=True):
        before = total.get(x)
        total[x] = g if before is None else b.op.Add(before, g)
    return total
