"""Which initializers are a model's parameters: by layer, in execution order, each with its role.

The manifest says which nodes are layers and which floats are weights. Roles come from where a node reads a value, seen
through transposes, casts and dequantisation; integer codes are parameters where something dequantises them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.artifact import Artifact
from onnxplain.errors import BadModel

Array = NDArray[Any]

_NORMALISATION = {1: "scale", 2: "shift"}
_ROLES: dict[str, dict[int, str]] = {
    "BatchNormalization": {**_NORMALISATION, 3: "mean", 4: "variance"},
    "GroupNormalization": _NORMALISATION,
    "InstanceNormalization": _NORMALISATION,
    "LayerNormalization": _NORMALISATION,
    "RMSNormalization": _NORMALISATION,
    "Conv": {2: "bias"},
    "ConvTranspose": {2: "bias"},
    "DeformConv": {3: "bias"},
    "Gemm": {2: "bias"},
    "GRU": {3: "bias", 5: "state"},
    "LSTM": {3: "bias", 5: "state", 6: "state"},
    "RNN": {3: "bias", 5: "state"},
    "Add": {0: "bias", 1: "bias"},
    "Sub": {0: "bias", 1: "bias"},
    "Mul": {0: "scale", 1: "scale"},
    "Div": {0: "scale", 1: "scale"},
    "QLinearConv": {8: "bias"},
}
"""Operator -> {input slot: role}; every other slot holds a weight."""

_CODES: dict[str, dict[int, tuple[int | None, int | None]]] = {
    # operator -> {slot of codes: (slot of their scale, slot of their zero point)}
    "DequantizeLinear": {0: (1, 2)},
    "QLinearConv": {3: (4, 5), 8: (None, None)},
    "QLinearMatMul": {0: (1, 2), 3: (4, 5)},
    "ConvInteger": {1: (None, 3)},
    "MatMulInteger": {0: (None, 2), 1: (None, 3)},
}
_INTEGER = frozenset(_CODES) - {"DequantizeLinear"}
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "ConvInteger")
_QUANTISERS = ("DequantizeLinear", "QuantizeLinear")


@dataclass(frozen=True, eq=False)
class Codes:
    """How integer codes stand for real values: ``(code - zero) * step``, both broadcast to the codes' shape."""

    step: Array | None
    """None where the graph does not say it beside the codes: values are then in units of one code."""
    zero: Array


@dataclass(frozen=True, eq=False)
class Parameter:
    """One initializer that training set: its role, and the fans where it is a weight that sums over inputs."""

    name: str
    role: str
    """"weight", "bias", "scale", "shift", "mean", "variance" or "state"."""
    fan_in: int | None = None
    fan_out: int | None = None
    codes: Codes | None = None


@dataclass(frozen=True)
class Block:
    """Layers that are randomised together: one, or those under a common name."""

    name: str
    layers: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)


@dataclass(frozen=True)
class Parameters:
    """Of one output: the blocks with parameters in execution order, and float constants that no layer owns."""

    blocks: tuple[Block, ...]
    unowned: tuple[str, ...]

    def __iter__(self) -> Iterator[Parameter]:
        """Every parameter once, however many layers share it."""
        seen: dict[str, Parameter] = {}
        for block in self.blocks:
            for parameter in block.parameters:
                seen.setdefault(parameter.name, parameter)
        return iter(seen.values())


def parameters(artifact: Artifact, output: str | None = None) -> Parameters:
    """The parameters on the way from the inputs to ``output`` (the default output): one block per layer, a bias that
    is added after a product with it.

    Raises BadModel where there is none, NotFound for an output that the model does not have.
    """
    manifest = artifact.manifest
    target = output or manifest.default_output
    graph = artifact.cut([spec.name for spec in manifest.inputs], [target])
    owned = {layer.name: frozenset(layer.initializers) for layer in manifest.layers}
    blocks, claimed = list[Block](), set[str]()
    for node in graph:
        if node.name not in owned and node.op_type not in _INTEGER:
            continue
        found = {p.name: p for p in _of_node(node, owned.get(node.name or "", frozenset()))}
        claimed |= found.keys()
        name = str(node.name)
        if found and blocks and _is_bias_of(node, blocks[-1], found):
            before = blocks.pop()
            blocks.append(Block(before.name, (*before.layers, name), (*before.parameters, *found.values())))
        elif found:
            blocks.append(Block(name, (name,), tuple(found.values())))
    if not blocks:
        raise BadModel(f"no layer before output {target!r} has a parameter: there is nothing to randomise")
    skipped = {v.name for node in graph for v in _quantisation(node)}
    unowned = [
        str(name)
        for name, value in graph.initializers.items()
        if name not in claimed and name not in skipped and _is_float(value) and _size(value) > 1
    ]
    return Parameters(tuple(blocks), tuple(unowned))


