"""A model's maps of all specimens by one method, and what the model says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.explain import Explanation, Model
from onnxplain.methods.upsampling import channels_last
from onnxplain.request import baselines
from onnxplain.sanity.options import Options
from onnxplain.sanity.similarity import Seen, seen
from onnxplain.sanity.specimens import Specimen, batches

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Mapped:
    """One specimen's map of the input that is looked at, and how it came about."""

    values: Array
    target: Any
    layer_map: Array | None
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Said:
    """What a model says: per specimen the entropy of its probabilities in nats, and its top class."""

    entropy: Array
    top: Array


def explained_input(manifest: Manifest) -> str:
    """The input whose maps are compared: the first that is differentiated."""
    return manifest.stands_for[manifest.differentiated[0].name]


def mapped(
    model: Model, method: str, specimens: Sequence[Specimen], options: Options, targets: Sequence[Any] | None
) -> list[Mapped]:
    """Maps of all specimens, in order. ``targets`` None: what the options ask for, on this model."""
    found: dict[int, Mapped] = {}
    name = explained_input(model.manifest)
    for places, arrays in batches(model.manifest, specimens):
        result = model.explain(
            arrays,
            method,
            options.target if targets is None else [targets[k] for k in places],
            output=options.output,
            seed=options.seed,
            **options.given.get(method, {}),
        )
        found.update({place: _one(result, name, k) for k, place in enumerate(places)})
    return [found[place] for place in range(len(specimens))]


def _one(result: Explanation, name: str, k: int) -> Mapped:
    layer = result.extras.get("layer_map")
    return Mapped(result.attributions[name][k], result.targets[k], None if layer is None else layer[k], result.options)


def said(model: Model, specimens: Sequence[Specimen], output: str | None) -> Said | None:
    """None where the output is not one score per class."""
    manifest, name = model.manifest, output or model.manifest.default_output
    probabilities = {logits: p for p, logits in manifest.probabilities.items()}.get(name)
    rows: dict[int, Array] = {}
    for places, arrays in batches(manifest, specimens):
        values = model.predict(arrays, (probabilities or name,))[probabilities or name].astype(np.float64)
        if values.ndim != 2 or values.shape[1] < 2:
            return None
        rows.update(dict(zip(places, values, strict=True)))
    table = np.stack([rows[k] for k in range(len(specimens))])
    if probabilities is None:
        table = np.exp(table - table.max(axis=1, keepdims=True))
    share = table / np.maximum(table.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    logs = np.log(np.maximum(share, np.finfo(np.float64).tiny))
    return Said(-(share * logs).sum(axis=1), share.argmax(axis=1))


def multiplies(method: str, options: dict[str, Any]) -> bool:
    """Are the maps multiplied by the input minus a baseline? (Smoothing does what its base does.)"""
    base = options.get("base", method)
    return base == "gradient_x_input" or (base == "integrated_gradients" and bool(options.get("multiply_by_inputs")))


@dataclass(frozen=True, eq=False)
class View:
    """How maps of one specimen are looked at: where their channels are, and where the input is at the baseline."""

    channel_axis: int | None
    displacement: Array | None
    """Input minus baseline; None where the map is not of the input's own shape (tokens)."""

    @classmethod
    def of(cls, manifest: Manifest, specimen: Specimen, shape: tuple[int, ...], options: dict[str, Any]) -> View:
        name = explained_input(manifest)
        x = specimen.arrays[name][0]
        spec = TensorSpec(name, x.dtype.name, tuple(x.shape))
        axis = None if len(shape) < 3 else (len(shape) - 1 if channels_last(manifest, spec) else 0)
        own = x.ndim == len(shape) and x.dtype.kind == "f"
        if not own:
            return cls(axis, None)
        baseline = options.get("baseline", "zero")
        known = baseline if isinstance(baseline, (int, float)) or baseline in _NAMED else "zero"
        return cls(axis, x.astype(np.float64) - baselines.filled(known, manifest, spec, x))

    def seen(self, values: Array, options: Options) -> Seen:
        """A map of this specimen, or of its shape, as it is compared."""
        return seen(values, self.channel_axis, self._kept(), options.settings)

    def _kept(self) -> Array | None:
        if self.displacement is None:
            return None
        differs: Array = self.displacement != 0
        return differs if self.channel_axis is None else np.asarray(differs.any(axis=self.channel_axis))


_NAMED = ("zero", "black", "white", "mean", "blur")


def pixels(specimen: Specimen) -> Array | None:
    """(H, W, 3) bytes of a specimen as the model gets it, its smallest value black and its largest white; None where
    it is no picture of one or three channels."""
    for array in specimen.arrays.values():
        row = array[0].astype(np.float64)
        if row.ndim == 3 and (row.shape[0] in (1, 3) or row.shape[-1] in (1, 3)):
            row = np.moveaxis(row, 0, -1) if row.shape[0] in (1, 3) else row
            grey = np.rint((row - row.min()) / (np.ptp(row) or 1.0) * 255).astype(np.uint8)
            return np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey
    return None
