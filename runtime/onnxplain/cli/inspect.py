"""``onnxplain inspect``: what is in a model and whether it can be explained, before anything is converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from onnxplain.artifact import Artifact, Manifest, TensorSpec
from onnxplain.cli import console
from onnxplain.cli.group import Command
from onnxplain.cli.reading import is_plain
from onnxplain.conversion import opened
from onnxplain.picture import describe

if TYPE_CHECKING:
    from onnxplain_convert import Coverage


@click.command(
    cls=Command,
    short_help="What is in a model, and can it be explained?",
    examples=(
        ("onnxplain inspect net.onnx", "can it be explained? By which operators it stands or falls"),
        ("onnxplain inspect net.onnx --layers", "every layer by the name that --layer takes"),
        ("onnxplain inspect net.explain.onnx", "what an artifact explains, and how well it was checked"),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--layers", is_flag=True, help="List every layer in execution order.")
def inspect(model: Path, layers: bool) -> None:
    """Show what is in a model: inputs, operators and which have a rule, layers, and what will be explained.

    A plain ONNX file is first read: every operator with the number of its nodes, and whether it has a rule. Then it is
    converted into the user's cache folder, where `explain` finds it, to tell the layers and whether the rows of a batch
    are independent. Where that cannot be done the last line says which nodes are in the way, and the exit status is 2.
    """
    to = console.out()
    if not is_plain(model):
        show(Artifact.open(model).manifest, to, layers)
        return
    from onnxplain_convert import coverage  # loads onnxscript: artifacts do without

    with console.working("reading the operators"):
        report = coverage(model)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in report.source_opset.items())
    to.print(console.facts([("file", f"{model}, a plain ONNX file"), ("opset", opsets)]))
    to.print()
    to.print(_operators(report))
    to.print(_verdict(report), soft_wrap=True)
    with console.working("converting"):
        artifact = opened(model)
    to.print()
    show(artifact.manifest, to, layers)


def _operators(report: Coverage) -> Table:
    columns = ("operator", "nodes", "gradient", "for example")
    rows = [
        (
            f"{each.domain}::{each.name}" if each.domain else each.name,
            each.count,
            {"rule": "yes", "no gradient": "zero on purpose", "missing": "MISSING"}[each.state],
            each.nodes[0],
        )
        for each in report.operators
    ]
    return console.table(columns, rows, right=("nodes",))


def _verdict(report: Coverage) -> str:
    nodes = sum(each.count for each in report.operators)
    if not report.missing:
        return f"\nAll {nodes} nodes on floating-point values have a derivative."
    names = ", ".join(each.name for each in report.missing)
    count = sum(each.count for each in report.missing)
    return (
        f"\n{count} of {nodes} nodes have no rule ({names}): the model can be explained only where none of them lies"
        " between an input and the explained output."
    )


def show(manifest: Manifest, to: Console, layers: bool) -> None:
    """What is explained and how: the same for an artifact and for a plain file that can become one."""
    outputs = [
        _tensor(spec) + (" (explained by default)" * (spec.name == manifest.default_output))
        for spec in manifest.outputs
    ]
    with_respect_to = [
        spec.name
        if manifest.stands_for.get(spec.name, spec.name) == spec.name
        else f"{spec.name} for {manifest.stands_for[spec.name]}"
        for spec in manifest.differentiated
    ]
    parity = ", ".join(f"{name} {value:.2g}" for name, value in manifest.parity.items())
    rows = [
        ("inputs", ", ".join(map(_tensor, manifest.inputs))),
        ("outputs", ", ".join(outputs)),
        ("with respect to", ", ".join(with_respect_to)),
        ("rule sets", ", ".join(manifest.rules)),
        ("rows", _rows(manifest.rows)),
        ("network", f"has kinks ({', '.join(manifest.kinks)})" if manifest.kinks else "smooth"),
        ("zero gradient", ", ".join(manifest.zero_gradient) or "nowhere"),
        (
            "picture",
            describe(manifest.preprocessing) if manifest.preprocessing else "how it becomes the input is not said",
        ),
        ("classes", _labels(manifest.labels)),
        ("parity", parity or "not measured"),
        ("digest", manifest.digest),
    ]
    to.print(console.facts(rows))
    to.print()
    if layers:
        columns = ("layer", "operator", "shape", "tensor", "weights")
        cells = ((x.name, x.op, _shape(x.shape), x.tensor, ", ".join(x.initializers)) for x in manifest.layers)
        to.print(console.table(columns, cells))
    else:
        most = ", ".join(f"{count} {op}" for op, count in Counter(x.op for x in manifest.layers).most_common(6))
        to.print(f"{len(manifest.layers)} layers ({most}, ...): --layers lists them", soft_wrap=True)


def _rows(rows: str) -> str:
    said = {"independent": "independent of each other", "coupled": "coupled: a row's result depends on its neighbours"}
    return said.get(rows, f"{rows}: the file fixes how many rows go in")


def _labels(labels: Sequence[str] | None) -> str:
    if not labels:
        return "without names"
    return f"{len(labels)}: {', '.join(labels[:4])}{', ...' if len(labels) > 4 else ''}"


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} {_shape(spec.shape)}"


def _shape(shape: Sequence[int | str | None] | None) -> str:
    return "?" if shape is None else " x ".join("?" if dim is None else str(dim) for dim in shape) or "scalar"
