"""From a source to an artifact: forward graph, gradients, manifest; checked by running, written whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.artifact import MANIFEST_KEY, Artifact, Manifest, Preprocessing, TensorSpec
from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain_convert.canonical import CHANGES, TRAINING, canonicalise
from onnxplain_convert.explainable.batch import Batch, settle
from onnxplain_convert.explainable.digest import digest
from onnxplain_convert.explainable.layers import layers
from onnxplain_convert.explainable.logits import expose_logits
from onnxplain_convert.explainable.saving import save
from onnxplain_convert.explainable.select import differentiated, explained
from onnxplain_convert.frontends.source import Array, Source
from onnxplain_convert.grad.kinks import KINKED
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.grad.walk import Differentiated, differentiate_graph
from onnxplain_convert.graph.shapes import dims
from onnxplain_convert.inferring import without_weights
from onnxplain_convert.relevance import RULE_SETS
from onnxplain_convert.relevance.gates import gated
from onnxplain_convert.verify import Probe, check_gradients, check_guided, parity, signals, whole

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
    manifest = verified(Artifact(model, manifest), source, batch, gate_tensors(forward, manifest), rng)
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


def gate_tensors(forward: Sequence[ir.Node], manifest: Manifest) -> dict[str, str]:
    """Tensor read by each gate on the path -> tensor that it writes."""
    found = {}
    for node in forward:
        index = gated(node) if node.name in manifest.gates else None
        if index is not None and (x := node.inputs[index]) is not None and x.name and node.outputs[0].name:
            found[x.name] = node.outputs[0].name
    return found


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


def verified(
    artifact: Artifact, source: Source, batch: Batch, gates: Mapping[str, str], rng: np.random.Generator
) -> Manifest:
    """The manifest with the parity measured. Raises Unsupported where the artifact is not what it should be."""
    check_file(artifact.model)
    manifest = artifact.manifest
    if batch.feeds is None or batch.together is None or batch.run is None:
        return manifest
    arriving = signals(manifest, gates)
    taps = [*arriving, *arriving.values()]
    run = whole(artifact, taps)
    theirs, note = _outputs_of(source, batch.feeds)
    probe = Probe.at(artifact, run, batch.run, batch.together, taps, rng)
    measured = parity(_rows_of(batch, probe.found), {y: theirs[y] for y in manifest.explained if y in theirs})
    slope = check_gradients(probe, rng)
    if slope is not None:
        measured["gradient/slope"] = slope
    check_guided(probe, arriving)
    return dataclasses.replace(manifest, parity=measured, source={**manifest.source, **note})


def _outputs_of(source: Source, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """What the source itself computes, or nothing and the reason."""
    if source.run is None:
        return {}, {"parity": "not measured: the source is in training mode"}
    try:
        return source.run(feeds), {}
    except Exception as error:  # the source's own engine: whatever it raises, there is nothing to compare with
        return {}, {"parity": f"not measured: {str(error)[:200]}"}


def _rows_of(batch: Batch, found: Mapping[str, Array]) -> dict[str, Array]:
    """The rows that the source was run on, which come first."""
    if batch.rows != "independent" or batch.feeds is None:
        return dict(found)
    n = max(len(value) for value in batch.feeds.values() if value.ndim)
    return {name: value[:n] if value.ndim else value for name, value in found.items()}


def check_file(model: ir.Model) -> None:
    """ONNX's checker with full shape inference. A failure is our bug, since the source passed."""
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except Exception as error:
        raise RuntimeError(f"the artifact is not valid ONNX: {error}. This is a bug: nothing was written.") from error


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
