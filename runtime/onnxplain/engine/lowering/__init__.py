"""Rewrites of a program for the provider that runs it: exact, made at load, never written into an artifact."""

from __future__ import annotations

import onnx_ir as ir


def lower(model: ir.Model, provider: str) -> None:
    """Rewrite ``model`` in place for "cpu" or "cuda"."""
