"""A program: one ONNX graph for one purpose, in three parts: rows, body, moments.

It is pure: (artifact, purpose) -> model. The engine runs it on any number of requests; exported, it is a method that
any ONNX server runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.artifact import Artifact, Dim
from onnxplain.engine.body import Body, cut
from onnxplain.engine.emit import PREFIX, Emit
from onnxplain.engine.moments import moments
from onnxplain.engine.points import PathTensor, RowInputs, point
from onnxplain.engine.rowaxis import ROW, RowAxis
from onnxplain.engine.targets import OutputTensor, explained
from onnxplain.errors import BadModel, Unsupported
from onnxplain.rows import Purpose


@dataclass(frozen=True)
class HeldTensor:
    """An input that is not on the path: gathered by request, or the same for all where it has no row axis."""

    name: str
    dtype: ir.DataType
    shape: tuple[Dim, ...]
    by_request: bool


@dataclass(frozen=True)
class Program:
    """A graph and what its inputs and outputs mean. ``path`` tensors have rows, moments where the purpose has rules."""

    model: ir.Model
    purpose: Purpose
    path: tuple[PathTensor, ...]
    held: tuple[HeldTensor, ...]
    output: OutputTensor
    axis: RowAxis
    weights: Mapping[str, str]
    """Name of an initializer of the program -> its name in the artifact."""

    @property
    def has_moments(self) -> bool:
        return bool(self.purpose.rules and self.purpose.wrt)

    @property
    def inputs(self) -> frozenset[str]:
        return frozenset(str(v.name) for v in self.model.graph.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(str(v.name) for v in self.model.graph.outputs)

    @property
    def name(self) -> str:
        """For people: what is in error messages."""
        purpose = self.purpose
        what = f"{purpose.rules} of {purpose.output}" if purpose.rules else f"forward to {purpose.output}"
        inner = [*purpose.taps, *purpose.tap_gradients]
        return f"{what} along {', '.join(t.name for t in self.path) or 'no tensor'}" + (
            f" with taps {', '.join(inner)}" if inner else ""
        )


def default_path(artifact: Artifact, purpose: Purpose) -> tuple[str, ...]:
    """The tensors whose rows lie on a path: those differentiated; without any, all that the artifact differentiates."""
    return purpose.wrt or tuple(spec.name for spec in artifact.manifest.differentiated)


def build(artifact: Artifact, purpose: Purpose, path: Sequence[str] | None = None) -> Program:
    """The program for ``purpose``; ``path`` as in :func:`default_path` unless given.

    Raises NotFound for a name that the artifact does not have, Unsupported where rows of a tensor cannot be told apart.
    """
    names = tuple(path) if path is not None else default_path(artifact, purpose)
    body = cut(artifact, purpose, names)
    axis = RowAxis.of(artifact.manifest)
    graph, op = body.graph, Emit(body.graph)

    row = RowInputs.declare(op)
    tensors = tuple(_path_tensor(body.inputs[name], name, axis) for name in names)
    points = [point(op, tensor, row) for tensor in tensors]
    for name, made in zip(names, points, strict=True):
        body = _replaced(body, body.inputs[name], made.rows)
    held = _held(artifact, body, axis, names)
    for tensor in held:
        body = _replaced(body, body.inputs[tensor.name], _hold(op, tensor, row))
    output = _output_tensor(body.output, purpose.output, axis)
    seed = explained(op, body.output, output, row.request)
    if body.seed is not None:
        seed.dtype, seed.shape = output.dtype, body.output.shape
        body = _replaced(body, body.seed, seed)
    if body.gradients:
        moments(op, tensors, points, body.gradients, row.request)
    _tap(op, body, purpose, axis)

    graph.sort()
    graph.name = f"{PREFIX}program"
    model = ir.Model(graph, ir_version=artifact.model.ir_version, producer_name="onnxplain")
    weights = {name: name.removeprefix("model/") for name in graph.initializers if not name.startswith(PREFIX)}
    program = Program(model, purpose, tensors, held, output, axis, weights)
    RemoveUnusedNodesPass()(model)
    return program


def _path_tensor(value: ir.Value, name: str, axis: RowAxis) -> PathTensor:
    shape, squeezed = axis.one_row(value, "tensor")
    return PathTensor(name, _float(value), shape, squeezed)


def _output_tensor(value: ir.Value, name: str, axis: RowAxis) -> OutputTensor:
    shape, squeezed = axis.one_row(value, "output")
    return OutputTensor(name, _float(value), shape, squeezed)


def _held(artifact: Artifact, body: Body, axis: RowAxis, path: Sequence[str]) -> tuple[HeldTensor, ...]:
    """The model's other inputs, as far as anything depends on them."""
    held = []
    for spec in artifact.manifest.inputs:
        value = body.inputs[spec.name]
        if spec.name not in path and (value.uses() or value in body.taps):
            by_request = axis.has(spec.shape)
            shape = spec.shape[1:] if by_request else spec.shape
            held.append(HeldTensor(spec.name, _dtype(value), shape, by_request))
    return tuple(held)


def _hold(op: Emit, tensor: HeldTensor, row: RowInputs) -> ir.Value:
    name = f"input/{tensor.name}"
    if not tensor.by_request:
        return op.input(name, tensor.dtype, tensor.shape)
    rows = op("Gather", op.input(name, tensor.dtype, ["requests", *tensor.shape]), row.request, axis=0)
    rows.dtype, rows.shape = tensor.dtype, ir.Shape([ROW, *tensor.shape])
    return rows


def _tap(op: Emit, body: Body, purpose: Purpose, axis: RowAxis) -> None:
    """Inner tensors per row, as outputs ``tap/t`` and ``tap/gradient/t``."""
    taps = [(f"tap/{t}", v) for t, v in zip(purpose.taps, body.taps, strict=True)]
    taps += [(f"tap/gradient/{t}", v) for t, v in zip(purpose.tap_gradients, body.tap_gradients, strict=True)]
    for name, value in dict(taps).items():
        shape, squeezed = axis.one_row(value, "layer")
        made = op("Unsqueeze", value, op.ints(0)) if squeezed else value
        op.output(name, made, _dtype(value), [None, *shape])


def _replaced(body: Body, old: ir.Value, new: ir.Value) -> Body:
    """Put ``new`` where ``old``, a former input, was used or is itself a result."""
    ir.convenience.replace_all_uses_with(old, new)

    def swap(values: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
        return tuple(new if v is old else v for v in values)

    return Body(
        graph=body.graph,
        inputs=body.inputs,
        output=new if body.output is old else body.output,
        seed=body.seed,
        gradients=swap(body.gradients),
        taps=swap(body.taps),
        tap_gradients=swap(body.tap_gradients),
    )


def _float(value: ir.Value) -> ir.DataType:
    dtype = _dtype(value)
    if dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16):
        raise Unsupported(
            f"tensor {value.name!r} is {dtype.name.lower()}: rows and scores are float, double or float16"
        )
    return dtype


def _dtype(value: ir.Value) -> ir.DataType:
    if value.dtype is None:
        raise BadModel(f"tensor {value.name!r} has no type: convert the model again")
    return value.dtype
