"""What a reader of an explanation must be warned of: true of the maps, and not to be seen in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from onnxplain.artifact import Manifest
from onnxplain.request.answers import Answer
from onnxplain.request.options import Chosen
from onnxplain.request.work import Work

GATED = frozenset({"guided", "deconvnet"})
SHOWN = 5
"""Names or rows that a warning lists."""


def caveats(manifest: Manifest, chosen: Chosen, answers: Sequence[Answer], work: Work) -> Iterator[str]:
    """Sentences; rows are counted from 0."""
    yield from _of_the_model(manifest, chosen, len(answers))
    for text in dict.fromkeys(text for each in answers for text in each.reduced.warnings):
        rows = [k for k, each in enumerate(answers) if text in each.reduced.warnings]
        yield text if len(rows) == len(answers) else f"{text}, row {_listed(rows)}"
    if work.nonfinite:
        yield f"{work.nonfinite} of {work.n_rows} rows had gradients that are not finite: taken as zero"
    unknown = [k for k, each in enumerate(answers) if not np.all(np.isfinite(list(each.scores.values())))]
    if unknown:
        yield f"the model's output is not finite, of row {_listed(unknown)}"
    constant = sorted({name for each in answers for name in each.subject.constant})
    if constant and "noise_scale" in chosen.options:
        yield f"constant in a row, so that noise as a fraction of max - min is none there: {_listed(constant)}"
    zero = [k for k, each in enumerate(answers) if not any(map(np.any, each.reduced.attributions.values()))]
    if zero:
        yield f"the map is zero everywhere, of row {_listed(zero)}"
    stopped = [k for k, each in enumerate(answers) if not each.reduced.converged]
    if stopped:
        cap = chosen.options["max_rows"]
        yield f"stopped by max_rows={cap} before the tolerance was reached, row {_listed(stopped)}"


def _of_the_model(manifest: Manifest, chosen: Chosen, n: int) -> Iterator[str]:
    rules = {each for method in (chosen.method, chosen.base) if method is not None for each in method.rules}
    if rules & GATED and not manifest.gates:
        yield "the model has no activations that this method treats in its own way: this is the plain gradient"
    if manifest.rows == "coupled" and n > 1:
        yield "the rows of this model influence each other: every row was explained as if it came alone"
    if manifest.zero_gradient:
        yield f"piecewise constant, so that no gradient passes: {_listed(manifest.zero_gradient)}"
    if manifest.unreachable:
        names = [manifest.stands_for.get(each, each) for each in manifest.unreachable]
        yield f"cannot influence the output, so that its map is zero: {_listed(names)}"


def _listed(names: Iterable[object]) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more
