"""RNN, GRU and LSTM: computed again as a Scan over one cell step, and differentiated through that.

The cells are those of the ONNX specification: all activations, both directions, peepholes, clipping, sequence lengths
(a step beyond its sequence leaves the state alone and gives zeros), ``layout`` and the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter

RULES = RuleSet("recurrent")

Activation = Callable[[Emitter, ir.Value], ir.Value]
Step = Callable[[Emitter, ir.Value, Sequence[ir.Value]], tuple[ir.Value, ...]]

_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


@RULES.rule("RNN")
def rnn(b: Backward) -> Gradients:
    """H = f(X W' + H R' + bias)."""
    net = _Net.of(b)

    def cell(d: _Direction) -> Step:
        def step(op: Emitter, xw: ir.Value, state: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
            total = op.Add(op.Add(xw, op.MatMul(state[0], d.recurrence)), d.recurrence_bias)
            return (d.activate(0, op, total),)

        return step

    return b.through(*net.outputs(cell, states=1))


@RULES.rule("GRU")
def gru(b: Backward) -> Gradients:
    """Gates z, r, h: H = (1 - z) * h + z * H."""
    net = _Net.of(b)
    linear_before_reset = bool(b.attr("linear_before_reset", 0))

    def cell(d: _Direction) -> Step:
        def step(op: Emitter, xw: ir.Value, state: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
            (h,) = state
            x_gates, x_hidden = _split(op, xw, [2 * net.hidden, net.hidden])
            r_gates, r_hidden = _split(op, d.recurrence, [2 * net.hidden, net.hidden])
            b_gates, b_hidden = _split(op, d.recurrence_bias, [2 * net.hidden, net.hidden])
            gates = op.Add(op.Add(x_gates, op.MatMul(h, r_gates)), b_gates)
            z, r = (d.activate(0, op, v) for v in _split(op, gates, [net.hidden] * 2))
            if linear_before_reset:
                candidate = op.Mul(r, op.Add(op.MatMul(h, r_hidden), b_hidden))
            else:
                candidate = op.Add(op.MatMul(op.Mul(r, h), r_hidden), b_hidden)
            hidden = d.activate(1, op, op.Add(x_hidden, candidate))
            return (op.Add(op.Mul(op.Sub(1.0, z), hidden), op.Mul(z, h)),)

        return step

    return b.through(*net.outputs(cell, states=1))


@RULES.rule("LSTM")
def lstm(b: Backward) -> Gradients:
    """Gates i, o, f, c with optional peepholes from the cell: C = f * C + i * c, H = o * h(C)."""
    net = _Net.of(b)
    coupled = bool(b.attr("input_forget", 0))

    def cell(d: _Direction) -> Step:
        def step(op: Emitter, xw: ir.Value, state: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
            h, c = state
            total = op.Add(op.Add(xw, op.MatMul(h, d.recurrence)), d.recurrence_bias)
            i, o, f, candidate = _split(op, total, [net.hidden] * 4)
            peep = None if d.peephole is None else _split(op, d.peephole, [net.hidden] * 3)
            if peep is not None:
                i, f = op.Add(i, op.Mul(peep[0], c)), op.Add(f, op.Mul(peep[2], c))
            i = d.activate(0, op, i)
            f = op.Sub(1.0, i) if coupled else d.activate(0, op, f)
            new = op.Add(op.Mul(f, c), op.Mul(i, d.activate(1, op, candidate)))
            if peep is not None:
                o = op.Add(o, op.Mul(peep[1], new))
            return op.Mul(d.activate(0, op, o), d.activate(2, op, new)), new

        return step

    return b.through(*net.outputs(cell, states=2))


def _split(op: Emitter, value: ir.Value, sizes: list[int]) -> tuple[ir.Value, ...]:
    parts: tuple[ir.Value, ...] = op.emit("Split", value, sizes, axis=-1, outputs=len(sizes))
    return parts


@dataclass(frozen=True)
class _Direction:
    """One direction's weights: ``weight`` (input, gates), ``recurrence`` (hidden, gates), biases (gates,)."""

    weight: ir.Value
    recurrence: ir.Value
    input_bias: ir.Value
    recurrence_bias: ir.Value
    peephole: ir.Value | None
    initial: tuple[ir.Value, ...]
    reverse: bool
    activations: tuple[Activation, ...]
    clip: float | None

    def activate(self, index: int, op: Emitter, x: ir.Value) -> ir.Value:
        if self.clip is not None:
            limit = op.const(self.clip, x.dtype)
            x = op.Clip(x, op.const(-self.clip, x.dtype), limit)
        return self.activations[index](op, x)


