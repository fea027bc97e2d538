"""Inputs of a request: names, shapes, types and values checked, and cut into rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.errors import BadRequest

Array = NDArray[Any]
Row = dict[str, Array]


def read(manifest: Manifest, x: Any, *, check_finite: bool = True) -> list[Row]:
    """Per row, every input without its row axis; an input that has none is the same array in every row.

    ``x``: one array for a model of one input, or {input name: array}. Raises BadRequest that names the input, what it
    must be and what was given.
    """
    arrays = {name: _array(manifest.input(name), value, check_finite) for name, value in _named(manifest, x).items()}
    cut = {name: _rows(manifest, manifest.input(name), array) for name, array in arrays.items()}
    counts = {name: len(rows) for name, rows in cut.items() if rows is not None}
    n = next(iter(counts.values()), 1)
    if len(set(counts.values())) > 1:
        raise BadRequest(f"inputs have different numbers of rows: {_listed(counts)}")
    if n == 0:
        raise BadRequest("no rows: the first axis of the input has length 0")
    _check_symbols(manifest, {name: rows[0] if rows is not None else arrays[name] for name, rows in cut.items()})
    return [{name: rows[k] if rows is not None else arrays[name] for name, rows in cut.items()} for k in range(n)]


def _named(manifest: Manifest, x: Any) -> Mapping[str, Any]:
    names = [spec.name for spec in manifest.inputs]
    if not isinstance(x, Mapping):
        if len(names) == 1:
            return {names[0]: x}
        raise BadRequest(
            f"this model has {len(names)} inputs: give a dict with an array for each of {', '.join(names)}"
        )
    unknown, missing = [str(name) for name in x if name not in names], [name for name in names if name not in x]
    if unknown or missing:
        parts = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(missing)
        raise BadRequest(f"inputs: {'; '.join(parts)}; the model takes {', '.join(names)}")
    return {name: x[name] for name in names}


def _array(spec: TensorSpec, value: Any, check_finite: bool) -> Array:
    where = f"input {spec.name!r}"
    try:
        given = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{where}: not an array ({error})") from error
    wanted = np.dtype(spec.dtype)
    kinds = {"f": "f", "b": "b", "i": "iub", "u": "iub"}.get(wanted.kind, wanted.kind)
    if given.dtype.kind not in kinds:
        hint = f": convert it with .astype({wanted.name!r})" if given.dtype.kind in "iufb" else ""
        if wanted.kind == "f" and given.dtype == np.uint8:
            hint = ": raw pixels? do the model's preprocessing first (`onnxplain explain` does it for pictures)"
        raise BadRequest(f"{where} must be {wanted.name}, got {given.dtype}{hint}")
    if check_finite and wanted.kind == "f" and not np.all(np.isfinite(given)):
        bad = np.argwhere(~np.isfinite(given))
        raise BadRequest(
            f"{where} holds {len(bad)} values that are NaN or infinite, the first at {bad[0].tolist()}:"
            " clean it, or give check_finite=False to explain what the model makes of them"
        )
    with np.errstate(over="ignore"):
        cast = given.astype(wanted, copy=False)
    lost = not np.array_equal(cast, given) if wanted.kind != "f" else bool(np.any(np.isinf(cast) & np.isfinite(given)))
    if lost:
        raise BadRequest(f"{where} holds values that do not fit {wanted.name}")
    return cast


def _rows(manifest: Manifest, spec: TensorSpec, array: Array) -> list[Array] | None:
    """None for an input without a row axis that is held fixed."""
    where, shape = f"input {spec.name!r}", list(spec.shape)
    if has_row_axis(manifest, spec):
        _check_shape(where, shape, array.shape, first=1, row_axis=True)
        return list(array)
    if spec.name not in manifest.stands_for.values():
        _check_shape(where, shape, array.shape, first=0, row_axis=False)
        return None
    # A differentiated input of a model without a row axis: one row as it is, or several along an axis of their own.
    if array.ndim == len(shape) + 1:
        _check_shape(where, ["rows", *shape], array.shape, first=1, row_axis=True)
        return list(array)
    _check_shape(where, shape, array.shape, first=0, row_axis=False)
    return [array]


def has_row_axis(manifest: Manifest, spec: TensorSpec) -> bool:
    """Axis 0 counts rows: it is free, or of the number of rows that the model is fixed to."""
    if not spec.shape:
        return False
    fixed = re.fullmatch(r"fixed\((\d+)\)", manifest.rows)
    return not isinstance(spec.shape[0], int) or (fixed is not None and spec.shape[0] == int(fixed[1]))


def _check_shape(where: str, wanted: list[Any], given: tuple[int, ...], *, first: int, row_axis: bool) -> None:
    """Fixed axes from ``first`` on must agree."""
    if len(given) == len(wanted) and all(
        not isinstance(w, int) or w == g for w, g in zip(wanted[first:], given[first:], strict=True)
    ):
        return
    hint = ""
    if row_axis and len(given) == len(wanted) - 1:
        hint = ": the first axis counts rows, add one with x[None]"
    shown = [
        "rows" if row_axis and axis == 0 else size if size is not None else "?" for axis, size in enumerate(wanted)
    ]
    raise BadRequest(f"{where} must have shape [{', '.join(map(str, shown))}], got {list(given)}{hint}")


def _check_symbols(manifest: Manifest, row: Row) -> None:
    """Axes of the same name have the same length in every input."""
    seen: dict[str, tuple[str, int]] = {}
    for spec in manifest.inputs:
        first = 1 if has_row_axis(manifest, spec) else 0
        for symbol, size in zip(spec.shape[first:], row[spec.name].shape, strict=False):
            if isinstance(symbol, str) and symbol:
                name, other = seen.setdefault(symbol, (spec.name, size))
                if other != size:
                    raise BadRequest(
                        f"axis {symbol!r} has length {other} in input {name!r} and {size} in {spec.name!r}"
                    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())
