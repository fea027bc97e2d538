"""Converts models from any framework into explainable ONNX: the model, its gradients and a manifest in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxplain.artifact import Artifact, Preprocessing
from onnxplain_convert.canonical import canonicalise
from onnxplain_convert.coverage import Coverage, Operator, coverage
from onnxplain_convert.explainable import build_artifact, rule_sets
from onnxplain_convert.explainable.select import differentiated, explained
from onnxplain_convert.frontends import read
from onnxplain_convert.grad.walk import differentiate_graph

__all__ = ["Coverage", "Operator", "convert", "coverage", "differentiate"]


def convert(
    source: Any,
    out_path: str | Path | None = None,
    *,
    rules: Sequence[str] = ("gradient", "guided", "deconvnet"),
    outputs: Sequence[str] | None = None,
    wrt: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    example: Any = None,
    external_data: bool = False,
) -> Artifact:
    """Turn a model of any framework into an artifact, test it, and write it where ``out_path`` says.

    ``source``: path, bytes or ModelProto of an ONNX model; a PyTorch module (with ``example``) or exported program.
    ``rules``: rule sets baked into the file. ``outputs``: what can be explained (default: every float output and the
    logits under probabilities, which come first). ``wrt``: tensors to differentiate (default: float inputs,
    the embedding behind integer ones). ``example``: inputs that make sense, by name or in order. Weights above 1 GiB
    are always external data, beside the file as ``<name>.data``.

    Raises BadRequest, NotFound (nearest names), BadModel (broken or unsafe file), Unsupported (operator without rule).
    """
    return build_artifact(
        read(source, example),
        out_path,
        rules=rules,
        outputs=outputs,
        wrt=wrt,
        preprocessing=preprocessing,
        labels=labels,
        external_data=external_data,
    )


def differentiate(
    model: onnx.ModelProto,
    wrt: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    rules: Sequence[str] = ("gradient",),
) -> onnx.ModelProto:
    """The model with inputs ``seed/y`` and outputs ``R/t``: the gradient of sum(seed/y * y) under each rule set R.

    The forward pass computes what it did; the result is valid ONNX (opset 18 to 21, IR 10) and can be differentiated
    again. Defaults: every float input (the embedding behind an integer one), every float output.

    >>> from onnx import parser
    >>> text = '<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) { y = Mul(x, x) }'
    >>> [v.name for v in differentiate(parser.parse_model(text)).graph.output]
    ['y', 'gradient/x']
    """
    canonical = canonicalise(model)
    names = explained(canonical, outputs)
    differentiate_graph(canonical, list(differentiated(canonical, wrt)), names, rule_sets(rules))
    return ir.to_proto(canonical)
