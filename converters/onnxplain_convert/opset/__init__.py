"""Brings a model's operators into the opset window of the artifact, without changing what they compute."""

from onnxplain_convert.opset.microsoft import claim
from onnxplain_convert.opset.window import HIGHEST, LOWEST, into_window

__all__ = ["HIGHEST", "LOWEST", "claim", "into_window"]
