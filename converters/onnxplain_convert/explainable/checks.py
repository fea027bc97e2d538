"""What an artifact has to pass before it is written: valid ONNX, the source's outputs, gradients that are slopes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from onnxplain.artifact import Artifact, Manifest
from onnxplain_convert.explainable.batch import Batch
from onnxplain_convert.frontends.source import Array, Source
from onnxplain_convert.inferring import without_weights
from onnxplain_convert.relevance.gates import gated
from onnxplain_convert.verify import Probe, check_gradients, check_guided, is_quick, parity

UNMEASURED = (
    "parity and gradients: onnx's own evaluator takes too long on convolutions, and ONNX Runtime is not installed "
    '(pip install "onnxplain[cpu]") or has none in float64; convert again where it can run them'
)


def verified(
    artifact: Artifact, source: Source, batch: Batch, forward: Sequence[ir.Node], rng: np.random.Generator
) -> Manifest:
    """The manifest with the parity measured. ``forward``: nodes of the model itself.

    Raises Unsupported where the artifact is not what it should be; what cannot be run is not tested, and said so.
    """
    check_file(artifact.model)
    manifest = artifact.manifest
    if batch.feeds is None or batch.together is None or batch.run is None:
        return manifest
    if not is_quick(artifact.model):
        return dataclasses.replace(manifest, source={**manifest.source, "unmeasured": UNMEASURED})
    theirs, note = _outputs_of(source, batch.feeds)
    arriving = signals(manifest, forward)
    probe = Probe.at(artifact, batch.run, batch.together, [*arriving, *arriving.values()], rng)
    ours = {y: probe.found[y][: batch.alone] if probe.found[y].ndim else probe.found[y] for y in manifest.explained}
    measured = parity(ours, {y: theirs[y] for y in manifest.explained if y in theirs})
    slope = check_gradients(probe, rng, exact=not _differs_on_purpose(manifest, forward))
    if slope is not None:
        measured["gradient/slope"] = slope
    check_guided(probe, arriving)
    return dataclasses.replace(manifest, parity=measured, source={**manifest.source, **note})


def check_file(model: ir.Model) -> None:
    """ONNX's checker with full shape inference. A failure is our bug, since the source passed."""
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except Exception as error:
        raise RuntimeError(f"the artifact is not valid ONNX: {error}. This is a bug: nothing was written.") from error


def signals(manifest: Manifest, forward: Sequence[ir.Node]) -> dict[str, str]:
    """Tensor read by each gate -> gradient arriving at what the gate writes, where guided backpropagation is baked."""
    known = manifest.gradients.get("gradient", {})
    found: dict[str, str] = {}
    for node in forward if "guided" in manifest.rules else ():
        index = gated(node) if node.name in manifest.gates else None
        x = None if index is None else node.inputs[index]
        if x is not None and x.name and (signal := known.get(node.outputs[0].name or "")):
            found[x.name] = signal
    return found


def _differs_on_purpose(manifest: Manifest, forward: Sequence[ir.Node]) -> bool:
    """Is there a staircase (Round, Cast, QuantizeLinear) whose slope is not its gradient? Conditions are none."""
    steps = {*manifest.zero_gradient, *manifest.straight_through}
    return any(node.name in steps and node.outputs[0].dtype != ir.DataType.BOOL for node in forward)


def _outputs_of(source: Source, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """What the source itself computes, or nothing and the reason."""
    if source.run is None:
        return {}, {"parity": "not measured: the source is in training mode"}
    try:
        return source.run(feeds), {}
    except Exception as error:  # the source's own engine: whatever it raises, there is nothing to compare with
        return {}, {"parity": f"not measured: {str(error)[:200]}"}
