"""The row axis: one symbol on the first axis of every input where the model allows it; are rows independent?

Nothing is believed: a freed axis is kept only where a batch of different rows gives what each row gives alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.errors import BadModel, BadRequest, OnnxplainError
from onnxplain_convert.graph.shapes import Dim, const_array, dims, reads
from onnxplain_convert.inferring import forget_inner_shapes, infer
from onnxplain_convert.sampling import SIZES, random_feeds
from onnxplain_convert.verify import Evaluator, evaluator

Array = NDArray[Any]

ROWS = 2
"""Rows of a batch that are compared with each row alone."""

_TOLERANCE = {2: 3e-2, 4: 2e-4, 8: 1e-9}
"""By bytes per number, relative to the output's largest value: kernels round differently for other batch sizes."""


@dataclass(frozen=True)
class Batch:
    """A model whose row axis is settled."""

    model: ir.Model
    rows: str
    """As in the manifest: independent, coupled or fixed(n)."""
    feeds: Mapping[str, Array] | None = None
    """One row (or the fixed number) that source and model were seen to run on; None where none could be made up."""
    together: Mapping[str, Array] | None = None
    """Several rows beginning with those of ``feeds``, where rows are independent; else the same as ``feeds``."""
    run: Evaluator | None = None
    """The settled model, ready to run."""
    note: str = ""
    alone: int | None = None
    """How many rows ``feeds`` are, where rows are independent; None: all of an output belongs to them."""


def settle(
    model: ir.Model, outputs: Sequence[str], example: Mapping[str, Array] | None, rng: np.random.Generator
) -> Batch:
    """Free the row axis of a canonical model as far as it can be, and test its rows on ``outputs``.

    Raises BadRequest where the model does not run on the ``example`` that it was given.
    """
    axes = row_axes(model)
    if not axes:
        return Batch(model, "fixed(1)", note="the model has no input with an axis for rows")
    size = next((d for d in axes.values() if isinstance(d, int)), None)
    alone = _runnable(model, outputs, example, rng)
    if alone is None:
        note = (
            "no input could be made up that the model runs on: give example= to have rows, parity and gradients tested"
        )
        return Batch(model, f"fixed({size})" if size is not None else "coupled", note=note)
    run, feeds = alone
    candidate = freed(model, axes)
    agrees: bool | None = False
    if candidate is not None:
        run_freed = run if candidate is model else evaluator(candidate)
        together = random_feeds(candidate, max(ROWS, size or 0), _size_of(model, feeds), rng, feeds)
        agrees = _agrees(run, run_freed, outputs, feeds, together, list(axes), size)
        if agrees:
            return Batch(candidate, "independent", feeds, together, run_freed, alone=len(feeds[next(iter(axes))]))
    if size is not None:
        return Batch(model, f"fixed({size})", feeds, feeds, run)
    if agrees is None:  # declared free, but more than one row does not run
        note = "the model declares a free first axis but runs one row only"
        return Batch(_fixed(model, axes), "fixed(1)", feeds, feeds, run, note)
    return Batch(model, "coupled", feeds, feeds, run)


def row_axes(model: ir.Model) -> dict[str, Dim]:
    """{input whose first axis counts rows: that axis}: the free ones, else those of the first input's length.

    Others (a temperature, a scale per channel) belong to all rows.
    """
    firsts: dict[str, Dim] = {v.name or "": shape[0] for v in model.graph.inputs if (shape := dims(v))}
    if any(not isinstance(d, int) for d in firsts.values()):
        return {name: d for name, d in firsts.items() if not isinstance(d, int)}
    return {name: d for name, d in firsts.items() if d == next(iter(firsts.values()))}


def _runnable(
    model: ir.Model, outputs: Sequence[str], example: Mapping[str, Array] | None, rng: np.random.Generator
) -> tuple[Evaluator, dict[str, Array]] | None:
    """The model ready to run, and one row (or its fixed number) that it was seen to run on."""
    try:
        run = evaluator(model)
    except OnnxplainError:
        return None
    for size in SIZES:
        feeds = random_feeds(model, 1, size, rng, example)
        if feeds is None:
            return None
        try:
            run(feeds, outputs)
        except Exception as error:  # whatever the engine raises: this size does not fit, another may
            if example is not None and len(example) == len(model.graph.inputs):
                raise BadRequest(f"the model does not run on the example: {str(error)[:300]}") from error
            continue
        return run, feeds
    return None


