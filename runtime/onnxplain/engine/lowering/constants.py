"""What is known about a value before anything runs."""

from __future__ import annotations

import onnx_ir as ir


def number(value: ir.Value | None) -> float | None:
    """The number that a value always is. None where it is not one number, known."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None
