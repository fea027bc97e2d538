"""One file per source of models. Each has ``handles(obj) -> bool`` and ``to_onnx(obj, example) -> Source``."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from onnxplain.errors import BadRequest
from onnxplain_convert.frontends import onnx_file, torch_
from onnxplain_convert.frontends.source import Source

FRONTENDS: tuple[ModuleType, ...] = (onnx_file, torch_)
"""In the order in which they are asked."""


def read(source: Any, example: Any = None) -> Source:
    """The model as ONNX, through the first frontend that handles it. Raises BadRequest where none does."""
    for frontend in FRONTENDS:
        if frontend.handles(source):
            found = frontend.to_onnx(source, example)
            assert isinstance(found, Source)
            return found
    kinds = "; ".join(str(frontend.TAKES) for frontend in FRONTENDS)
    what = f"the file {Path(source).name}" if isinstance(source, str | Path) else f"a {type(source).__qualname__}"
    raise BadRequest(f"{what} is none of the models that can be converted: {kinds}")
