"""`explain`: the same numbers as in Python, the overlay that a picture's map gives, and one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain import picture
from onnxplain.artifact import Preprocessing
from tests.cli.conftest import run

HOW = ("--mean", "0.5", "--std", "0.25")


def test_picture_in_overlay_and_raw_result_out(net: Path, photo: Path, tmp_path: Path) -> None:
    out, raw = tmp_path / "o.png", tmp_path / "r.npz"
    said = run(
        "explain", net, photo, "-m", "integrated_gradients", "--n-steps", "7", "-t", "2", "-o", out, "--save", raw, *HOW
    )
    assert "integrated_gradients of logits: 9 evaluations" in said.stdout
    assert "signed, summed over the channels" in said.stdout
    assert not said.stderr

    seen = picture.prepare(picture.read(photo), Preprocessing("NCHW", "RGB", (16, 16), (0.5,) * 3, (0.25,) * 3))
    with onnxplain.load(net) as model:
        want = model.explain(seen.array, "integrated_gradients", 2, n_steps=7)
    with np.load(raw) as saved:
        # The same program on the same rows in the same process: only the threads' order of summation may differ.
        np.testing.assert_allclose(saved["attributions/x"], want.attributions["x"], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(saved["scores"], want.scores, rtol=1e-6)
        record = json.loads(str(saved["record"]))
    assert record["options"]["n_steps"] == 7
    assert record["model_digest"] == want.model_digest
    with Image.open(out) as image:
        assert min(image.size) == 448
        assert json.loads(image.text["onnxplain"])["method"] == "integrated_gradients"  # type: ignore[attr-defined]


def test_chosen_parts_of_a_layer_and_what_a_method_gives_besides(net: Path, photo: Path, tmp_path: Path) -> None:
    raw = tmp_path / "r.npz"
    run("explain", net, photo, "-m", "hires_cam", "--maps", "0,2", "--neurons", "1:2", "--no-relu", "--save", raw, *HOW)
    with np.load(raw) as saved:
        assert np.flatnonzero(saved["extras/layer_map"]).tolist() in ([], [saved["extras/layer_map"].shape[2] + 2])
        assert saved["extras/mask/x"].shape == (1, 16, 16)
        assert saved["extras/boxes/x"].shape[2] == 5
        options = json.loads(str(saved["record"]))["options"]
    assert options["maps"] == [0, 2] and options["neurons"] == [[1, 2]] and options["relu"] is False


def test_a_guess_is_said_and_a_manifest_needs_none(net: Path, photo: Path, tmp_path: Path) -> None:
    guessed = run("explain", net, photo)
    assert "warning: the model does not say how a picture becomes its input 'x'" in guessed.stderr
    assert "nothing written" in guessed.stdout
    labels = tmp_path / "classes.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    run("convert", net, "--labels", labels, *HOW)
    known = run("explain", net.with_name("net.explain.onnx"), photo, "--target", "d")
    assert not known.stderr
    assert "d (3)" in known.stdout


def test_arrays_in_several_rows_out(net: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    np.savez(tmp_path / "x.npz", x=rows)
    for name in ("x.npy", "x.npz"):
        said = run("explain", net, tmp_path / name, "-m", "smoothgrad", "--n-samples", "3", "-o", tmp_path / "o.png")
        assert "o-0.png" in said.stdout
        assert (tmp_path / "o-1.png").exists()


def test_an_overlay_shows_what_was_asked_for(net: Path, photo: Path, tmp_path: Path) -> None:
    run("explain", net, photo, *HOW, "-o", tmp_path / "a.png", "--sign", "signed", "--opacity", "0")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image)
    assert np.array_equal(pixels[..., 0], pixels[..., 2]), "without opacity only the grey picture is left"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.onnx", "{photo}"], "nowhere.onnx"),
        (["{photo}", "{photo}"], "photo.png"),
        (["{net}", "{net}"], "not a picture that can be decoded"),
        (["{net}", "missing.jpg"], "missing.jpg: no such file"),
        (["{net}", "{photo}", "--target", "5"], "5"),
        (["{net}", "{photo}", "--target", "cat"], "no class 'cat'"),
        (["{net}", "{photo}", "--n-steps", "5"], "n_steps"),
        (["{net}", "{photo}", "--method", "integrated_gradients", "--n-steps", "0"], "n_steps"),
        (["{net}", "{photo}", "--method", "integrated_gradients", "--quadrature", "simpson"], "simpson"),
        (["{net}", "{photo}", "--method", "grad_cam", "--layer", "relu2"], "nearest: relu1"),
        (["{net}", "{photo}", "--output", "logit"], "logits"),
        (["{net}", "{photo}", "--size", "8"], "16"),
        (["{net}", "{photo}", "--mean", "0.1,0.2"], "mean has 2 values"),
        (["{net}", "{flat}"], "flat.npy"),
        (["{net}", "{photo}", "-o", "{photo}.xyz"], "no picture format is known by '.xyz'"),
        (["{net}", "{photo}", "-o", "{photo}/a.png"], "there is no folder"),
        (["{net}", "{photo}", "--save", "{photo}/a.npz"], "there is no folder"),
        (["{net}", "{photo}", "--preset", "adebayo2019"], "nearest: adebayo2018"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    net: Path, photo: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    flat = tmp_path / "flat.npy"
    flat.write_bytes(b"\x93NUMPY broken")
    result = run("explain", *(text.format(net=net, photo=photo, flat=flat) for text in arguments), status=2)
    last = [line for line in result.stderr.splitlines() if not line.startswith("warning:")]
    assert len(last) == 1, result.stderr
    assert last[0].startswith("Error: ")
    assert says in last[0]
