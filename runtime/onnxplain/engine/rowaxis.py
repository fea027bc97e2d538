"""Which tensors of a model have a row axis, and how many rows it takes at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.artifact import Dim, Manifest
from onnxplain.errors import BadModel, Unsupported

ROW = "rows"
"""The symbol of the row axis, the same on every tensor: ONNX Runtime's blocked layout needs equal shapes."""


@dataclass(frozen=True)
class RowAxis:
    """How a model takes rows: the ``symbols`` of its row axis, and the ``fixed`` number of rows if there is one."""

    symbols: frozenset[str]
    inner: frozenset[str]
    """Symbols of the inputs' other axes."""
    fixed: int | None
    shared: bool
    """False where rows influence each other or there is no row axis, or room for one row: then one row a run."""

    @classmethod
    def of(cls, manifest: Manifest) -> RowAxis:
        """From the manifest's ``rows``: "independent", "coupled" or "fixed(n)"."""
        leading = {spec.shape[0] for spec in manifest.inputs if spec.shape}
        # A symbol that is also an inner axis of an input, as the length in positions (length,), is not the row axis.
        inner = frozenset(d for spec in manifest.inputs for d in spec.shape[1:] if isinstance(d, str))
        symbols = frozenset(d for d in leading - inner if isinstance(d, str))
        if manifest.rows in ("independent", "coupled"):
            return cls(symbols, inner, None, manifest.rows == "independent")
        fixed = re.fullmatch(r"fixed\((\d+)\)", manifest.rows)
        if fixed is None or int(fixed[1]) < 1:
            raise BadModel(
                f"the manifest says rows={manifest.rows!r}; this onnxplain knows independent, coupled and fixed(n): "
                "convert the model again"
            )
        return cls(symbols, inner, int(fixed[1]), int(fixed[1]) > 1)

    def has(self, shape: Sequence[Dim]) -> bool:
        """Is axis 0 of a model input of this shape the row axis?"""
        if not shape:
            return False
        if isinstance(shape[0], int):
            return shape[0] == self.fixed
        return shape[0] is None or shape[0] in self.symbols

    def one_row(self, value: ir.Value, what: str) -> tuple[tuple[Dim, ...], bool]:
        """Shape of one row of a tensor, and whether it lacks the row axis. Unsupported where axis 0 is not it."""
        if value.shape is None:
            raise Unsupported(f"{what} {value.name!r} has no known rank: convert the model again with an example input")
        dims: tuple[Dim, ...] = tuple(d if isinstance(d, int) else d.value for d in value.shape)
        rows = {*self.symbols, ROW}
        if any(d in rows for d in dims[1:]):
            raise Unsupported(
                f"{what} {value.name!r} has shape {dims}: its row axis is not the first, so its rows cannot be told "
                "apart; take a layer before or after it"
            )
        # An inner tensor may fold other axes into its first, as windows do, and have a symbol of its own for it.
        if dims and (dims[0] not in self.inner if not isinstance(dims[0], int) else dims[0] == self.fixed):
            return dims[1:], False
        if self.shared:
            raise Unsupported(
                f"{what} {value.name!r} has shape {dims}, without the model's row axis: it is the same for every row"
            )
        return dims, True
