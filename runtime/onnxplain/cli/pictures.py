"""The flags that say how a picture becomes an input, shared by convert, explain and bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from onnxplain import picture
from onnxplain.artifact import Preprocessing, TensorSpec
from onnxplain.cli.group import SectionOption

F = TypeVar("F", bound=Callable[..., Any])


class Numbers(click.ParamType[Any]):
    """Comma-separated numbers as a tuple of floats."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: numbers with commas between them, for example 0.485,0.456,0.406", param, ctx)


class Size(click.ParamType[Any]):
    """``224`` or ``320x240`` (width x height) as (height, width)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        width, _, height = value.lower().partition("x")
        if not width.isdigit() or not (height or width).isdigit() or 0 in (int(width), int(height or width)):
            self.fail(f"{value!r}: pixels, as 224 or 320x240 (width x height)", param, ctx)
        return int(height or width), int(width)


SECTION = "How a picture becomes the input (default: what the model says, else a guess that is stated)"

FLAGS: tuple[tuple[str, Any, str], ...] = (
    ("layout", click.Choice(["NCHW", "NHWC"]), "Order of the input's axes."),
    ("color", click.Choice(["RGB", "BGR", "L"]), "Order of the channels; L is one channel of grey."),
    ("size", Size(), "Pixels the model takes: 224, or 320x240 (width x height)."),
    ("shorter", click.IntRange(min=1), "Bring the shorter side to this first, then cut --size out of the middle."),
    ("mean", Numbers(), "Subtracted per channel, on the scale after --scale: 0.485,0.456,0.406."),
    ("std", Numbers(), "Divided by per channel, after the mean."),
    ("scale", float, "Factor on the bytes 0..255 before mean and std: 0.00392157 is 1/255."),
)


def picture_flags(command: F) -> F:
    """Adds the flags to a command, which gets them by name, None where nothing was given."""
    for name, kind, text in reversed(FLAGS):
        command = click.option(f"--{name}", type=kind, help=text, cls=SectionOption, section=SECTION)(command)
    return command


@dataclass(frozen=True)
class Flags:
    """What was given by hand."""

    given: Mapping[str, Any]

    @classmethod
    def take(cls, options: dict[str, Any]) -> Flags:
        """Take the flags out of a command's keyword arguments."""
        taken = {name: options.pop(name) for name, _, _ in FLAGS}
        return cls({name: value for name, value in taken.items() if value is not None})

    def preprocessing(self, spec: TensorSpec, known: Preprocessing | None) -> tuple[Preprocessing, str | None]:
        """The model's own preprocessing or a guess, with the flags over it; and the warning that a guess needs."""
        warning = None
        if known is None:
            known, warning = picture.guess(spec, self.given.get("layout"))
        how = picture.override(known, **self.given)
        # A size read off the input's shape is no guess; what the numbers mean is, unless both were given.
        return how, None if {"mean", "std"} <= self.given.keys() else warning
