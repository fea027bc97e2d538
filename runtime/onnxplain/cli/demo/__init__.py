"""``onnxplain demo``: from a trained model to explanations over gRPC, on real pictures, in one command."""

from onnxplain.cli.demo.command import demo

__all__ = ["demo"]