@dataclass(frozen=True)
class _Net:
    """A recurrent node with its input (steps, batch, features), whatever its layout."""

    b: Backward
    x: ir.Value
    hidden: int

    @classmethod
    def of(cls, b: Backward) -> _Net:
        x = b.op.Transpose(b.x, perm=[1, 0, 2]) if b.attr("layout", 0) else b.x
        recurrence = b.input(2).shape
        hidden = b.attr("hidden_size") or (recurrence[2] if recurrence is not None else None)
        if not isinstance(hidden, int):
            raise Unsupported(f"{b.node.op_type} {b.node.name!r} (opset {b.opset}) does not say its hidden_size")
        return cls(b, x, hidden)

    def outputs(self, cell: Callable[[_Direction], Step], states: int) -> list[ir.Value]:
        """Y (steps, directions, batch, hidden) and last states (directions, batch, hidden), in the node's layout."""
        b, op = self.b, self.b.op
        gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[b.node.op_type]
        runs = [self.run(cell(d), d, states) for d in self.directions(states, gates)]
        every = [op.Concat(*(op.Unsqueeze(r[states], [1]) for r in runs), axis=1)]
        every += [op.Concat(*(op.Unsqueeze(r[k], [0]) for r in runs), axis=0) for k in range(states)]
        if b.attr("layout", 0):
            every = [op.Transpose(every[0], perm=[2, 0, 1, 3]), *(op.Transpose(v, perm=[1, 0, 2]) for v in every[1:])]
        return [v for v, y in zip(every, b.outputs, strict=False)]

    def directions(self, states: int, gates: int) -> list[_Direction]:
        b, op, direction = self.b, self.b.op, self.b.attr("direction", "forward")
        count = 2 if direction == "bidirectional" else 1
        names = b.attr("activations") or _DEFAULTS[b.node.op_type] * count
        alphas, betas = iter(b.attr("activation_alpha") or []), iter(b.attr("activation_beta") or [])
        activations = [_activation(b, n, alphas, betas) for n in names]
        per = len(activations) // count
        found = []
        for k in range(count):
            one = [op.Gather(b.input(i), k) if b.has(i) else None for i in (1, 2, 3, 7)]
            weight, recurrence, bias, peephole = one
            assert weight is not None and recurrence is not None
            width = gates * self.hidden
            if bias is None:
                bias = op.const(np.zeros(2 * width), self.x.dtype)
            input_bias, recurrence_bias = _split(op, bias, [width, width])
            found.append(
                _Direction(
                    weight=op.Transpose(weight, perm=[1, 0]),
                    recurrence=op.Transpose(recurrence, perm=[1, 0]),
                    input_bias=input_bias,
                    recurrence_bias=recurrence_bias,
                    peephole=peephole,
                    initial=tuple(self.initial(5 + s, k) for s in range(states)),
                    reverse=direction == "reverse" or k == 1,
                    activations=tuple(activations[k * per : (k + 1) * per]),
                    clip=b.attr("clip"),
                )
            )
        return found

    def initial(self, index: int, direction: int) -> ir.Value:
        op = self.b.op
        if self.b.has(index):
            axis = 1 if self.b.attr("layout", 0) else 0
            return op.Gather(self.b.input(index), direction, axis=axis)
        size = op.Concat(op.dim(self.x, 1), op.ints(self.hidden), axis=0)
        return op.zeros(size, self.x)

    def run(self, step: Step, d: _Direction, states: int) -> tuple[ir.Value, ...]:
        """The Scan of one direction: its last states, and H of every step."""
        op = self.b.op
        xw = op.Add(op.MatMul(self.x, d.weight), d.input_bias)
        lengths = self.b.inputs[4] if self.b.has(4) else None
        scanned = [xw]
        if lengths is not None:
            steps = op.Reshape(op.dim(self.x, 0), op.const(np.zeros(0, np.int64)))
            positions = op.Range(op.const(np.int64(0)), steps, op.const(np.int64(1)))
            inside = op.Less(op.Unsqueeze(op.Cast(positions, to=lengths.dtype), [1]), op.Unsqueeze(lengths, [0]))
            scanned.append(op.Unsqueeze(inside, [2]))
        body = ir.Graph([], [], nodes=[], name=op.unique("cell"))
        inner = Emitter(body, op.opset, outer=op)
        scanned = [op.reversed(v) if d.reverse else v for v in scanned]
        before = [ir.val(op.unique("state"), v.dtype, _shape(v)) for v in d.initial]
        slices = [ir.val(op.unique("slice"), v.dtype, _shape(v, drop=1)) for v in scanned]
        body.inputs.extend([*before, *slices])
        after = step(inner, slices[0], before)
        y = after[0]
        if lengths is not None:
            after = tuple(inner.Where(slices[1], a, s) for a, s in zip(after, before, strict=True))
            y = inner.Where(slices[1], y, op.const(0.0, y.dtype))
        body.outputs.extend(inner.anew(v) for v in (*after, y))
        like = [*d.initial, ir.val(None, y.dtype, ir.Shape([None, None, self.hidden]))]
        *last, every = op.place("Scan", [*d.initial, *scanned], like, body=body, num_scan_inputs=len(scanned))
        return *last, op.reversed(every) if d.reverse else every


