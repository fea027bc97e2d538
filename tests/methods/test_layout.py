from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxplain.artifact import Layer, TensorSpec
from onnxplain.methods.feature_map import default_layer
from onnxplain.methods.layout import layout
from tests.methods import fake

PICTURE = (224, 224)


@pytest.mark.parametrize(
    ("shape", "image", "kind", "space", "prefix"),
    [
        ((768, 7, 7), PICTURE, "channels_first", (7, 7), 0),
        ((7, 7, 768), PICTURE, "channels_last", (7, 7), 0),
        ((12, 20, 512), (384, 640), "channels_last", (12, 20), 0),
        ((512, 12, 20), (384, 640), "channels_first", (12, 20), 0),
        ((32, 32, 32), PICTURE, "channels_first", (32, 32), 0),
        ((196, 768), PICTURE, "tokens", (14, 14), 0),
        ((197, 768), PICTURE, "tokens", (14, 14), 1),
        ((198, 192), PICTURE, "tokens", (14, 14), 2),
        ((261, 384), PICTURE, "tokens", (16, 16), 5),
        ((241, 64), (384, 640), "tokens", (12, 20), 1),
        ((1 + 9 * 16, 64), (150, 260), "tokens", (9, 16), 1),  # patches of 16: the rest of the picture is left out
        ((64, 50), (100,), "channels_first", (50,), 0),
        ((100, 64), (100,), "channels_last", (100,), 0),
    ],
)
def test_auto(shape: tuple[int, ...], image: tuple[int, ...], kind: str, space: tuple[int, ...], prefix: int) -> None:
    read = layout(shape, [image])
    assert read is not None
    assert (read.kind, read.space, read.prefix) == (kind, space, prefix)


@pytest.mark.parametrize("shape", [(10,), (231, 768), (1, 768), (12, 197, 197, 2)])
def test_what_fits_nothing(shape: tuple[int, ...]) -> None:
    assert layout(shape, [PICTURE]) is None


def test_told_and_by_operator() -> None:
    told = layout((8, 8, 8), [PICTURE], "channels_last")
    assert told is not None and told.kind == "channels_last"
    convolved = layout((7, 7, 768), [PICTURE], op="Conv")
    assert convolved is not None and convolved.kind == "channels_first"
    assert layout((196, 768), [PICTURE], "channels_first") is None


def test_tokens_are_folded_row_by_row_without_the_class_token() -> None:
    grid = np.arange(6 * 4.0).reshape(2, 3, 4)
    tokens = np.concatenate([np.full((1, 4), -1.0), grid.reshape(6, 4)])
    read = layout((7, 4), [(32, 48)])
    assert read is not None
    np.testing.assert_array_equal(read.folded(tokens), grid.transpose(2, 0, 1))
    last = layout((2, 3, 4), [(32, 48)])
    assert last is not None
    np.testing.assert_array_equal(last.folded(grid), grid.transpose(2, 0, 1))


def layer(name: str, op: str, *shape: int, weights: tuple[str, ...] = ()) -> Layer:
    return Layer(name, op, f"{name}_out", ("N", *shape), weights)


def block(k: int, *, fused: bool = True) -> list[Layer]:
    """A transformer's block of 197 tokens as exported: normalisation, attention, sum, normalisation, network, sum."""
    norm = [layer(f"norm{k}", "LayerNormalization", 197, 64, weights=("g",))]
    parts = [layer(f"scaled{k}", "Mul", 197, 64, weights=("g",)), layer(f"shift{k}", "Add", 197, 64, weights=("b",))]
    return [
        *(norm if fused else parts),
        layer(f"qkv{k}", "MatMul", 197, 192, weights=("w",)),
        layer(f"bias{k}", "Add", 197, 192, weights=("b",)),
        layer(f"heads{k}", "Reshape", 4, 197, 48),
        layer(f"scores{k}", "MatMul", 4, 197, 197),
        layer(f"softmax{k}", "Softmax", 4, 197, 197),
        layer(f"values{k}", "MatMul", 4, 197, 16),
        layer(f"sum{k}", "Add", 197, 64),
        layer(f"mlp{k}", "MatMul", 197, 64, weights=("w",)),
        layer(f"out{k}", "Add", 197, 64),
    ]


STEM, TOP = [layer("patches", "Conv", 64, 14, 14)], [layer("class", "Gather", 64), layer("y", "Gemm", 10)]
SPECS = (TensorSpec("x", "float32", (3, 224, 224)),)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([*STEM, *block(1), *block(2), *TOP], "norm2"),
        ([*STEM, *block(1, fused=False), *block(2, fused=False), *TOP], "out1"),
        ([*STEM, *block(1), layer("fused", "Conv", 32, 14, 14), layer("relu", "Relu", 32, 14, 14), *TOP], "relu"),
        ([layer("stem", "Conv", 8, 28, 28), layer("act", "Relu", 8, 28, 28), *TOP], "act"),
    ],
)
def test_default_layer_of_transformers(layers: list[Layer], expected: str) -> None:
    about = fake.manifest({"x": np.zeros((3, 224, 224))}, layers=tuple(layers))
    assert default_layer(about, "y_out", SPECS).name == expected


def test_layers_behind_the_output_are_not_looked_at() -> None:
    layers = (layer("a", "Conv", 8, 7, 7), layer("y", "Gemm", 5), layer("decoder", "Conv", 8, 14, 14))
    about = replace(fake.manifest({"x": np.zeros((3, 224, 224))}, layers=layers), layers=layers)
    assert default_layer(about, "y_out", SPECS).name == "a"
