"""Converts models from any framework into explainable ONNX: the model, its gradients and a manifest in one file."""
