"""The inputs that an audit looks at, one by one, and how they go through a model together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import Manifest
from onnxplain.request.inputs import has_row_axis

Array = NDArray[Any]
AT_ONCE = 32
"""Rows of one call: bounds what is held in memory of a folder of pictures."""


@dataclass(frozen=True, eq=False)
class Specimen:
    """One input row: per model input an array with a row axis of 1."""

    name: str
    arrays: Mapping[str, Array]

    @property
    def digest(self) -> str:
        """SHA-256 of what the model gets."""
        sha = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            sha.update(f"{name}:{array.dtype.str}:{array.shape}:".encode() + np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def batches(manifest: Manifest, specimens: Sequence[Specimen]) -> Iterator[tuple[list[int], dict[str, Array]]]:
    """Places of specimens, and their inputs stacked; those of different shapes go apart."""
    alone = not all(has_row_axis(manifest, spec) for spec in manifest.inputs)
    groups: dict[object, list[int]] = {}
    for place, specimen in enumerate(specimens):
        shapes = tuple((name, array.shape[1:]) for name, array in sorted(specimen.arrays.items()))
        groups.setdefault(place if alone else shapes, []).append(place)
    for places in groups.values():
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            if alone:
                yield some, dict(specimens[some[0]].arrays)
            else:
                names = specimens[some[0]].arrays
                yield some, {name: np.concatenate([specimens[k].arrays[name] for k in some]) for name in names}
