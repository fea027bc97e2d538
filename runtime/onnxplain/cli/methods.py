"""``onnxplain methods``: the explicit list, and one method with its options."""

from __future__ import annotations

import click

from onnxplain.cli import console
from onnxplain.cli.group import Command
from onnxplain.cli.method_options import describe, named
from onnxplain.methods import METHODS


@click.command(
    cls=Command,
    short_help="List the methods, or the options of some.",
    examples=(
        ("onnxplain methods", "all of them, one line each"),
        ("onnxplain methods integrated_gradients", "its options with their defaults and the paper"),
    ),
)
@click.argument("names", metavar="[METHOD]...", nargs=-1)
def methods(names: tuple[str, ...]) -> None:
    """List the explanation methods, or show the options of those named."""
    to = console.out()
    if not names:
        to.print(console.table(("method", ""), ((method.name, method.summary) for method in METHODS.values())))
        to.print("\nonnxplain methods NAME shows a method's options.")
    for place, method in enumerate([named(name) for name in names]):
        if place:
            to.print()
        describe(method, to)
