"""Does a job fit its program? Checked before anything runs, so that a wrong job cannot fail its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxplain.artifact import Dim
from onnxplain.engine.program import Program
from onnxplain.engine.session import Array
from onnxplain.errors import BadRequest
from onnxplain.rows import Job, Rows, Target

LARGEST_WEIGHT = 1e6
"""Of a row: the sums' room for overflow is planned for less."""


def check_rows(rows: Rows) -> None:
    """Raises BadRequest for a table that the moments part would sum wrongly."""
    columns = (rows.alpha, rows.weight, rows.sample, rows.noise, rows.baseline, rows.check)
    if len(rows) == 0 or any(len(c) != len(rows) for c in columns):
        raise BadRequest(f"a round needs at least one row and columns of one length, got {[len(c) for c in columns]}")
    if np.any(np.diff(rows.sample) < 0):
        raise BadRequest("rows of one sample must stand together: sample numbers must ascend")
    for name, column in (("alpha", rows.alpha), ("weight", rows.weight), ("noise", rows.noise), ("check", rows.check)):
        if not np.all(np.isfinite(column)) or np.max(np.abs(column)) > LARGEST_WEIGHT:
            raise BadRequest(f"{name} of every row must be finite and at most {LARGEST_WEIGHT:g}")


def check_target(target: Target, size: int | None) -> None:
    """Raises BadRequest where a position is not one of the ``size`` of the output (None: not known yet)."""
    if not target.index or len(target.index) != len(target.weight):
        raise BadRequest(f"a target needs a weight per position, got {len(target.weight)} for {len(target.index)}")
    if not np.all(np.isfinite(target.weight)):
        raise BadRequest("target weights must be finite")
    smallest, largest = min(target.index), max(target.index)
    if smallest < -1 or (size is not None and largest >= size):
        wrong = smallest if smallest < -1 else largest
        raise BadRequest(f"target position {wrong} is out of range: the output has positions 0 to {(size or 0) - 1}")


def check_job(program: Program, job: Job) -> None:
    """Raises BadRequest where inputs, baselines or target do not fit the program."""
    for tensor in program.path:
        value = _given(job, tensor.name, "a value on the path")
        _fits(tensor.name, value, tensor.dtype.numpy(), tensor.shape)
        bases = job.baselines.get(tensor.name)
        if bases is None:
            raise BadRequest(f"no baseline for {tensor.name!r}")
        _fits(f"baseline of {tensor.name}", bases, tensor.dtype.numpy(), (None, *value.shape))
        used = job.round.rows.baseline
        if int(np.min(used)) < 0 or int(np.max(used)) >= len(bases):
            raise BadRequest(
                f"rows name baselines {np.min(used)} to {np.max(used)} of {tensor.name!r}, there are {len(bases)}"
            )
        if not np.isfinite(job.scale.get(tensor.name, 0.0)):
            raise BadRequest(f"the noise scale of {tensor.name!r} is not finite")
    for held in program.held:
        _fits(held.name, _given(job, held.name, "an input of the model"), held.dtype.numpy(), held.shape)
    check_target(job.target, program.output.size)


def _given(job: Job, name: str, what: str) -> Array:
    if name not in job.inputs:
        raise BadRequest(f"{name!r}, {what}, is missing; given: {', '.join(job.inputs) or 'nothing'}")
    return job.inputs[name]


def _fits(name: str, value: Array, dtype: np.dtype[np.generic], shape: Sequence[Dim]) -> None:
    same_rank = value.ndim == len(shape)
    if (
        value.dtype != dtype
        or not same_rank
        or any(isinstance(d, int) and d != n for d, n in zip(shape, value.shape, strict=True))
    ):
        raise BadRequest(f"{name} must be {dtype} {tuple(shape)} for one row, got {value.dtype} {value.shape}")
