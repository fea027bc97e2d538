"""``onnxplain explain``: one input in, numbers on the screen, overlay and raw result as files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from PIL import Image

from onnxplain.artifact import Manifest
from onnxplain.cli import console, saved, target
from onnxplain.cli.group import Command
from onnxplain.cli.method_options import describe, method_options, named, taken
from onnxplain.cli.pictures import Flags, picture_flags
from onnxplain.cli.reading import Given, read_input
from onnxplain.errors import BadRequest
from onnxplain.overlay import SIGNS, Look, check_writable, draw

if TYPE_CHECKING:  # the engine is loaded when there is something to explain, not for the help
    from onnxplain.explain import Explanation


def _help_method(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None and not context.resilient_parsing:
        describe(named(value), console.out())
        context.exit()


@click.command(
    cls=Command,
    short_help="Which parts of an input made a model say what it said?",
    examples=(
        (
            "onnxplain explain net.onnx cat.jpg -o cat.png",
            "why did it say what it said? The gradient",
        ),
        ("onnxplain explain net.onnx cat.jpg --method smoothgrad --target 281 -o cat.png --save cat.npz", ""),
        (
            "onnxplain explain net.onnx cat.jpg --method integrated_gradients --baseline black -o cat.png",
            "",
        ),
        (
            "onnxplain explain net.onnx cat.jpg --target 281,282 -o cat.png",
            "what speaks for 281 and not for 282?",
        ),
        ("onnxplain explain net.onnx inputs.npy --save maps.npz", "any input as an array with its batch axis"),
        ("onnxplain explain --help-method integrated_gradients", "one method's options"),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-m", "--method", default="gradient", help="How to explain: `onnxplain methods` lists them.")
@click.option(
    "-t", "--target", "wanted", default="top", help="Class number or name, top, or a pair: 281,282 is their difference."
)
@click.option("--output", help="Which output to explain.  [default: the logits]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Overlay to write (.png keeps how it was made).")
@click.option("--save", type=click.Path(path_type=Path), help="Raw signed result to write, .npz.")
@click.option(
    "--provider", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="Device that runs the model."
)
@click.option("--sign", type=click.Choice(SIGNS), help="What the overlay shows of a signed map.  [default: by method]")
@click.option("--percentile", default=Look.percentile, help="Magnitudes from this percentile up get the full colour.")
@click.option("--opacity", default=Look.opacity, help="Of the strongest colour over the picture, 0 to 1.")
@click.option(
    "--help-method", metavar="METHOD", callback=_help_method, is_eager=True, expose_value=False,
    help="Show one method's options and exit.",
)  # fmt: skip
@picture_flags
@method_options
def explain(
    model: Path,
    source: Path,
    method: str,
    wanted: str,
    output: str | None,
    out: Path | None,
    save: Path | None,
    provider: str,
    sign: str | None,
    percentile: float,
    opacity: float,
    **options: Any,
) -> None:
    """Explain what a model says about one input: which parts of it made it say so.

    MODEL is an .onnx file (a plain one is converted on the way in and kept in the user's cache folder). INPUT is a
    picture, or the model's input as .npy or .npz with its batch axis. Maps are raw and signed; what the overlay does
    to them for the eye is printed and kept in its file.
    """
    import onnxplain

    if out is not None:
        check_writable(out)
    if save is not None and not save.parent.is_dir():
        raise BadRequest(f"{save}: there is no folder {save.parent}")
    chosen, look = named(method), Look(sign, percentile, opacity)
    flags, asked = Flags.take(options), taken(options)
    with console.working(f"loading {model}"):
        loaded = onnxplain.load(model, provider=provider)
    with loaded:
        given, warnings = read_input(source, loaded.manifest, flags)
        for text in warnings:
            console.warn(text)
        start = time.perf_counter()
        with console.bar("explaining", "rows") as progress:
            task = progress.add_task("")
            result = loaded.explain(
                given.arrays,
                chosen.name,
                target.parse(wanted),
                output=output,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
                **asked,
            )
        seconds = time.perf_counter() - start
        _report(result, loaded.manifest, seconds)
        if save is not None:
            saved.write(save, result)
            console.out().print(f"saved      {save}", soft_wrap=True)
        if out is not None:
            _draw(result, given, out, look)
    if save is None and out is None:
        console.out().print("nothing written: -o overlay.png draws it, --save result.npz keeps the numbers")


def _report(result: Explanation, manifest: Manifest, seconds: float) -> None:
    rows = []
    for index in range(len(result.scores)):
        baseline = "–" if result.baseline_scores is None else f"{result.baseline_scores[index]:.4g}"
        gap = "–" if result.convergence_delta is None else f"{result.convergence_delta[index]:+.3g}"
        errors = [] if result.error is None else [float(values[index]) for values in result.error.values()]
        known = [value for value in errors if np.isfinite(value)]
        error = f"{max(known):.1%}" if known else "–"
        rows.append(
            (index, target.name(result.targets[index], manifest), f"{result.scores[index]:.4g}", baseline, gap, error)
        )
    to = console.out()
    numbers = ("row", "score", "baseline", "gap", "map error")
    to.print(console.table(("row", "target", *numbers[1:]), rows, right=numbers))
    to.print(
        f"{result.method} of {result.output}: {result.n_rows} evaluations on {result.provider} in {seconds:.2f} s",
        soft_wrap=True,
    )
    for text in result.warnings:
        console.warn(text)


def _draw(result: Explanation, given: Given, out: Path, look: Look) -> None:
    """One overlay per row of the input: ``cat.png``, or ``cat-0.png``, ``cat-1.png`` where there are several."""
    name, maps = next(iter(result.attributions.items()))
    if len(result.attributions) > 1:
        console.warn(f"drawn is {name}; --save keeps {', '.join(result.attributions)}")
    for index, values in enumerate(maps):
        path = out if len(maps) == 1 else out.with_name(f"{out.stem}-{index}{out.suffix}")
        if given.seen is not None:
            region, layout = given.seen.region, given.seen.layout
        else:
            region, layout = _from_array(given, name, index)
        drawn = draw(values, region, layout=layout, method=result.method, look=look)
        drawn.save(path, saved.record(result))
        to = console.out()
        to.print(f"drawn      {path}", soft_wrap=True)
        if index == 0:
            for step in drawn.steps:
                to.print(f"           {step}", soft_wrap=True)


def _from_array(given: Given, name: str, index: int) -> tuple[Image.Image, str]:
    """The input itself as a picture, its smallest value black and its largest white, and where its channels are."""
    row = np.asarray(given.arrays[name][index], np.float64)
    if row.ndim != 3 or (row.shape[0] not in (1, 3) and row.shape[2] not in (1, 3)):
        raise BadRequest(f"{name} has rows of shape {list(row.shape)}, no picture to draw on: use --save instead of -o")
    layout = "NCHW" if row.shape[0] in (1, 3) else "NHWC"
    pixels = row.transpose(1, 2, 0) if layout == "NCHW" else row
    low, high = float(pixels.min()), float(pixels.max())
    grey = ((pixels - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    return Image.fromarray(np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey), layout
