"""``onnxplain serve``: a folder of models over gRPC until SIGTERM."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import click

from onnxplain.cli.group import Command


@click.command(
    cls=Command,
    short_help="Serve a folder of models over gRPC.",
    examples=(
        ("onnxplain serve models/", "on this machine only, port 8001"),
        ("onnxplain serve models/ --host 0.0.0.0 --port 9000 --provider cuda", "for others too, on the GPU"),
        ("grpcurl -plaintext localhost:8001 list", "what it offers (reflection is on)"),
    ),
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is every interface of the machine.")
@click.option("--port", default=8001, type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@click.option(
    "--provider", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="Device that runs the models."
)
@click.option(
    "--strict", is_flag=True, help="End with an error where one model is broken, instead of serving the others."
)
@click.option(
    "--max-rows", type=click.IntRange(min=1), help="Most evaluations one request may ask for.  [default: 100000]"
)
@click.option(
    "--max-message-mb", type=click.IntRange(1, 2047), help="Largest request or response in MiB.  [default: 64]"
)
@click.option(
    "--grace", type=click.FloatRange(min=0), help="Seconds that accepted requests get after SIGTERM.  [default: 30]"
)
def serve(
    folder: Path,
    host: str,
    port: int,
    provider: str,
    strict: bool,
    max_rows: int | None,
    max_message_mb: int | None,
    grace: float | None,
) -> None:
    """Serve every .onnx file of a folder over gRPC, each under its file's name.

    Plain ONNX files are converted on the way in. Health (grpc.health.v1) turns SERVING when every model is warm;
    SIGTERM or Ctrl-C finishes the accepted requests first. There is no encryption and no login: put a proxy before it
    where others can reach it.
    """
    from onnxplain.serve.limits import MIB, Limits
    from onnxplain.serve.server import serve as run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    usual = Limits()
    limits = replace(
        usual,
        rows=max_rows or usual.rows,
        message_bytes=max_message_mb * MIB if max_message_mb else usual.message_bytes,
        grace_seconds=usual.grace_seconds if grace is None else grace,
    )
    run(folder, host=host, port=port, provider=provider, limits=limits, strict=strict)
