"""``onnxplain audit`` as a release guard: report, numbers, exit status, images that cannot be read."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxplain
from onnxplain.cli.audit import NOT_PASSED
from onnxplain.sanity.verdict import percent
from tests import models
from tests.cli.conftest import run
from tests.sanity.nets import DIGITS, blobs

QUICK = ("--draws", "2", "--measures", "spearman_abs,ssim", "--provider", "cpu")


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "digits.onnx"
    onnx.save(models.model(DIGITS), path)
    return path


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """Four rows in one file."""
    path = tmp_path / "discs.npy"
    np.save(path, np.concatenate([each.arrays["x"] for each in blobs(4)]))
    return path


class Page(HTMLParser):
    """What a page refers to, how its tags nest, and its headings."""

    VOID = ("meta", "img", "line", "rect", "polygon", "polyline", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.images_without_words = 0
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [str(found[name]) for name in ("src", "href") if name in found]
        self.images_without_words += tag == "img" and not found.get("alt")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_numbers_and_a_guard_that_passes(digits: Path, discs: Path, tmp_path: Path) -> None:
    page, numbers, other = (tmp_path / name for name in ("report.html", "report.json", "random.onnx"))
    before = digits.read_bytes()
    found = run(
        "audit", digits, discs, "--report", page, "--json", numbers, "--save-model", other, "--methods",
        "gradient,grad_cam", "--require", "gradient", *QUICK,
    )  # fmt: skip
    assert re.search(r"gradient\s+sensitive", found.output)
    assert digits.read_bytes() == before

    kept = json.loads(numbers.read_text())
    assert [each["name"] for each in kept["images"]] == [f"discs.npy[{k}]" for k in range(4)]
    assert [each["method"] for each in kept["methods"]] == ["gradient", "grad_cam"]
    verdict = kept["methods"][0]["verdict"]
    assert verdict["verdict"] == "sensitive" and percent(verdict["retained"]["mean"]) in found.output

    text = page.read_text()
    parsed = Page(text)
    assert parsed.open == [] and parsed.images_without_words == 0
    assert parsed.addresses and all(address.startswith("data:") for address in parsed.addresses)
    assert "http" not in text.replace("http-equiv", "")  # opens without a network
    assert kept["model"]["digest"] in text and "95 % interval" in text and ">nan<" not in text
    # Two images in two colours: the picture, and per method the trained map and one per level.
    assert text.count("data:image/png") == 2 * 2 * (1 + 2 * 4)
    assert text.count("<svg") == 2 * len(kept["methods"][0]["curves"])

    with onnxplain.load(other) as randomised:
        assert randomised.manifest.source["randomised"]["of"] == kept["model"]["digest"]


def test_a_method_that_cannot_be_told_fails_the_guard(digits: Path, discs: Path) -> None:
    wanted = ("--methods", "gradient_x_input", "--require", "gradient_x_input", "--judge", "spearman_abs")
    found = run("audit", digits, discs, *wanted, *QUICK, status=NOT_PASSED)
    assert "not passed: gradient_x_input: undecided" in found.stderr and "input_times_noise" in found.stderr


def test_a_required_method_that_the_model_does_not_have_fails_the_guard(tmp_path: Path) -> None:
    net, rows = tmp_path / "linear.onnx", tmp_path / "rows.npy"
    onnx.save(models.model(models.LINEAR), net)
    np.save(rows, np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    found = run("audit", net, rows, "--methods", "gradient", "--require", "grad_cam", "--draws", "2", status=NOT_PASSED)
    assert "not passed: grad_cam" in found.stderr and "ssim left out" in found.stderr


def test_pictures_of_a_folder_broken_ones_skipped_and_counted(net: Path, photo: Path, tmp_path: Path) -> None:
    folder, numbers = tmp_path / "images", tmp_path / "report.json"
    folder.mkdir()
    for k in range(3):
        Image.open(photo).rotate(90 * k).save(folder / f"{k}.png")
    (folder / "1.png").write_bytes(b"no picture")
    found = run("audit", net, folder, "--json", numbers, "--methods", "gradient", "--order", "all", *QUICK)
    assert "1.png" in found.stderr and "skipped 1 of 3 files" in found.stderr
    assert [each["name"] for each in json.loads(numbers.read_text())["images"]] == ["0.png", "2.png"]
    assert "no image to audit with" in run("audit", net, folder / "1.png", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--order", "down"), "one of top_down"),
        (("--randomise", "adebayo"), "adebayo-code"),
        (("--values", "uniform"), "one of truncated_normal"),
        (("--methods", "gradcam"), "nearest: grad_cam"),
        (("--require", "gradcam"), "nearest: grad_cam"),
        (("--block", "layer9"), "no layer under 'layer9'"),
        (("--report", "missing/report.html"), "there is no folder missing"),
        (("--judge", "spearmann"), "nearest: spearman"),
    ],
)
def test_wrong_calls(digits: Path, discs: Path, arguments: tuple[str, ...], says: str) -> None:
    found = run("audit", digits, discs, *arguments, status=2)
    assert says in found.stderr and found.stderr.count("Error:") == 1


def test_options_reach_the_audit(digits: Path, discs: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "report.json"
    run(
        "audit", digits, discs, "--json", numbers, "--methods", "smoothgrad", "--n-samples", "3", "--seed", "5",
        "--randomise", "adebayo-code", "--weight-std", "0.2", "--classes", "rerank", "--order", "bottom_up",
        "--most", "2", "--limit", "0.3", *QUICK,
    )  # fmt: skip
    kept = json.loads(numbers.read_text())
    asked = kept["options"]
    assert asked["policy"]["std"] == 0.2 and asked["policy"]["biases"] == "constant" and asked["seed"] == 5
    assert asked["classes"] == "rerank" and asked["order"] == "bottom_up" and asked["limit"] == 0.3
    assert kept["methods"][0]["options"]["n_samples"] == 3 and len(kept["images"]) == 2
