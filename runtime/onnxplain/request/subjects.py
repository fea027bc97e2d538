"""What each row's jobs have in common: the tensors that are differentiated, their baselines, their noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.errors import BadRequest
from onnxplain.request import baselines
from onnxplain.request.inputs import Row
from onnxplain.request.work import Work
from onnxplain.rows import Job, Purpose, Round, Rows, Target

Array = NDArray[Any]
HERE = Rows.table([1.0])
"""One row: the input itself."""


@dataclass(frozen=True)
class Subject:
    """One input row, ready to be asked about."""

    tensors: Mapping[str, Array]
    """The differentiated tensors' values: inputs, or what an embedding made of integer ones."""
    inputs: Row
    baselines: Mapping[str, Any]
    """Per differentiated tensor (1, ...)."""
    seed: int

    def job(self, round_: Round, target: Target) -> Job:
        return Job(
            round=round_,
            inputs={**self.tensors, **self.inputs},
            baselines=self.baselines,
            target=target,
            seed=self.seed,
            scale={name: _spread(value) for name, value in self.tensors.items()},
        )

    @property
    def constant(self) -> list[str]:
        """Tensors that noise, a fraction of their max - min, leaves as they are."""
        return [name for name, value in self.tensors.items() if _spread(value) == 0.0]


def subjects(manifest: Manifest, rows: Sequence[Row], baseline: Any, seed: int, work: Work) -> list[Subject]:
    """Integer inputs are embedded by a forward run once; so are baselines that are arrays of integers.

    ``baseline``: the option, None for methods without one. Raises BadRequest where it does not fit.
    """
    baseline = "zero" if baseline is None else baseline
    baselines.check_names(baseline, [manifest.stands_for[spec.name] for spec in manifest.differentiated])
    tensors = tensors_of(manifest, rows, work)
    bases = _baselines(manifest, rows, tensors, baseline, work)
    return [
        Subject(own, row, {name: value[None] for name, value in base.items()}, _row_seed(seed, k))
        for k, (own, row, base) in enumerate(zip(tensors, rows, bases, strict=True))
    ]


def tensors_of(manifest: Manifest, rows: Sequence[Row], work: Work) -> list[dict[str, Array]]:
    """Per row the value of every differentiated tensor."""
    specs = manifest.differentiated
    inner = tuple(spec.name for spec in specs if manifest.stands_for[spec.name] != spec.name)
    embedded: list[Mapping[str, Array]] = [{} for _ in rows]
    if inner:
        jobs = [forward(manifest, inner, row) for row in rows]
        embedded = [{name: outcome.taps[name][0] for name in inner} for outcome in work.run(jobs)]
    return [
        {spec.name: made[spec.name] if spec.name in made else row[spec.name] for spec in specs}
        for made, row in zip(embedded, rows, strict=True)
    ]


def forward(manifest: Manifest, tensors: tuple[str, ...], row: Row) -> Job:
    """A forward run of the original inputs that gives inner tensors or outputs back."""
    # The engine puts those of the differentiated tensors that it is given on a path; here they are at its end.
    ends: dict[str, Any] = {
        spec.name: np.zeros_like(row[spec.name])[None] for spec in manifest.differentiated if spec.name in row
    }
    return Job(Round(Purpose(manifest.default_output, taps=tensors), HERE), row, ends, Target((0,)))


def _baselines(
    manifest: Manifest, rows: Sequence[Row], tensors: Sequence[Mapping[str, Array]], baseline: Any, work: Work
) -> list[dict[str, Any]]:
    """Per row and differentiated tensor. Arrays replace the inputs, and what they are embedded to is the baseline."""
    n, replaced = len(rows), [dict(row) for row in rows]
    given: list[TensorSpec] = []
    for spec in manifest.differentiated:
        name = manifest.stands_for[spec.name]
        own = baselines.of_input(baseline, name)
        if not baselines.is_array(own):
            continue
        given.append(spec)
        for k, row in enumerate(rows):
            array = baselines.row_of(own, name, row[name].shape, k, n)
            replaced[k][name] = array.astype(row[name].dtype)
            if row[name].dtype.kind != "f" and not np.array_equal(replaced[k][name], array):
                raise BadRequest(f"baseline of {name!r} must be {row[name].dtype}, as the input itself")
    made = tensors_of(manifest, replaced, work) if given else [{} for _ in rows]
    return [
        {
            spec.name: made[k][spec.name]
            if spec in given
            else baselines.filled(
                baselines.of_input(baseline, manifest.stands_for[spec.name]),
                manifest,
                _row_spec(spec, own[spec.name]),
                own[spec.name],
            )
            for spec in manifest.differentiated
        }
        for k, own in enumerate(tensors)
    ]


def _row_spec(spec: TensorSpec, value: Array) -> TensorSpec:
    return TensorSpec(spec.name, spec.dtype, value.shape)


def row_specs(manifest: Manifest, subject: Subject) -> tuple[TensorSpec, ...]:
    """The differentiated tensors, each with the concrete shape of one row."""
    return tuple(_row_spec(spec, subject.tensors[spec.name]) for spec in manifest.differentiated)


def _spread(value: Array) -> float:
    """max - min of what is finite; what is not was let in on purpose (``check_finite=False``)."""
    finite = value[np.isfinite(value)]
    return float(np.max(finite)) - float(np.min(finite)) if finite.size else 0.0


def _row_seed(seed: int, row: int) -> int:
    """Noise of its own for every row: one round of splitmix64 over (seed, row)."""
    mixed = (seed + (row + 1) * 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return mixed ^ (mixed >> 31)
