"""`inspect` and `convert`: what is said of a model is what its artifact holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxplain.artifact import Artifact
from onnxplain_convert.relevance import RULE_SETS
from tests.cli.conftest import run


def facts(text: str) -> dict[str, str]:
    """Lines of two columns, name and value."""
    pairs = (line.split("  ", 1) for line in text.splitlines() if "  " in line)
    return {name.strip(): value.strip() for name, value in pairs}


def test_a_plain_file_is_read_before_it_is_converted(net: Path) -> None:
    said = run("inspect", net).stdout
    operators = {line.split()[0]: line.split()[1:3] for line in said.splitlines() if "yes" in line.split()}
    assert operators == {
        name: ["1", "yes"] for name in ("Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm", "Softmax")
    }
    assert "All 6 nodes on floating-point values have a derivative" in said
    found = facts(said)
    assert found["inputs"] == "x float32 n x 3 x 16 x 16"
    assert "logits float32 n x 5 (explained by default)" in found["outputs"]
    assert found["rows"] == "independent of each other"
    assert found["network"] == "has kinks (Relu)"
    assert found["picture"] == "how it becomes the input is not said"


def test_layers_by_the_names_that_layer_takes(net: Path) -> None:
    said = run("inspect", net, "--layers").stdout
    listed = [line.split()[:2] for line in said[said.index("layer ") :].splitlines()[1:]]
    assert ["relu1", "Relu"] in listed
    assert [name for name, _ in listed if name in ("conv1", "relu1", "pool", "dense")] == [
        "conv1",
        "relu1",
        "pool",
        "dense",
    ]
    run("explain", net, net, "-m", "grad_cam", "--layer", "nowhere", status=2)


def test_an_artifact_says_what_convert_was_told(net: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "classes.txt", tmp_path / "deep.onnx"
    labels.write_text("ant\nbee\ncat\ndog\nelk\n")
    told = run("convert", net, "-o", out, "--rules", "gradient", "--labels", labels, "--mean", "0.5", "--std", "0.25")
    assert str(out) in told.stdout
    assert not told.stderr
    found = facts(run("inspect", out).stdout)
    assert found["rule sets"] == "gradient"
    assert found["picture"] == "RGB, NCHW, resized to 16 x 16, values / 255, mean 0.5 0.5 0.5, std 0.25 0.25 0.25"
    assert found["classes"] == "5: ant, bee, cat, dog, ..."
    assert found["digest"] == Artifact.open(out).manifest.digest
    assert "already an artifact" in run("convert", out, status=2).stderr


def test_nothing_is_kept_as_known_that_nobody_said(net: Path) -> None:
    run("convert", net)
    assert Artifact.open(net.with_name("net.explain.onnx")).manifest.preprocessing is None
    partly = run("convert", net, "--color", "BGR")
    assert "warning: the model does not say" in partly.stderr


def test_an_operator_without_a_rule_is_named_with_its_nodes(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rules in RULE_SETS.values():
        for key in [key for key in rules.rules if key[1] == "GlobalAveragePool"]:
            monkeypatch.delitem(rules.rules, key)
    result = run("inspect", net, status=2)
    (row,) = [line.split() for line in result.stdout.splitlines() if "MISSING" in line]
    assert row == ["GlobalAveragePool", "1", "MISSING", "pool"]
    assert "1 of 6 nodes have no rule (GlobalAveragePool)" in result.stdout
    assert result.stderr.startswith("Error: ")
    assert "GlobalAveragePool" in result.stderr
    assert "'pool'" in result.stderr


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12\x04torn"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    for command in ("inspect", "convert"):
        result = run(command, path, status=2)
        assert "broken.onnx" in result.stderr
        assert result.stderr.count("\n") == 1
    folder = run("serve", tmp_path / "nowhere", status=2)
    assert "no such folder" in folder.stderr
