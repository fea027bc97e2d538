"""The outside truth of the tests: float64 evaluation of ONNX graphs and central differences."""

from tests.reference.evaluator import Reference
from tests.reference.precision import to_float32, to_float64

__all__ = ["Reference", "to_float32", "to_float64"]
