"""The command line: one file per command, each imported when it is first asked for."""

from __future__ import annotations

import click

from onnxplain.cli.group import Group

COMMANDS = {
    "convert": "onnxplain.cli.convert:convert",
    "inspect": "onnxplain.cli.inspect:inspect",
    "explain": "onnxplain.cli.explain:explain",
    "methods": "onnxplain.cli.methods:methods",
    "audit": "onnxplain.cli.audit:audit",
    "serve": "onnxplain.cli.serve:serve",
    "bench": "onnxplain.cli.bench:bench",
    "demo": "onnxplain.cli.demo:demo",
}
"""Command -> where it stands, in the order in which a newcomer meets them."""


@click.command(
    cls=Group,
    commands_at=COMMANDS,
    examples=(
        ("onnxplain demo", "everything once, on a model that comes along"),
        ("onnxplain inspect net.onnx", "what is in a model, and can it be explained?"),
        ("onnxplain explain net.onnx cat.jpg --method integrated_gradients -o cat.png", ""),
        ("onnxplain serve models/ --port 8001", "the same over gRPC"),
    ),
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
)
@click.version_option(package_name="onnxplain", message="%(prog)s %(version)s")
def main() -> None:
    """Explain any ONNX model: which parts of an input made it say what it said.

    A plain .onnx file is converted on the way in; `onnxplain convert` keeps the result. Every command explains
    itself: `onnxplain explain --help`.
    """
