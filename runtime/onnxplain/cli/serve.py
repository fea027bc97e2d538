"""``onnxplain serve``: a folder of models over gRPC until SIGTERM."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from onnxplain.cli.group import Command
from onnxplain.serve.limits import MIB, Limits

USUAL = Limits()


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
    "--max-rows", default=USUAL.rows, type=click.IntRange(min=1), help="Most evaluations that one request may ask for."
)
@click.option(
    "--max-message-mib",
    default=USUAL.message_bytes // MIB,
    type=click.IntRange(1, 2047),
    help="Largest request or response.",
)
@click.option(
    "--max-concurrent", default=USUAL.concurrent, type=click.IntRange(min=1), help="Explanations at work at a time."
)
@click.option(
    "--grace",
    default=USUAL.grace_seconds,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="What accepted requests get after SIGTERM.",
)
@click.option(
    "--lame-duck",
    default=USUAL.lame_duck_seconds,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Between health saying NOT_SERVING and the port closing, for a load balancer to notice.",
)
def serve(
    folder: Path,
    host: str,
    port: int,
    provider: str,
    strict: bool,
    max_rows: int,
    max_message_mib: int,
    max_concurrent: int,
    grace: float,
    lame_duck: float,
) -> None:
    """Serve every .onnx file of a folder over gRPC, each under its file's name.

    Plain ONNX files are converted on the way in. Health (grpc.health.v1) turns SERVING when every model is warm;
    SIGTERM or Ctrl-C finishes the accepted requests first. There is no encryption and no login: put a proxy before it
    where others can reach it.
    """
    # gRPC's core would write lines of its own beside the one error that says what to do.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from onnxplain.serve.server import serve as run

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("onnxplain").setLevel(logging.INFO)
    limits = Limits(
        message_bytes=max_message_mib * MIB,
        rows=max_rows,
        concurrent=max_concurrent,
        grace_seconds=grace,
        lame_duck_seconds=lame_duck,
    )
    run(folder, host=host, port=port, provider=provider, limits=limits, strict=strict)
