"""``onnxplain convert``: a model in, the artifact with its gradients out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from onnxplain.artifact import Artifact, Preprocessing
from onnxplain.cli import console
from onnxplain.cli.group import Command
from onnxplain.cli.pictures import Flags, picture_flags
from onnxplain.cli.reading import graph_inputs, is_plain
from onnxplain.errors import BadRequest
from onnxplain.picture import picture_input


def artifact_path(model: Path) -> Path:
    """Where an artifact goes unless told otherwise: ``net.onnx`` becomes ``net.explain.onnx`` beside it."""
    return model.with_name(model.stem + ".explain.onnx")


@click.command(
    cls=Command,
    short_help="Write a model and its gradients into one ONNX file.",
    examples=(
        ("onnxplain convert net.onnx", "writes net.explain.onnx beside it"),
        ("onnxplain convert net.onnx -o out.onnx --rules gradient", "the gradient only: a smaller file"),
        ("onnxplain convert net.onnx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --labels classes.txt", ""),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The artifact. [default: MODEL.explain.onnx]")
@click.option(
    "--rules",
    default="gradient,guided,deconvnet",
    help="Rule sets baked into the file: guided is for guided_backprop, deconvnet for deconvnet.",
)
@click.option("--output", "outputs", multiple=True, help="Explain this output (repeatable).  [default: the logits]")
@click.option("--wrt", multiple=True, help="Differentiate this tensor (repeatable).  [default: every float input]")
@click.option("--labels", type=click.Path(path_type=Path), help="A text file with one class name per line.")
@click.option("--external-data", is_flag=True, help="Weights in a file beside the model; always so above 1 GiB.")
@picture_flags
def convert(
    model: Path,
    out: Path | None,
    rules: str,
    outputs: tuple[str, ...],
    wrt: tuple[str, ...],
    labels: Path | None,
    external_data: bool,
    **options: Any,
) -> None:
    """Write a model and its gradients into one ordinary ONNX file, the artifact.

    Any ONNX Runtime can run the artifact, and `explain` and `serve` start with it at once. It also keeps the class
    names and how a picture becomes the input, so that nobody has to say it again.
    """
    import onnxplain_convert  # loads onnxscript: only when a model is converted

    if not is_plain(model):
        raise BadRequest(f"{model}: already an artifact: convert the model that it was made of")
    target = out or artifact_path(model)
    if not target.parent.is_dir():
        raise BadRequest(f"{target}: there is no folder {target.parent}")
    start = time.perf_counter()
    with console.working(f"converting {model}"):
        artifact = onnxplain_convert.convert(
            model,
            target,
            rules=tuple(name.strip() for name in rules.split(",") if name.strip()),
            outputs=outputs or None,
            wrt=wrt or None,
            preprocessing=_preprocessing(model, Flags.take(options)),
            labels=read_labels(labels) if labels else None,
            external_data=external_data,
        )
    report(artifact, target, time.perf_counter() - start)


def read_labels(path: Path) -> tuple[str, ...]:
    """One class name per line, as UTF-8. Raises BadRequest where it cannot be read."""
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path}: not a readable text file of class names ({error})") from error


def report(artifact: Artifact, path: Path, seconds: float) -> None:
    """What came out, in a few lines."""
    manifest = artifact.manifest
    size = sum(file.stat().st_size for file in (path, path.with_name(path.name + ".data")) if file.exists())
    inputs = ", ".join(spec.name for spec in manifest.differentiated)
    rows = [
        ("written", f"{path}  ({size / 1e6:.1f} MB, {seconds:.1f} s)"),
        ("explains", f"{manifest.default_output}, with respect to {inputs}"),
        ("rules", ", ".join(manifest.rules)),
        ("layers", len(manifest.layers)),
        ("rows", manifest.rows),
        ("parity", ", ".join(f"{name} {value:.2g}" for name, value in manifest.parity.items()) or "not measured"),
    ]
    console.out().print(console.facts(rows))


def _preprocessing(model: Path, flags: Flags) -> Preprocessing | None:
    """From the flags alone: what nobody said is not written into the file as if it were known."""
    if not flags.given:
        return None
    spec = picture_input(graph_inputs(model))
    how, warning = flags.preprocessing(spec, None)
    if warning:
        console.warn(warning)
    return how
