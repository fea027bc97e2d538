"""The shape of the project, held by tests: file sizes, who imports what, what is shipped, README against the code."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests import readme

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("*_pb2.py", "*_pb2_grpc.py")
LONGEST, TYPICAL = 400, 200

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "sklearn", "transformers")
MAY_IMPORT = {
    # imported module -> files of the two packages that may import it
    "onnxruntime": ("runtime/onnxplain/engine/session.py", "converters/onnxplain_convert/verify.py"),
    "onnx.helper": ("converters/onnxplain_convert/graph/*.py",),
    "grpc": ("runtime/onnxplain/serve/*.py", "runtime/onnxplain/client.py", "runtime/onnxplain/v1/*.py"),
    **dict.fromkeys(FRAMEWORKS, ("converters/onnxplain_convert/frontends/*.py",)),
}


def sources(*roots: str) -> list[Path]:
    """Python files under the roots, relative to the repository, without generated ones."""
    files = sorted(path.relative_to(ROOT) for root in roots for path in (ROOT / root).rglob("*.py"))
    return [file for file in files if not any(file.match(pattern) for pattern in GENERATED)]


PACKAGES = sources("runtime", "converters")


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth, and every name it takes from one."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("root", ["runtime", "converters", "tests", "benchmarks", "proto"])
def test_a_file_is_read_in_one_sitting(root: str) -> None:
    lengths = {file: len((ROOT / file).read_text().splitlines()) for file in sources(root)}
    assert not {str(file): n for file, n in lengths.items() if n > LONGEST}
    assert statistics.median(lengths.values()) <= TYPICAL


def test_no_file_is_a_drawer() -> None:
    assert not [file for file in PACKAGES if file.stem in ("utils", "util", "helpers", "helper", "common", "misc")]


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_who_imports(module: str) -> None:
    def takes(name: str) -> bool:
        return name == module or name.startswith(f"{module}.")

    importers = [file for file in PACKAGES if any(takes(name) for name in imports(file))]
    assert not [f for f in importers if not any(PurePosixPath(f).match(pattern) for pattern in MAY_IMPORT[module])]


def test_nothing_shipped_imports_tests_or_benchmarks() -> None:
    assert not [f for f in PACKAGES if any(name.split(".")[0] in ("tests", "benchmarks") for name in imports(f))]


def test_the_distribution_has_two_packages() -> None:
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = [PurePosixPath(path) for path in hatch["targets"]["wheel"]["packages"]]
    assert [path.name for path in packages] == ["onnxplain", "onnxplain_convert"]
    assert hatch["dev-mode-dirs"] == [str(path.parent) for path in packages]


def test_readme_tables_are_current() -> None:
    text = readme.README.read_text()
    assert {match["name"] for match in readme.MARKED.finditer(text)} == set(readme.TABLES)
    assert readme.current(text) == text, "run `python -m tests.readme`"


@pytest.mark.parametrize("end", ["onnxplain demo", "pytest"])
def test_readme_has_a_newcomers_command_once(end: str) -> None:
    commands = [line for line in readme.README.read_text().splitlines() if line.startswith("    python3 -m venv ")]
    assert len([line for line in commands if line.endswith(end)]) == 1


def test_readme_shows_pictures_that_are_there() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", readme.README.read_text())
    assert pictures
    assert not [path for path in pictures if not (ROOT / path).is_file()]


def test_the_tree_names_no_machine() -> None:
    """No absolute path of a developer's machine in any file that is kept."""
    homes = "|".join(("/home/[a-z]", "/Users/[A-Za-z]", "/work" + "/"))
    found = subprocess.run(["git", "grep", "-nIE", homes], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1, 128), found.stderr  # 128: not a git checkout
    assert not found.stdout
