"""Targets of a request: what a caller may write, as weights on flat positions of the output, and back.

A class index, a class name, "top", a pair (a, b) for the margin a - b, a position (one index per axis) in an output of
several axes, a weighting in the output's shape, or a sequence with one of these per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.request.options import is_whole
from onnxplain.rows import TOP, Target

Resolved = int | tuple[Any, ...] | np.ndarray
"""As it is returned: an index or a position, a pair of these, or a weighting."""


@dataclass(frozen=True)
class Output:
    """The explained output: its name, the shape of one row, and the names of its classes where known."""

    name: str
    shape: tuple[int, ...]
    labels: tuple[str, ...] | None = None


def resolve(output: Output, target: Any, n: int) -> list[Target]:
    """One target per row. Raises BadRequest with the range, NotFound for a class name."""
    if isinstance(target, np.ndarray):
        if target.dtype.kind in "iu" and target.ndim == 1 and target.shape != output.shape:
            return _each(output, target.tolist(), n)
        if target.ndim == len(output.shape) + 1 and target.dtype.kind in "iuf":
            return _each(output, list(target), n)
    if isinstance(target, list):
        return _each(output, target, n)
    return [_one(output, target)] * n


def _each(output: Output, targets: Sequence[Any], n: int) -> list[Target]:
    if len(targets) != n:
        raise BadRequest(f"{len(targets)} targets for {n} rows: give one for all, or one per row")
    return [_one(output, each) for each in targets]


def _one(output: Output, target: Any) -> Target:
    match target:
        case np.ndarray():
            return _weighting(output, target)
        case "top" | None:
            return TOP
        case (first, second) if _is_pair(output, target):
            return _pair(output, first, second)
        case _:
            return Target((_place(output, target),))


def _is_pair(output: Output, target: Sequence[Any]) -> bool:
    """Two numbers are a margin where the output has one axis, and a position where it has two."""
    return len(output.shape) != 2 or not all(map(is_whole, target))


def _pair(output: Output, first: Any, second: Any) -> Target:
    places = _place(output, first), _place(output, second)
    if places[0] == places[1]:
        raise BadRequest(f"target ({first!r}, {second!r}): the margin of a class over itself is zero")
    return Target(places, (1.0, -1.0))


def _place(output: Output, target: Any) -> int:
    """The flat position of an index, a name or a position; -1 for "top"."""
    rank = len(output.shape)
    if isinstance(target, str):
        return -1 if target == "top" else _class_named(output, target)
    if is_whole(target):
        index: tuple[Any, ...] = (target,) if rank else ()
        if rank == 0 and target != 0:
            raise BadRequest(
                f"target {target}: output {output.name!r} is a single number per row, its only target is 0"
            )
    elif isinstance(target, (tuple, list)) and all(map(is_whole, target)):
        index = tuple(target)
    else:
        raise BadRequest(
            f"target {_shown(target)} is none of: a class index, a class name, 'top', a pair (a, b), a position,"
            " a weighting"
        )
    if len(index) != rank:
        raise BadRequest(
            f"target {target}: output {output.name!r} has {rank} axes per row, {list(output.shape)}:"
            f" give {rank} indices"
        )
    for each, size in zip(index, output.shape, strict=True):
        if not 0 <= each < size:
            raise BadRequest(
                f"target {target} is out of range: output {output.name!r} has shape {list(output.shape)} per row"
            )
    return int(np.ravel_multi_index(tuple(map(int, index)), output.shape)) if rank else 0


def _class_named(output: Output, name: str) -> int:
    labels = output.labels or ()
    matching = [index for index, label in enumerate(labels) if label.casefold() == name.casefold()]
    if len(output.shape) == 1 and matching and matching[0] < output.shape[0]:
        return matching[0]
    known = nearest(name, labels) if labels else "the model carries no class names: give the class's number"
    raise NotFound(f"no class {name!r}; {known}")


def _weighting(output: Output, weights: np.ndarray) -> Target:
    if weights.shape != output.shape or weights.dtype.kind not in "iuf":
        raise BadRequest(
            f"target weighting has shape {list(weights.shape)} and type {weights.dtype},"
            f" output {output.name!r} has {list(output.shape)} per row"
        )
    flat = weights.ravel().astype(np.float64)
    if not np.all(np.isfinite(flat)):
        raise BadRequest("target weighting holds values that are NaN or infinite")
    places = np.flatnonzero(flat)
    if not len(places):
        raise BadRequest("target weighting is zero everywhere")
    return Target(tuple(places.tolist()), tuple(flat[places].tolist()))


def with_top(target: Target, top: int) -> Target:
    """The target with the row's own largest position in place of -1. Raises BadRequest where a margin is then empty."""
    index = tuple(top if each == -1 else each for each in target.index)
    if len(set(index)) < len(index):
        raise BadRequest(f"target: the margin of class {top} over itself is zero, it is the row's top class")
    return Target(index, target.weight)


def returned(output: Output, target: Target) -> Resolved:
    """A resolved target as a caller would write it."""
    if target.weight == (1.0,):
        return _position(output, target.index[0])
    if target.weight == (1.0, -1.0):
        return (_position(output, target.index[0]), _position(output, target.index[1]))
    weights = np.zeros(output.shape)
    weights.flat[list(target.index)] = target.weight
    return weights


def _position(output: Output, flat: int) -> int | tuple[int, ...]:
    if len(output.shape) <= 1:
        return flat
    return tuple(int(each) for each in np.unravel_index(flat, output.shape))


def _shown(target: Any) -> str:
    text = repr(target)
    return text if len(text) <= 60 else text[:57] + "..."