def _size_of(model: ir.Model, feeds: Mapping[str, Array]) -> int:
    """The size that unknown axes were given."""
    for value in model.graph.inputs:
        for axis, dim in enumerate(dims(value) or ()):
            if axis and not isinstance(dim, int):
                return int(feeds[value.name or ""].shape[axis])
    return SIZES[0]


def freed(model: ir.Model, axes: Mapping[str, Dim]) -> ir.Model | None:
    """The model with one symbol as the first axis of the inputs ``axes``, and of constant shapes that repeat that axis.

    Itself where it has it already, else a copy; None where types and shapes then contradict each other.
    """
    symbol = next((d for d in axes.values() if isinstance(d, str)), "batch")
    if all(d == symbol for d in axes.values()):
        return model
    copy = model.clone()
    _free_reshapes(copy)
    _set_first(copy, axes, symbol)
    forget_inner_shapes(copy)
    try:
        infer(copy, strict=True)
    except BadModel:
        return None
    return copy


def _free_reshapes(model: ir.Model) -> None:
    """Reshape to a constant shape beginning with the fixed number of rows: copy it from the input, or leave it open."""
    live: set[ir.Value] = set(model.graph.inputs)
    for node in model.graph:
        if live.isdisjoint(reads(node)):
            continue
        live.update(node.outputs)
        shape = const_array(node.inputs[1]) if node.op_type == "Reshape" and not node.domain else None
        if shape is None or not shape.size or shape[0] <= 0 or (shape == 0).any():
            continue
        assert node.inputs[0] is not None
        before = dims(node.inputs[0])
        if before and before[0] == int(shape[0]):
            first = 0
        elif (shape < 0).any():
            continue
        else:
            first = -1
        tensor = ir.tensor(np.array([first, *shape[1:]], np.int64), name=f"{node.name}/rows_open")
        value = ir.val(tensor.name, tensor.dtype, [shape.size], const_value=tensor)
        model.graph.register_initializer(value)
        node.replace_input_with(1, value)
        node.attributes.pop("allowzero", None)


def _set_first(model: ir.Model, axes: Mapping[str, Dim], dim: int | str) -> None:
    for value in model.graph.inputs:
        if value.name in axes and (shape := dims(value)):
            value.shape = ir.Shape([dim, *shape[1:]])


def _fixed(model: ir.Model, axes: Mapping[str, Dim]) -> ir.Model:
    copy = model.clone()
    _set_first(copy, axes, 1)
    forget_inner_shapes(copy)
    infer(copy, strict=False)
    return copy


def _agrees(
    run: Evaluator,
    run_freed: Evaluator,
    outputs: Sequence[str],
    feeds: Mapping[str, Array],
    together: Mapping[str, Array] | None,
    rows: Sequence[str],
    size: int | None,
) -> bool | None:
    """Does the candidate give for a batch what each row gives alone? None where it does not run on a batch."""
    if together is None:
        return None
    n = max(len(together[name]) for name in rows)
    try:
        batch = run_freed(together, outputs)
        if size is not None and size != 1:  # rows cannot be run alone at the source: the same rows through both
            first, second = run(feeds, outputs), run_freed(feeds, outputs)
            if not all(_close(second[name], first[name]) for name in outputs):
                return False
            run = run_freed
        for i in range(ROWS):
            row = {name: value[i : i + 1] if name in rows else value for name, value in together.items()}
            single = run(row, outputs)
            for name in outputs:
                if batch[name].shape[:1] != (n,) or single[name].shape[:1] != (1,):
                    return False
                if not _close(batch[name][i : i + 1], single[name]):
                    return False
    except Exception:  # whatever the engine raises: not runnable with another number of rows
        return None
    return True


def _close(a: Array, b: Array) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    limit = _TOLERANCE[a.dtype.itemsize] * float(np.abs(b).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=limit, equal_nan=True))