def _shape(value: ir.Value, drop: int = 0) -> ir.Shape | None:
    return None if value.shape is None else ir.Shape(list(value.shape)[drop:])


def _activation(b: Backward, name: str, alphas: object, betas: object) -> Activation:
    """By the specification's name; ``alpha`` and ``beta`` are taken in order by the functions that have them."""
    alpha, beta = _PARAMETERS.get(name, (None, None))
    a = next(alphas, alpha) if alpha is not None else 0.0  # type: ignore[call-overload]
    c = next(betas, beta) if beta is not None else 0.0  # type: ignore[call-overload]
    table: dict[str, Activation] = {
        "Relu": lambda op, x: op.Relu(x),
        "Tanh": lambda op, x: op.Tanh(x),
        "Sigmoid": lambda op, x: op.Sigmoid(x),
        "Softsign": lambda op, x: op.Softsign(x),
        "Softplus": lambda op, x: op.Softplus(x),
        "Affine": lambda op, x: op.Add(op.Mul(x, float(a)), float(c)),
        "LeakyRelu": lambda op, x: op.LeakyRelu(x, alpha=float(a)),
        "ThresholdedRelu": lambda op, x: op.ThresholdedRelu(x, alpha=float(a)),
        "ScaledTanh": lambda op, x: op.Mul(op.Tanh(op.Mul(x, float(c))), float(a)),
        "HardSigmoid": lambda op, x: op.HardSigmoid(x, alpha=float(a), beta=float(c)),
        "Elu": lambda op, x: op.Elu(x, alpha=float(a)),
    }
    if name not in table:
        raise Unsupported(f"{b.node.op_type} {b.node.name!r}: activation {name!r} is none of {', '.join(table)}")
    return table[name]


_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "Affine": (1.0, 0.0),
    "LeakyRelu": (0.01, None),
    "ThresholdedRelu": (1.0, None),
    "ScaledTanh": (1.0, 1.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, None),
}
