"""The artifact: one ordinary ONNX file holding a model, its gradients and a manifest.

It is the only thing that the converter and the runtime share. This file names its parts, reads and writes the
manifest (JSON in ``metadata_props``), and cuts programs out of the graph: ONNX Runtime runs every node of a
session whatever is asked for, so each purpose gets a graph of its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxplain.errors import BadModel, NotFound, nearest

SCHEMA = 1
"""Version of the manifest's schema; a reader refuses a newer one."""

MANIFEST_KEY = "onnxplain.manifest"

Dim = int | str | None


def seed_name(output: str) -> str:
    """Name of the input that takes the cotangent of ``output``."""
    return f"seed/{output}"


def gradient_name(rules: str, tensor: str) -> str:
    """Name of the gradient of the explained output with respect to ``tensor`` under a rule set."""
    return f"{rules}/{tensor}"


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor: numpy dtype name and shape, an unknown or symbolic axis as a string or None."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class Layer:
    """One layer in execution order: the node's name, operator, first output and what weights it owns."""

    name: str
    op: str
    tensor: str
    shape: tuple[Dim, ...] | None
    initializers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input: resize to (height, width), scale to [0, 1], then (value - mean) / std.

    ``layout`` is "NCHW" or "NHWC", ``color`` "RGB", "BGR" or "L". ``mean`` and ``std`` are per channel, of [0, 1].
    """

    layout: str
    color: str
    size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0 / 255.0
    shorter: int | None = None
    """Bring the shorter side to this many pixels, then cut ``size`` out of the middle; None: resize to ``size``."""


@dataclass(frozen=True)
class Manifest:
    """What the converter found out about the model, so that the runtime need not guess."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    """The original model's outputs with logits that were made visible appended."""
    explained: tuple[str, ...]
    """Outputs that have a seed input."""
    default_output: str
    """What is explained unless told otherwise: the logits where they were recognised."""
    differentiated: tuple[TensorSpec, ...]
    """Tensors with a gradient output: float inputs, or the first float tensor behind an integer one."""
    stands_for: dict[str, str]
    """differentiated tensor -> the input it stands for (itself, or the integer input behind an embedding)."""
    rules: tuple[str, ...]
    gradients: dict[str, dict[str, str]]
    """rule set -> {tensor on the path -> tensor holding its gradient}."""
    layers: tuple[Layer, ...]
    rows: str
    """"independent", "coupled" or "fixed(n)": are the rows of axis 0 independent of each other?"""
    probabilities: dict[str, str] = field(default_factory=dict)
    """probability output -> logits output (a trailing Softmax or Sigmoid that was recognised)."""
    kinks: tuple[str, ...] = ()
    """Operators on the path whose derivative jumps (Relu, MaxPool, ...); empty: the network is smooth."""
    gates: tuple[str, ...] = ()
    """Names of the nodes where guided backpropagation differs from the gradient."""
    zero_gradient: tuple[str, ...] = ()
    """Piecewise constant nodes on the path, whose gradient is zero by definition."""
    straight_through: tuple[str, ...] = ()
    """Quantising nodes on the path: rounding was differentiated as the identity inside the representable range."""
    unreachable: tuple[str, ...] = ()
    """Differentiated inputs that cannot influence the explained output (their gradient is an explicit zero)."""
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    """framework, producer, opset and file of the source."""
    parity: dict[str, float] = field(default_factory=dict)
    """Largest absolute and relative difference to the source measured at conversion, per output."""
    digest: str = ""
    """SHA-256 of the weights and the forward graph: names the model, whatever the file is called."""
    schema: int = SCHEMA

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises BadModel where the JSON is broken or of a newer schema."""
        try:
            raw = json.loads(text)
            if raw["schema"] > SCHEMA:
                raise BadModel(
                    f"manifest schema {raw['schema']} is newer than this onnxplain reads ({SCHEMA}): upgrade onnxplain"
                )
            return cls(
                **{
                    **raw,
                    "inputs": _specs(raw["inputs"]),
                    "outputs": _specs(raw["outputs"]),
                    "differentiated": _specs(raw["differentiated"]),
                    "layers": tuple(
                        Layer(**{**x, "shape": _tuple(x["shape"]), "initializers": tuple(x["initializers"])})
                        for x in raw["layers"]
                    ),
                    "preprocessing": _preprocessing(raw["preprocessing"]),
                    "labels": _tuple(raw["labels"]),
                    **{k: tuple(raw.get(k, ())) for k in _NAMES},
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel(f"the manifest cannot be read ({error!r}): convert the model again") from error

    def layer(self, name: str) -> Layer:
        """The layer of that name, or whose tensor has that name. Raises NotFound with the nearest names."""
        for layer in self.layers:
            if name in (layer.name, layer.tensor):
                return layer
        raise NotFound(f"no layer {name!r}; {nearest(name, [x.name for x in self.layers])}")

    def input(self, name: str) -> TensorSpec:
        return next(spec for spec in self.inputs if spec.name == name)


def _tuple(value: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)


def _specs(raw: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(x["name"], x["dtype"], tuple(x["shape"])) for x in raw)


def _preprocessing(raw: Mapping[str, Any] | None) -> Preprocessing | None:
    if raw is None:
        return None
    return Preprocessing(**{**raw, "size": _tuple(raw["size"]), "mean": tuple(raw["mean"]), "std": tuple(raw["std"])})


_NAMES = ("explained", "rules", "kinks", "gates", "zero_gradient", "straight_through", "unreachable")


@dataclass(frozen=True)
class Artifact:
    """An explainable model in memory: its graph (weights memory-mapped where external) and its manifest."""

    model: ir.Model
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Artifact:
        """Read an artifact. Raises BadModel where the file is not ONNX or has no manifest."""
        try:
            model = ir.load(path)
        except FileNotFoundError as error:
            raise BadModel(f"{path}: no such file") from error
        except Exception as error:
            raise BadModel(f"{path}: not a readable ONNX file ({error})") from error
        return cls.of(model, str(path))

    @classmethod
    def of(cls, model: ir.Model, where: str = "model") -> Artifact:
        text = model.metadata_props.get(MANIFEST_KEY)
        if text is None:
            raise BadModel(f"{where}: a plain ONNX file, not an artifact: run `onnxplain convert` on it first")
        return cls(model, Manifest.from_json(text))

    def cut(self, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Graph:
        """The part of the graph that computes ``outputs`` from ``inputs`` and initializers, as a graph of its own.

        ``inputs`` may name inner tensors: the graph is then cut there (an embedding in place of token ids).
        """
        return ir.convenience.extract(self.model.graph, list(inputs), list(outputs))
