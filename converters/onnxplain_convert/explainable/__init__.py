"""From a source to an artifact: forward graph, gradients, manifest; checked by running, written whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.artifact import MANIFEST_KEY, Artifact, Manifest, Preprocessing, TensorSpec
from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain_convert.canonical import CHANGES, TRAINING, canonicalise
from onnxplain_convert.explainable.batch import settle
from onnxplain_convert.explainable.checks import verified
from onnxplain_convert.explainable.digest import digest
from onnxplain_convert.explainable.layers import layers
from onnxplain_convert.explainable.logits import expose_logits
from onnxplain_convert.explainable.saving import save
from onnxplain_convert.explainable.select import differentiated, explained
from onnxplain_convert.frontends.source import Source
from onnxplain_convert.grad.kinks import KINKED
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.grad.walk import Differentiated, differentiate_graph
from onnxplain_convert.graph.shapes import dims
from onnxplain_convert.relevance import RULE_SETS
from onnxplain_convert.relevance.gates import gated

__all__ = ["build_artifact", "rule_sets"]


def build_artifact(
    source: Source,
    out_path: str | Path | None,
    *,
    rules: Sequence[str],
    outputs: Sequence[str] | None,
    wrt: Sequence[str] | None,
    preprocessing: Preprocessing | None,
    labels: Sequence[str] | None,
    external_data: bool,
) -> Artifact:
    """Make, check and (where ``out_path`` is given) write the artifact of a source."""
    baked = rule_sets(rules)
    rng = np.random.default_rng(0)
    if MANIFEST_KEY in source.model.metadata_props:
        raise BadRequest(
            "this file is an artifact already: load or serve it as it is, or convert the model that it was made from"
        )
    model = canonicalise(source.model, inference=True)
    changes, training = list(model.meta[CHANGES]), bool(model.meta[TRAINING])
    RemoveUnusedNodesPass()(model)
    originals = [v.name or "" for v in model.graph.outputs]
    probabilities = expose_logits(model)
    names = explained(model, outputs)
    stands_for = differentiated(model, wrt)
    batch = settle(model, names, source.example, rng)
    model = batch.model
    changes += [batch.note] if batch.note else []
    default = default_output(names, originals, probabilities)
    forward = list(model.graph)
    manifest = Manifest(
        inputs=tuple(spec(v) for v in model.graph.inputs),
        outputs=tuple(spec(v) for v in model.graph.outputs),
        explained=tuple(names),
        default_output=default,
        differentiated=tuple(spec(v) for v in _values(model, list(stands_for))),
        stands_for=stands_for,
        rules=tuple(rules),
        gradients={},
        layers=layers(model, forward),
        rows=batch.rows,
        probabilities=probabilities,
        preprocessing=preprocessing,
        labels=_labels(labels, model, default),
        source={**source.info, "changes": changes},
        digest=digest(model),
    )
    walked = differentiate_graph(model, list(stands_for), names, baked)
    manifest = with_gradients(manifest, walked, forward)
    if training:
        source = dataclasses.replace(source, run=None)
    manifest = verified(Artifact(model, manifest), source, batch, forward, rng)
    model.metadata_props[MANIFEST_KEY] = manifest.to_json()
    if out_path is not None:
        save(model, out_path, external_data=external_data)
    return Artifact(model, manifest)


def rule_sets(names: Sequence[str]) -> list[RuleSet]:
    """Rule sets by name. Raises NotFound with the nearest names, BadRequest where there is none."""
    if not names:
        raise BadRequest(f"no rule set to bake; {nearest('', RULE_SETS)}")
    for name in names:
        if name not in RULE_SETS:
            raise NotFound(f"no rule set {name!r}; {nearest(name, RULE_SETS)}")
    return [RULE_SETS[name] for name in dict.fromkeys(names)]


def default_output(names: Sequence[str], originals: Sequence[str], probabilities: dict[str, str]) -> str:
    """The logits under the first output that was recognised as probabilities, else the first output explained."""
    for name in originals:
        if probabilities.get(name) in names:
            return probabilities[name]
    return names[0]


def spec(value: ir.Value) -> TensorSpec:
    """Name, numpy dtype name and shape of a value."""
    assert value.name is not None and value.dtype is not None
    return TensorSpec(value.name, value.dtype.numpy().name, dims(value) or ())


def with_gradients(manifest: Manifest, walked: Differentiated, forward: Sequence[ir.Node]) -> Manifest:
    """The manifest with what the walk found: gradients by tensor, kinks and gates on the path, zeros."""
    path = set(walked.path)
    on_path = [node for node in forward if node.name in path]
    return dataclasses.replace(
        manifest,
        gradients=walked.gradients,
        kinks=tuple(sorted({node.op_type for node in on_path if not node.domain and node.op_type in KINKED})),
        gates=tuple(node.name or "" for node in on_path if gated(node) is not None),
        zero_gradient=walked.zero_gradient,
        straight_through=walked.straight_through,
        unreachable=walked.unreachable,
    )


def _labels(labels: Sequence[str] | None, model: ir.Model, output: str) -> tuple[str, ...] | None:
    if labels is None:
        return None
    (value,) = _values(model, [output])
    classes = [d for d in (dims(value) or ())[1:2] if isinstance(d, int)]
    if classes and len(labels) != classes[0]:
        raise BadRequest(f"{len(labels)} labels for the {classes[0]} classes of output {output!r}")
    return tuple(labels)


def _values(model: ir.Model, names: Sequence[str]) -> list[ir.Value]:
    known = ir.convenience.create_value_mapping(model.graph)
    return [known[name] for name in names]
