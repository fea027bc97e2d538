"""`python -m onnxplain.serve models/`: the bare server, without the command line's comforts."""

from __future__ import annotations

import argparse
import logging
import sys

from onnxplain.errors import OnnxplainError
from onnxplain.serve.limits import MIB, Limits
from onnxplain.serve.server import serve


def main() -> int:
    """Exit code 0 after a drain, 2 where the server could not start."""
    parser = argparse.ArgumentParser(prog="python -m onnxplain.serve", description="serve the .onnx files of a folder")
    parser.add_argument("folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001, help="0 takes a free one and logs it")
    parser.add_argument("--provider", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--strict", action="store_true", help="a file that cannot be served ends the server")
    defaults = Limits()
    parser.add_argument("--max-message-mib", type=int, default=defaults.message_bytes // MIB)
    parser.add_argument("--max-rows", type=int, default=defaults.rows)
    parser.add_argument("--max-concurrent", type=int, default=defaults.concurrent)
    parser.add_argument("--grace", type=float, default=defaults.grace_seconds, metavar="SECONDS")
    parser.add_argument("--lame-duck", type=float, default=defaults.lame_duck_seconds, metavar="SECONDS")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    limits = Limits(
        message_bytes=given.max_message_mib * MIB,
        rows=given.max_rows,
        concurrent=given.max_concurrent,
        grace_seconds=given.grace,
        lame_duck_seconds=given.lame_duck,
    )
    try:
        return serve(
            given.folder, host=given.host, port=given.port, provider=given.provider, limits=limits, strict=given.strict
        )
    except OnnxplainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