def _is_bias_of(node: ir.Node, block: Block, found: Mapping[str, Parameter]) -> bool:
    """A bias added after a product is part of that layer: alone it would be a level at which no gradient changes."""
    producers = [value.producer() for value in node.inputs if value is not None and not _is_constant(value)]
    known = [each.name for each in producers if each is not None and each.op_type in _PRODUCTS]
    return node.op_type == "Add" and known == [block.layers[-1]] and found.keys().isdisjoint(block.names)


def _of_node(node: ir.Node, weights: frozenset[str]) -> Iterator[Parameter]:
    roles = _ROLES.get(node.op_type, {})
    own = _CODES.get(node.op_type, {}) if node.op_type in _INTEGER else {}
    for slot, value in enumerate(node.inputs):
        if value is None or not _is_constant(value) or (node.op_type in _INTEGER and slot not in own):
            continue
        role = roles.get(slot, "weight")
        fans = _fans(node, slot, value) if role == "weight" else (None, None)
        if slot in own and value.is_initializer():
            yield Parameter(str(value.name), role, *fans, codes=_codes(node, value, *own[slot]))
            continue
        for initializer, reader in _constants(value):
            if reader is not None and reader.op_type == "DequantizeLinear":
                yield Parameter(str(initializer.name), role, *fans, codes=_codes(reader, initializer, 1, 2))
            elif initializer.name in weights:
                yield Parameter(str(initializer.name), role, *fans)


def _constants(value: ir.Value) -> Iterator[tuple[ir.Value, ir.Node | None]]:
    """Initializers that a constant ``value`` is made of, each with the node that reads it; not scales of codes."""
    todo: list[tuple[ir.Value, ir.Node | None]] = [(value, None)]
    while todo:
        each, reader = todo.pop(0)
        producer = each.producer()
        if producer is None:
            yield each, reader
            continue
        inputs = producer.inputs[:1] if producer.op_type in _QUANTISERS else producer.inputs
        todo.extend((v, producer) for v in inputs if v is not None)


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None:
        return value.is_initializer()
    return bool(producer.inputs) and all(v is None or _is_constant(v) for v in producer.inputs)


def _quantisation(node: ir.Node) -> Iterator[ir.Value]:
    """Steps and zero points: how values are written down, not what training found."""
    if node.op_type in _QUANTISERS:
        yield from (v for v in node.inputs[1:] if v is not None)
    elif node.op_type in _INTEGER:
        own = _CODES[node.op_type]
        yield from (v for slot, v in enumerate(node.inputs) if v is not None and slot not in own)


def _codes(node: ir.Node, value: ir.Value, step: int | None, zero: int | None) -> Codes:
    shape = _shape(value)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else (1 if len(shape) > 1 else 0)
    axis = 0 if node.op_type == "QLinearConv" else axis
    zeros = _beside(node, zero, shape, axis)
    return Codes(_beside(node, step, shape, axis), np.zeros((), np.int64) if zeros is None else zeros)


def _beside(node: ir.Node, slot: int | None, shape: tuple[int, ...], axis: int) -> Array | None:
    """A constant of one number, one per slice of ``axis`` or one per piece of it, so that it broadcasts."""
    value = node.inputs[slot] if slot is not None and slot < len(node.inputs) else None
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    if array.size == 1:
        return array.reshape(())
    if array.ndim == 1:
        return array.reshape([-1 if k == axis % len(shape) else 1 for k in range(len(shape))])
    return np.repeat(array, -(-shape[axis] // array.shape[axis]), axis=axis)[tuple(slice(n) for n in shape)]


def _fans(node: ir.Node, slot: int, value: ir.Value) -> tuple[int | None, int | None]:
    """Inputs that one output sums over, and outputs that one input goes to, by the shape that the node reads."""
    dims = value.shape.numpy() if value.shape is not None and value.shape.is_static() else _shape(value)
    match node.op_type:
        case "Conv" | "ConvInteger" | "QLinearConv" | "DeformConv":
            group = node.attributes["group"].as_int() if "group" in node.attributes else 1
            return math.prod(dims[1:]), dims[0] // group * math.prod(dims[2:])
        case "ConvTranspose":
            group = node.attributes["group"].as_int() if "group" in node.attributes else 1
            return dims[0] // group * math.prod(dims[2:]), math.prod(dims[1:])
        case "Gemm" if len(dims) == 2:
            flipped = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
            return (dims[1], dims[0]) if flipped == (slot == 1) else (dims[0], dims[1])
        case "MatMul" | "MatMulInteger" | "QLinearMatMul" if len(dims) >= 2:
            return (dims[-2], dims[-1]) if slot else (dims[-1], dims[-2])
        case "GRU" | "LSTM" | "RNN" if len(dims) == 3:
            return dims[2], dims[1]
        case _:
            return None, None


def _shape(value: ir.Value) -> tuple[int, ...]:
    if value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    return tuple(value.shape.numpy()) if value.shape is not None and value.shape.is_static() else ()


def _size(value: ir.Value) -> int:
    return math.prod(_shape(value))


def _is_float(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.dtype.is_floating_point()
