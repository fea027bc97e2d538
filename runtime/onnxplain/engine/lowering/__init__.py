"""Rewrites of a program for the provider that runs it: made at load, never written into an artifact.

A lowered program computes the same numbers (each file says how exactly) by operators that the provider's kernels run
faster. On CUDA a program is run as it is: ConvTranspose is cuDNN's own backward convolution.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.engine.lowering import cpu


def lower(model: ir.Model, provider: str) -> None:
    """Rewrite ``model`` in place for "cpu" or "cuda"."""
    if provider == "cpu":
        cpu.lower(model)
