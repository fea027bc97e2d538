"""One node, differentiated: its gradients in float64 against PyTorch's, and in ONNX Runtime against the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from onnxplain.artifact import gradient_name, seed_name
from onnxplain_convert import differentiate
from tests.reference import Reference

Array = NDArray[Any]
Shapes = Literal["static", "batch", "symbolic"]
"""What is known of the shape of ``x`` when the node is differentiated: all, all but its first axis, its rank."""

EXACT = 1e-9
"""Relative error in float64: a few hundred roundings of 1e-16, with cancellation, and no more."""

ROUNDED = 2e-5
"""The same for float32 in ONNX Runtime: roundings are 6e-8, sums have up to 1e3 terms."""


@dataclass(frozen=True)
class Node:
    """An operator with its attributes and inputs by name; inputs named in ``constants`` are initializers."""

    operator: str
    inputs: Mapping[str, Array | None]
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...] = ("y",)
    constants: tuple[str, ...] = ()
    shapes: Shapes = "static"
    opset: int = 21

    def model(self) -> ModelProto:
        """The model of this node alone."""
        given = {name: value for name, value in self.inputs.items() if value is not None}
        node = onnx.helper.make_node(
            self.operator,
            [name if name in given else "" for name in self.inputs],
            list(self.outputs),
            name="node",
            **self.attributes,
        )
        graph = onnx.helper.make_graph(
            [node],
            "one",
            [_info(name, value, self.shapes) for name, value in given.items() if name not in self.constants],
            [onnx.ValueInfoProto(name=name) for name in self.outputs if name],
            [onnx.numpy_helper.from_array(given[name], name) for name in self.constants],
        )
        opsets = [onnx.helper.make_opsetid("", self.opset)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for output in model.graph.output:
            if not output.type.tensor_type.HasField("shape"):  # onnx infers nothing for this operator
                x = next(iter(given.values()))
                kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
                output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, [None] * x.ndim))
        return model

    def differentiated(self, wrt: Sequence[str], explained: Sequence[str] = ("y",)) -> ModelProto:
        """The model with its gradients, valid and of standard operators."""
        model = differentiate(self.model(), wrt, explained)
        onnx.checker.check_model(model, full_check=True)
        return model

    def feeds(self) -> dict[str, Array]:
        return {k: v for k, v in self.inputs.items() if v is not None and k not in self.constants}


def _info(name: str, value: Array, shapes: Shapes) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    unknown = {"static": 0, "batch": 1, "symbolic": value.ndim}[shapes] if name == "x" else 0
    dims = [f"{name}{k}" if k < unknown else size for k, size in enumerate(value.shape)]
    return onnx.helper.make_tensor_value_info(name, kind, dims)


def check(
    node: Node,
    truth: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
    wrt: Sequence[str],
    explained: Sequence[str] = ("y",),
    exact: float | None = EXACT,
    rounded: float | None = ROUNDED,
    model: ModelProto | None = None,
) -> ModelProto:
    """Assert that the gradients are those of ``truth``, which is the node in PyTorch.

    In float64 up to ``exact``; in ONNX Runtime, as float32, up to ``rounded``; each unless it is None.
    """
    model = model or node.differentiated(wrt, explained)
    values, expected, seeds = _torch_gradients(node, truth, wrt, explained)
    names = [gradient_name("gradient", name) for name in wrt]
    feeds = {**node.feeds(), **seeds}
    if exact is not None:
        found = Reference(model)(feeds, names)
        for name, want in zip(names, expected, strict=True):
            assert_close(found[name], want, exact, f"{name} in float64, {node}")
    if rounded is not None:
        narrow = run_onnxruntime(model, feeds, [*explained, *names])
        for name, want in values.items():  # is it the same function at all?
            assert_close(narrow[name], want, rounded, f"{name} itself in ONNX Runtime, {node}")
        for name, want in zip(names, expected, strict=True):
            assert_close(narrow[name], want, rounded, f"{name} in ONNX Runtime, {node}")
    return model


def _torch_gradients(
    node: Node, truth: Callable[..., Any], wrt: Sequence[str], explained: Sequence[str]
) -> tuple[dict[str, Array], list[Array], dict[str, Array]]:
    tensors = {
        name: torch.tensor(value, dtype=torch.float64) if value.dtype.kind == "f" else torch.tensor(value)
        for name, value in node.inputs.items()
        if value is not None
    }
    for name in wrt:
        tensors[name].requires_grad_(True)
    result = truth(*(tensors.get(name) for name in node.inputs))
    results = result if isinstance(result, tuple) else (result,)
    ys = dict(zip([n for n in node.outputs if n], results, strict=False))  # integer outputs may be left out
    rng = np.random.default_rng(7)
    # float32 numbers, so that float64 and ONNX Runtime see the same seeds
    seeds = {name: rng.standard_normal(ys[name].shape).astype(np.float32) for name in explained}
    cotangents = [torch.tensor(seeds[name], dtype=torch.float64) for name in explained]
    gradients = torch.autograd.grad([ys[name] for name in explained], [tensors[name] for name in wrt], cotangents)
    return (
        {name: ys[name].detach().numpy() for name in explained},
        [g.numpy() for g in gradients],
        {seed_name(name): seed for name, seed in seeds.items()},
    )


def run_onnxruntime(model: ModelProto, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
    """Outputs by name, on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    needed = {i.name for i in session.get_inputs()}
    values = session.run(list(outputs), {k: v for k, v in feeds.items() if k in needed})
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}


def assert_close(found: Array, want: Array, relative: float, what: str) -> None:
    """Equal up to ``relative`` of the largest entry."""
    assert found.shape == want.shape, f"{what}: shape {found.shape}, not {want.shape}"
    largest = max(float(np.max(np.abs(want), initial=0)), 1e-3)
    off = float(np.max(np.abs(found - want), initial=0)) / largest
    assert off <= relative, f"{what}: off by {off:.1e} of {largest:.1e}"


def normal(*shape: int, seed: int = 0) -> Array:
    """Standard normal float32 numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def operators(model: ModelProto) -> list[str]:
    """Operator types of the nodes in order."""
    return [node.op_type for node in model.graph.node]
