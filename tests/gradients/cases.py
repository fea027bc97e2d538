"""ONNX's own operator cases as differentiation tests: what is in, what is left out and why, at two opsets."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from tests.reference import Reference

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
"""Every operator of the default domain, at its newest version."""

_NOTHING = """
    And ArgMax ArgMin BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Constant ConstantOfShape Equal EyeLike
    Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual NonZero Not Or Shape Size Xor
    ConvInteger MatMulInteger QLinearConv QLinearMatMul QuantizeLinear
    BlackmanWindow HammingWindow HannWindow
    ImageDecoder NonMaxSuppression OptionalHasElement RegexFullMatch SequenceLength StringConcat StringNormalizer
    StringSplit TfIdfVectorizer
"""
NOTHING = frozenset(_NOTHING.split())
"""Operators whose cases have no floating-point input or no floating-point output."""

_ELSEWHERE = """
    ConcatFromSequence If Optional SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceMap
    SplitToSequence Trilu GlobalLpPool MaxRoiPool
"""
ELSEWHERE = frozenset(_ELSEWHERE.split())
"""Differentiated in ``tests/rules``: onnx's cases, if any, are of integers, of sequences or of nothing that moves."""

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

COVERED = [name for name in OPERATORS if name not in NOTHING | ELSEWHERE | RANDOM]

PARAMETERS = {
    "Resize": ("roi", "scales"),
    "Upsample": ("scales",),
    "Dropout": ("ratio",),
    "RoiAlign": ("rois",),
    "Range": ("limit",),
    "OneHot": ("depth",),
    "AffineGrid": ("size",),
    "NonMaxSuppression": ("iou_threshold", "score_threshold"),
}
"""Floating-point inputs that say how to compute, not on what."""


@dataclass(frozen=True)
class Case:
    """One operator case: a model, a point in float64, and the names between which it is differentiated."""

    name: str
    operator: str
    model: ModelProto
    feeds: dict[str, Any]
    wrt: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """All cases of one opset by operator (``EXPANDED``: graphs of several nodes), and why the others are left out."""

    cases: dict[str, list[Case]]
    excluded: dict[str, str]


EXPANDED = "function bodies"


@functools.cache
def table(opset: int | None) -> Table:
    """The cases as they are written (each at its operator's newest opset), or all brought to one opset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero and overflow on purpose while they are made
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    cases: dict[str, list[Case]] = {name: [] for name in (*OPERATORS, EXPANDED)}
    excluded: dict[str, str] = {}
    for test in collected:
        found = _case(test, opset)
        if isinstance(found, str):
            excluded[test.name] = found
        else:
            cases[found.operator].append(found)
    return Table(cases, excluded)


def _case(test: Any, opset: int | None) -> Case | str:
    """The case, or why it is none."""
    model: ModelProto = test.model
    graph = model.graph
    operators = {node.op_type for node in graph.node}
    if any(node.domain not in ("", "ai.onnx") for node in graph.node):
        return "another domain than ai.onnx"
    if operators & RANDOM or _is_training_dropout(model, test):
        return "random"
    inputs = test.data_sets[0][0]
    names = [info.name for info in graph.input]
    parameters = _parameters(model)
    wrt = tuple(i.name for i in graph.input if _is_float(i.type) and i.name not in parameters)
    outputs = tuple(o.name for o in graph.output if _is_float(o.type))
    if not wrt:
        return "no floating-point input"
    if not outputs:
        return "no floating-point output"
    feeds = {name: _array(x) for name, x in zip(names, inputs, strict=False)}
    if any(isinstance(x, TensorProto) for x in feeds.values()):
        return "a type that numpy does not have"
    wrt = tuple(name for name in wrt if name in feeds)
    try:
        values = Reference(model)(feeds)
    except Exception:
        return "onnx's reference implementation cannot evaluate it"
    if opset is not None:
        moved = at_opset(model, opset, feeds, values)
        if moved is None:
            return f"not the same at opset {opset}"
        model = moved
    operator = graph.node[0].op_type if len(graph.node) == 1 else EXPANDED
    return Case(test.name, operator, model, feeds, wrt, outputs)


def _array(x: Any) -> Any:
    if isinstance(x, TensorProto) and x.data_type in FLOATS:
        return onnx.numpy_helper.to_array(x)
    return np.asarray(x) if isinstance(x, np.generic) else x


def _is_float(kind: onnx.TypeProto) -> bool:
    return kind.tensor_type.elem_type in FLOATS


def _is_training_dropout(model: ModelProto, test: Any) -> bool:
    """Dropout that really draws: in training mode with a ratio above zero."""
    for node in model.graph.node:
        if node.op_type == "Dropout" and len(node.input) == 3:
            feeds = dict(zip([i.name for i in model.graph.input], test.data_sets[0][0], strict=False))
            return bool(np.any(feeds.get(node.input[2], False))) and bool(np.any(feeds.get(node.input[1], 0.5)))
    return False


def _parameters(model: ModelProto) -> set[str]:
    found: set[str] = set()
    for node in model.graph.node:
        formal = PARAMETERS.get(node.op_type, ())
        if formal:
            version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
            schema = onnx.defs.get_schema(node.op_type, version)
            named = zip(schema.inputs, node.input, strict=False)
            found |= {actual for parameter, actual in named if parameter.name in formal}
    return found


def at_opset(model: ModelProto, opset: int, feeds: dict[str, Any], values: dict[str, Any]) -> ModelProto | None:
    """The model restamped to an opset, or converted to it: the one that is valid there and still gives these values."""
    for move in (_restamped, onnx.version_converter.convert_version):
        try:
            moved = move(model, opset)
            onnx.checker.check_model(moved, full_check=True)
            again = Reference(moved)(feeds)
        except Exception:  # whatever the converter or the checker has against it: the next way, else none
            continue
        if all(_same(values[name], again[name]) for name in values):
            return moved
    return None


def _restamped(model: ModelProto, opset: int) -> ModelProto:
    stamped = ModelProto()
    stamped.CopyFrom(model)
    del stamped.opset_import[:]
    stamped.opset_import.append(onnx.helper.make_opsetid("", opset))
    stamped.ir_version = min(stamped.ir_version, 10)
    return stamped


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, np.ndarray) and a.shape == b.shape and np.allclose(a, b, rtol=1e-12, atol=0, equal_nan=True)
