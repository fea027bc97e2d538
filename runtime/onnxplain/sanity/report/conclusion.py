"""What an audit comes to, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from onnxplain.sanity.audit import Audit
from onnxplain.sanity.bootstrap import Interval
from onnxplain.sanity.finding import Finding
from onnxplain.sanity.verdict import INSENSITIVE, SENSITIVE, UNDECIDED

_MEANS = {
    SENSITIVE: "Its maps change when the model's parameters do: they are about this model.",
    INSENSITIVE: "Its maps stay much the same when the model's parameters are replaced by random ones:"
    " do not read them as evidence of what this model has learned.",
}
_OPEN = "This audit cannot tell whether its maps are about this model."


def conclusion(audit: Audit) -> list[tuple[Finding, str]]:
    """Per method, in the order asked for: there is no ranking."""
    return [(finding, " ".join(_sentences(finding, audit))) for finding in audit.findings]


def _sentences(finding: Finding, audit: Audit) -> Iterator[str]:
    verdict = finding.verdict
    if verdict is None:
        yield f"{_OPEN} Maps of this shape do not have the measure {audit.options.judge}."
        return
    yield _MEANS.get(verdict.verdict, _OPEN)
    yield f"{verdict.reason[:1].upper()}{verdict.reason[1:]}."
    if verdict.verdict != UNDECIDED and verdict.half is not None and audit.options.order in ("top_down", "bottom_up"):
        end = "output" if audit.options.order == "top_down" else "input"
        yield (
            f"Half or less is left once {verdict.half} of {len(audit.levels)} blocks are random,"
            f" counted from the {end}: {audit.levels[verdict.half - 1].name}."
        )


def entropies(audit: Audit) -> list[tuple[str, Interval, Interval]]:
    """Per level the entropy of the randomised models' probabilities and the share of images that keep their class."""
    if audit.trained is None:
        return []
    boot = audit.bootstrap
    return [
        (level.name, boot.interval(audit.entropy[k]), boot.interval(audit.agreement[k]))
        for k, level in enumerate(audit.levels)
    ]
