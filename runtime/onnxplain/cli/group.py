"""What all commands share: examples in the help, ``--debug``, and errors as one line instead of a traceback."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from onnxplain.errors import OnnxplainError, nearest

Examples = Sequence[tuple[str, str]]

BAD_INPUT = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"})
"""Codes of errors that another call would mend: exit status 2, as for a wrong option. All others: 1."""


class BadInput(click.ClickException):
    """One line on stderr: the call is to be changed."""

    exit_code = 2


class Failure(click.ClickException):
    """One line on stderr: the call was fine."""

    exit_code = 1


def _debug_option() -> click.Option:
    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.find_root().meta["onnxplain.debug"] = True

    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=remember, help="On an error show where it came from."
    )


def _write_examples(examples: Examples, formatter: click.HelpFormatter) -> None:
    if examples:
        with formatter.section("Examples"):
            for line, why in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
                if why:
                    formatter.write(f"{'':>{formatter.current_indent}}    {why}\n")


class SectionOption(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(click.Command):
    """A command whose help has options in sections and ends in worked examples: (command line, what it does)."""

    def __init__(self, *args: Any, examples: Examples = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.append(_debug_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            line = param.get_help_record(ctx)
            if line is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", "Options"), []).append(line)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines, col_max=24)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """The commands, imported when asked for, and the one place where errors become exit codes."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str], examples: Examples = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at
        self.examples = examples
        self.params.append(_debug_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands_at:
            return None
        module, _, name = self.commands_at[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands_at:
            ctx.fail(f"no command {args[0]!r}; {nearest(args[0], self.commands_at, most=len(self.commands_at))}")
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.find_root().meta.get("onnxplain.debug"):
                raise
            _fail(error)


def _fail(error: Exception) -> NoReturn:
    if isinstance(error, OnnxplainError):
        raise (BadInput if error.code in BAD_INPUT else Failure)(str(error)) from error
    if isinstance(error, BrokenPipeError):  # `onnxplain inspect net.onnx | head`: the reader has seen enough
        sys.stderr.close()
        raise click.exceptions.Exit(1) from error
    if isinstance(error, OSError) and error.filename is not None:
        raise BadInput(f"{error.filename}: {error.strerror or error}") from error
    raise Failure(f"{type(error).__name__}: {error}\nThis is a bug in onnxplain; --debug shows where.") from error
