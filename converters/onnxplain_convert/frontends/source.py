"""What every frontend hands over: an ONNX model of any opset, where it is from, and the source to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Feeds by input name in, the source's own outputs by output name out."""


@dataclass(frozen=True)
class Source:
    """A model on its way in."""

    model: ir.Model
    """As the frontend made or read it: not canonical yet. Weights stay where they are (mapped, or the framework's)."""
    info: dict[str, Any]
    """framework, producer, opset and file name, for the manifest."""
    run: Run | None
    """The source itself. Raises whatever its engine raises where it cannot run. None: not comparable."""
    example: Mapping[str, np.ndarray[Any, Any]] | None = field(default=None)
    """Inputs that are known to make sense, by input name."""
