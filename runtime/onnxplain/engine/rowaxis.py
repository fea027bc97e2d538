"""Which tensors of a model have a row axis, and how many rows it takes at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.artifact import Dim, Manifest
from onnxplain.errors import BadModel, Unsupported


@dataclass(frozen=True)
class RowAxis:
    """How a model takes rows: ``symbols`` its row axis has, ``fixed`` number of rows if any, ``shared`` by several requests."""

    symbols: frozenset[str]
    fixed: int | None
    shared: bool
    """False where rows influence each other or there is no row axis: then one row a run."""

    @classmethod
    def of(cls, manifest: Manifest) -> RowAxis:
        """From the manifest's ``rows``: "independent", "coupled" or "fixed(n)"."""
        leading = [spec.shape[0] for spec in manifest.inputs if spec.shape]
        symbols = frozenset(d for d in leading if isinstance(d, str))
        if manifest.rows in ("independent", "coupled"):
            return cls(symbols, None, manifest.rows == "independent")
        fixed = re.fullmatch(r"fixed\((\d+)\)", manifest.rows)
        if fixed is None or int(fixed[1]) < 1:
            raise BadModel(
                f"the manifest says rows={manifest.rows!r}; this onnxplain knows independent, coupled and fixed(n): "
                "convert the model again"
            )
        return cls(symbols, int(fixed[1]), True)

    def has(self, shape: Sequence[Dim]) -> bool:
        """Is axis 0 of a model input of this shape the row axis?"""
        if not shape:
            return False
        if isinstance(shape[0], int):
            return shape[0] == self.fixed
        return True

    def one_row(self, value: ir.Value, what: str) -> tuple[tuple[Dim, ...], bool]:
        """Shape of one row of an inner tensor, and whether it lacks the row axis. Raises Unsupported where axis 0 is not it."""
        if value.shape is None:
            raise Unsupported(f"{what} {value.name!r} has no known rank: convert the model again with an example input")
        dims: tuple[Dim, ...] = tuple(d if isinstance(d, int) else d.value for d in value.shape)
        if self.has(dims):
            known = isinstance(dims[0], int) or dims[0] is None or not self.symbols or dims[0] in self.symbols
            if known or not any(d in self.symbols for d in dims[1:]):
                return dims[1:], False
            raise Unsupported(
                f"{what} {value.name!r} has shape {dims}: its row axis is not the first, so its rows cannot be told apart; "
                "take a layer before or after it"
            )
        if self.shared:
            raise Unsupported(
                f"{what} {value.name!r} has shape {dims}, without the row axis of the model: it is the same for every row"
            )
        return dims, True
