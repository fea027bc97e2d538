"""Which layer's feature maps a CAM looks at where none is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxplain.artifact import Layer, Manifest, TensorSpec
from onnxplain.errors import BadRequest
from onnxplain.methods.layout import layout
from onnxplain.methods.upsampling import spaces

MOVES = frozenset(
    [
        *("AveragePool", "MaxPool", "LpPool", "Resize"),
        *("Dropout", "Identity", "Cast", "Reshape", "Transpose", "Slice", "Pad"),
    ]
)
"""Operators that only pool, move or resize: the feature map is the one before them (VGG's relu5_3, not pool5)."""

CONVOLVES = frozenset(["Conv", "ConvTranspose", "DeformConv"])


def default_layer(manifest: Manifest, output: str, specs: Sequence[TensorSpec] = (), rules: str = "gradient") -> Layer:
    """The last feature map on the path to the output.

    That is the last layer with a gradient whose tensor has a channel axis and spatial axes of more than one place, and
    whose operator computes something (``MOVES`` do not). In a vision transformer it is what enters the last block's
    attention (its normalisation, or the sum before it): behind it the class token alone may reach the output.
    BadRequest where there is none (a language model): name one then. ``specs``: the inputs' rows.
    """
    path = list(on_path(manifest, output, rules))
    attention = max((k for k, layer in enumerate(path) if _attends(layer)), default=-1)
    convolved = any(layer.op in CONVOLVES and _is_map(layer.shape) for layer in path[attention + 1 :])
    found = None
    if attention >= 0 and not convolved:
        found = _last_tokens(path[:attention], manifest, specs)
    if found is None:
        found = next((x for x in reversed(path) if x.op not in MOVES and _is_map(x.shape)), None)
    if found is None:
        raise BadRequest(
            "this model has no feature map with spatial axes on the path from its inputs to"
            f" {output!r}: name one with layer= (`onnxplain inspect` lists them), or take another method"
        )
    return found


def on_path(manifest: Manifest, output: str, rules: str = "gradient") -> Iterator[Layer]:
    """The layers with a gradient that are computed before the output, in order."""
    gradients = manifest.gradients.get(rules, {})
    for layer in manifest.layers:
        if layer.tensor == output:
            return
        if layer.tensor in gradients:
            yield layer


def _is_map(shape: tuple[int | str | None, ...] | None) -> bool:
    """(n, channels, space...) with more than one place; an unknown size counts as more."""
    return shape is not None and len(shape) >= 4 and any(not isinstance(size, int) or size > 1 for size in shape[2:])


def _attends(layer: Layer) -> bool:
    """A Softmax over as many places as it has rows: attention of tokens to each other."""
    shape = layer.shape
    return layer.op == "Softmax" and shape is not None and len(shape) > 2 and shape[-1] == shape[-2] != 1


def _last_tokens(path: Sequence[Layer], manifest: Manifest, specs: Sequence[TensorSpec]) -> Layer | None:
    """The last normalisation, or sum of two branches, that is a grid of tokens over an input."""
    images = list(spaces(manifest, specs).values())
    for layer in reversed(path):
        if layer.op != "LayerNormalization" and not (layer.op == "Add" and not layer.initializers):
            continue
        sizes = (layer.shape or ())[1:]
        row = tuple(size for size in sizes if isinstance(size, int))
        fits = layout(row, images) if row and len(row) == len(sizes) else None
        if fits is not None and fits.kind != "channels_first":
            return layer
    return None
