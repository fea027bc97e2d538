"""The report: one HTML file that opens without a network, the paper's figures first."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from onnxplain.errors import BadRequest
from onnxplain.sanity.audit import Audit
from onnxplain.sanity.controls import WORDS
from onnxplain.sanity.record import record
from onnxplain.sanity.report.charts import panels
from onnxplain.sanity.report.conclusion import conclusion, entropies
from onnxplain.sanity.report.numbers import csv_address, number, rows
from onnxplain.sanity.report.pictures import sheets
from onnxplain.sanity.verdict import percent


def write(audit: Audit, path: Path, title: str) -> None:
    """Raises BadRequest where it cannot be written."""
    kept = record(audit)
    environment = Environment(
        loader=PackageLoader("onnxplain.sanity.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "percent": percent}
    numbers = rows(audit)
    page = environment.get_template("page.html.j2").render(
        title=title,
        audit=audit,
        conclusion=conclusion(audit),
        sheets=sheets(audit),
        panels=panels(audit),
        entropies=entropies(audit),
        rows=[row for row in numbers if row.measure == audit.options.judge],
        csv=csv_address(numbers),
        words=WORDS,
        facts=_facts(audit, kept["versions"]),
        options=json.dumps(kept["options"], indent=1),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{path}: cannot be written ({error.strerror or error})") from error


def _facts(audit: Audit, versions: dict[str, str]) -> list[tuple[str, str]]:
    names = ", ".join(each.name for each in audit.specimens)
    return [
        ("model (SHA-256 of weights and graph)", audit.digest),
        ("output", audit.output),
        ("device", audit.provider),
        ("images", f"{len(audit.specimens)}: {names}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
