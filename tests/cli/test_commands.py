"""What all commands promise: help that teaches, examples that work as written, errors in one line."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from onnxplain.cli import COMMANDS, main
from onnxplain.cli.group import Command, Group
from onnxplain.errors import BadRequest, NotFound, ProviderUnavailable, Unsupported
from onnxplain.methods import METHODS

RUNNER = CliRunner()


def command(name: str) -> Command:
    assert isinstance(main, Group)
    found = main.get_command(click.Context(main), name)
    assert isinstance(found, Command)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_opens_with_a_sentence_and_ends_in_examples(name: str) -> None:
    result = RUNNER.invoke(main, [name, "--help"], terminal_width=100)
    assert result.exit_code == 0, result.output
    first = result.output.split("\n\n")[1]
    assert first.strip().endswith((".", "?"))
    assert f"onnxplain {name}" in result.output.split("Examples:")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_call_that_parses(name: str) -> None:
    found = command(name)
    ours = [line for line, _ in found.examples if line.startswith("onnxplain ")]
    assert ours
    for line in ours:
        words = shlex.split(line)
        assert words[:2] == ["onnxplain", name]
        eager = "--help-method" in words
        with found.make_context(name, words[2:], parent=click.Context(main), resilient_parsing=eager) as context:
            assert context.params


def test_every_option_of_every_method_is_an_option_of_explain_with_its_default() -> None:
    text = " ".join(RUNNER.invoke(main, ["explain", "--help"], terminal_width=100).output.split())
    for method in METHODS.values():
        shown = RUNNER.invoke(main, ["explain", "--help-method", method.name])
        assert shown.exit_code == 0
        assert method.summary in " ".join(shown.output.split())
        for option in method.options:
            flag = "--" + option.name.replace("_", "-")
            assert flag in text
            assert flag in shown.output


def test_methods_lists_all_and_shows_one() -> None:
    listed = RUNNER.invoke(main, ["methods"])
    assert [line.split()[0] for line in listed.output.splitlines()[1 : 1 + len(METHODS)]] == list(METHODS)
    one = RUNNER.invoke(main, ["methods", "integrated_gradients"])
    assert "1703.01365" in one.output
    assert "--n-steps" in one.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explian"], "nearest: explain"),
        (["methods", "smoothgard"], "no method 'smoothgard'; nearest: smoothgrad"),
        (["explain", "net.onnx", "cat.jpg", "--method", "gradcam"], "no method 'gradcam'; nearest: grad_cam"),
        (["explain", "net.onnx", "cat.jpg", "--n-step", "3"], "--n-steps"),
        (["explain", "net.onnx", "cat.jpg", "--n-steps", "many"], "'many' is not a valid integer"),
        (["explain", "net.onnx", "cat.jpg", "--mean", "a,b"], "numbers with commas between them"),
        (["explain", "net.onnx", "cat.jpg", "--size", "0x4"], "224 or 320x240"),
        (["explain", "net.onnx", "cat.jpg", "--percentile", "0"], "above 0"),
    ],
)
def test_a_wrong_call_is_one_clear_line(arguments: list[str], says: str) -> None:
    result = RUNNER.invoke(main, arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert not result.stdout


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (BadRequest("the shape is wrong"), 2, "Error: the shape is wrong\n"),
        (NotFound("no such class"), 2, "Error: no such class\n"),
        (Unsupported("no rule for Loop"), 2, "Error: no rule for Loop\n"),
        (ProviderUnavailable("no CUDA here"), 1, "Error: no CUDA here\n"),
        (
            FileNotFoundError(2, "No such file or directory", "net.onnx"),
            2,
            "Error: net.onnx: No such file or directory\n",
        ),
        (RuntimeError("broken"), 1, "Error: RuntimeError: broken\nThis is a bug in onnxplain; --debug shows where.\n"),
    ],
)
def test_errors_become_exit_codes(monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, says: str) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(command("methods"), "callback", fails)
    result = RUNNER.invoke(main, ["methods"])
    assert (result.exit_code, result.stderr, result.stdout) == (status, says, "")
    for arguments in (["--debug", "methods"], ["methods", "--debug"]):
        assert RUNNER.invoke(main, arguments).exception is error


def test_the_module_is_the_command(tmp_path: Path) -> None:
    """As a process of its own, so that imports and output are those of a user."""
    call = [sys.executable, "-m", "onnxplain", "methods", "gradiant"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no method 'gradiant'; nearest: gradient, ")
    assert done.stderr.count("\n") == 1
