"""Explain any ONNX model with nothing but ONNX Runtime.

import onnxplain

model = onnxplain.load("net.onnx")
e = model.explain(x, method="integrated_gradients", n_steps=50)
e.attributions["input"], e.scores, e.targets
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxplain import errors
from onnxplain.installed import check_onnxruntime

check_onnxruntime()

from onnxplain.explain import Explanation, Model, load  # noqa: E402  (the check comes first: it explains what would fail)
from onnxplain.methods import METHODS  # noqa: E402

if TYPE_CHECKING:
    from onnxplain.client import Client

__all__ = ["METHODS", "Client", "Explanation", "Model", "errors", "load"]


def __getattr__(name: str) -> Any:
    """The client is imported when it is first asked for: gRPC takes longer to import than all the rest."""
    if name == "Client":
        from onnxplain.client import Client

        return Client
    raise AttributeError(f"module 'onnxplain' has no attribute {name!r}")
