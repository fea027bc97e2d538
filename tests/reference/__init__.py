"""The outside truth of the tests: float64 evaluation of ONNX graphs and central differences."""

from tests.reference.doubles import to_float64
from tests.reference.evaluator import Reference

__all__ = ["Reference", "to_float64"]
