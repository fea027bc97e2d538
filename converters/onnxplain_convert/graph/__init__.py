"""Reads and emits ONNX graphs; knows no gradients."""
