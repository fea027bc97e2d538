"""The audit: images x methods x levels x draws, beside their controls. ``audit`` reads as the table of contents.

Model parameter randomisation (Adebayo et al. 2018, arXiv:1810.03292, section 4) with what its critics asked for:
several draws, intervals over draws and images, nulls, an explicit class policy, what the randomised model says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxplain.artifact import Artifact
from onnxplain.engine import Scheduler
from onnxplain.errors import BadRequest
from onnxplain.sanity.bench import Bench, Progress
from onnxplain.sanity.bootstrap import Bootstrap
from onnxplain.sanity.finding import Finding
from onnxplain.sanity.levels import Level, grouped, levels
from onnxplain.sanity.maps import Array, Said
from onnxplain.sanity.options import Options
from onnxplain.sanity.parameters import parameters
from onnxplain.sanity.randomise import Randomiser
from onnxplain.sanity.specimens import Specimen
from onnxplain.sanity.verdict import Verdict, judge


@dataclass(frozen=True, eq=False)
class Audit:
    """All of an audit's numbers."""

    options: Options
    digest: str
    """Of the model."""
    provider: str
    output: str
    specimens: tuple[Specimen, ...]
    levels: tuple[Level, ...]
    findings: tuple[Finding, ...]
    trained: Said | None
    """What the trained model says; None where its output is not one score per class."""
    entropy: Array
    """(levels, draws, images) of the randomised models' probabilities, in nats; nan where there are none."""
    agreement: Array
    """(levels, draws, images) 1 where the randomised model's top class is the trained one's, else 0."""
    left_out: dict[str, str]
    """Method, or measure of a method -> why it is not there."""
    notes: tuple[str, ...]
    """Options that do not apply to this model, and parameters that stay as they are."""
    bootstrap: Bootstrap


def audit(
    artifact: Artifact,
    specimens: Sequence[Specimen],
    options: Options | None = None,
    *,
    provider: str = "auto",
    progress: Progress | None = None,
) -> Audit:
    """Randomise a model's parameters level by level and see which explanations follow.

    Raises BadRequest without an image, BadModel without a parameter, and what ``Model.explain`` raises where no method
    can explain the model.
    """
    options = options or Options()
    if not specimens:
        raise BadRequest("no image to audit with")
    found = grouped(parameters(artifact, options.output), options.blocks)
    steps = levels(found.blocks, options.order)
    everything = {parameter.name for parameter in found}
    randomiser = Randomiser(artifact, found, options.policy, options.seed)
    grid = (len(steps), options.draws, len(specimens))
    entropy, agreement = np.full(grid, np.nan), np.full(grid, np.nan)
    with contextlib.closing(Scheduler()) as scheduler:
        bench = Bench(artifact, provider, scheduler, specimens, options, len(steps), progress)
        trained = bench.trained()
        for k, level in enumerate(steps):
            for draw in range(options.draws):
                weights = randomiser.weights(level.names, draw)
                words = bench.randomised(k, draw, weights, whole=everything <= set(level.names))
                if words is not None and trained is not None:
                    entropy[k, draw], agreement[k, draw] = words.entropy, words.top == trained.top
    bootstrap = Bootstrap(options.draws, len(specimens), options.resamples, options.seed)
    for finding in bench.findings:
        finding.verdict = _verdict(finding, options, bootstrap)
    return Audit(
        options=options,
        digest=artifact.manifest.digest,
        provider=bench.provider,
        output=options.output or artifact.manifest.default_output,
        specimens=tuple(specimens),
        levels=steps,
        findings=tuple(bench.findings),
        trained=trained,
        entropy=entropy,
        agreement=agreement,
        left_out=bench.left_out,
        notes=randomiser.notes,
        bootstrap=bootstrap,
    )


def _verdict(finding: Finding, options: Options, bootstrap: Bootstrap) -> Verdict | None:
    """None where maps of this shape do not have the measure that judges."""
    if options.judge not in finding.curves:
        return None
    curve, null = finding.curves[options.judge], finding.controls[finding.null][options.judge]
    return judge(curve, finding.null, null, bootstrap, limit=options.limit, ceiling=options.ceiling)
