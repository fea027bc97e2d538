"""Is the score piecewise linear in a layer? Then its second derivative is zero, as Grad-CAM++'s closed form assumes."""

from __future__ import annotations

from onnxplain.artifact import Layer, Manifest
from onnxplain.methods.feature_map import on_path

PIECEWISE_LINEAR = frozenset(
    [
        *("Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "ConvTranspose"),
        *("CumSum", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Gemm"),
        *("GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Identity", "LeakyRelu", "Max", "MaxPool", "Mean"),
        *("Min", "Neg", "PRelu", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape"),
        *("Resize", "ReverseSequence", "Shrink", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum"),
        *("ThresholdedRelu", "Tile", "TopK", "Transpose", "Unsqueeze", "Upsample"),
    ]
)
WITH_WEIGHTS = frozenset(["Div", "Einsum", "MatMul", "Mul"])
"""Linear where one side is a weight, not where both depend on the input."""


def curved_behind(manifest: Manifest, layer: Layer, output: str) -> list[str]:
    """Operators computed after the layer and before the output that are not piecewise linear, each once.

    The manifest has layers in execution order and no edges: an operator of a parallel branch may be among them.
    """
    path = list(on_path(manifest, output))
    start = next((k for k, each in enumerate(path) if each.tensor == layer.tensor), -1)
    return sorted({each.op for each in path[start + 1 :] if not _is_linear(each)} | _of_output(manifest, output))


def _is_linear(layer: Layer) -> bool:
    return layer.op in PIECEWISE_LINEAR or (layer.op in WITH_WEIGHTS and bool(layer.initializers))


def _of_output(manifest: Manifest, output: str) -> set[str]:
    """The operator that makes the output itself."""
    return {layer.op for layer in manifest.layers if layer.tensor == output and not _is_linear(layer)}
