"""The demo's folder: the drawings as files, and one HTML page that holds everything it shows."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont, ImageOps

from onnxplain.cli.demo.explained import Answer
from onnxplain.cli.demo.subjects import Subject
from onnxplain.overlay import HEAT, RED_BLUE

SIDE = 448
"""Shorter side of the pictures in the page, in pixels: sharp on a phone, and the page stays below a few MB."""


def save_drawings(folder: Path, answers: Sequence[Answer]) -> list[Path]:
    """Write every overlay and, beside them, what the network saw; each PNG carries its record."""
    written = []
    for answer in answers:
        seen = folder / f"{answer.photograph.name}.png"
        _enlarged(answer.seen.region).save(seen)
        written.append(seen)
        for panel in answer.panels:
            path = folder / f"{answer.photograph.name}.{panel.method}.png"
            record = {"method": panel.method, "options": dict(panel.options), "answer": answer.label}
            panel.drawn.save(path, record)
            written.append(path)
    return written


def save_strip(path: Path, answers: Sequence[Answer]) -> None:
    """One picture of it all: a row per photograph, what the network saw and every method, captions on top."""
    columns = [("what it saw", [answer.seen.region for answer in answers])]
    for place, panel in enumerate(answers[0].panels):
        columns.append((panel.method, [answer.panels[place].drawn.image for answer in answers]))
    side, gap, top = 240, 8, 26
    sheet = Image.new("RGB", (len(columns) * (side + gap) - gap, top + len(answers) * (side + gap) - gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for across, (caption, images) in enumerate(columns):
        left = across * (side + gap)
        pen.text((left, 2), caption, "black", font)
        for down, image in enumerate(images):
            sheet.paste(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS), (left, top + down * (side + gap)))
    sheet.save(path)


def write(
    path: Path, subject: Subject, answers: Sequence[Answer], facts: Iterable[tuple[str, str]], commands: Sequence[str]
) -> None:
    """Write the page: no other file, no script and no network needed to read it."""
    environment = Environment(
        loader=PackageLoader("onnxplain.cli.demo", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # Names of methods are long words on a phone: let them break after an underscore.
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(name.split("_"))
    height, width = subject.preprocessing.size or (0, 0)
    html = environment.get_template("page.html.j2").render(
        subject=subject,
        answers=[_shown(answer) for answer in answers],
        facts=list(facts),
        commands=commands,
        size=f"{width} x {height}",
        gradients={"diverging": _css(RED_BLUE), "sequential": _css(HEAT)},
    )
    path.write_text(html, encoding="utf-8")


def _shown(answer: Answer) -> dict[str, Any]:
    panels = [
        {
            **_fields(panel),
            "source": _data_uri(panel.drawn.image),
            "alt": f"The {panel.method} map over the picture: what spoke for “{answer.label}” is coloured",
        }
        for panel in answer.panels
    ]
    warnings = dict.fromkeys(f"{panel.method}: {text}" for panel in answer.panels for text in panel.warnings)
    return {
        **_fields(answer),
        "panels": panels,
        "source": _data_uri(_enlarged(answer.seen.region)),
        "warnings": list(warnings),
    }


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _enlarged(image: Image.Image) -> Image.Image:
    grow = SIDE / min(image.size)
    return image.resize((round(image.width * grow), round(image.height * grow)), Image.Resampling.BICUBIC)


def _data_uri(image: Image.Image) -> str:
    """As JPEG, a sixth of a PNG's size; no chroma subsampling, which would take the colour from single pixels."""
    written = io.BytesIO()
    image.save(written, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def _css(table: tuple[tuple[int, int, int], ...]) -> str:
    return f"linear-gradient(to right, {', '.join('rgb' + str(colour) for colour in table)})"
