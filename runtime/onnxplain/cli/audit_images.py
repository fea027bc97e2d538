"""The images of an audit: folders and files, what cannot be read named and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxplain.artifact import Manifest
from onnxplain.cli import console
from onnxplain.cli.pictures import Flags
from onnxplain.cli.reading import read_input
from onnxplain.errors import BadRequest, LimitExceeded
from onnxplain.request.inputs import has_row_axis

if TYPE_CHECKING:
    from onnxplain.sanity.specimens import Specimen


def specimens(paths: Sequence[Path], manifest: Manifest, flags: Flags, most: int | None) -> list[Specimen]:
    """One per picture, or per row of an array. Raises BadRequest where none can be read."""
    found: list[Specimen] = []
    broken: list[str] = []
    told = set[str]()
    read = 0
    for path in _files(paths):
        if most is not None and len(found) >= most:
            break
        read += 1
        try:
            given, warnings = read_input(path, manifest, flags)
            found.extend(_rows(path.name, given.arrays, manifest))
        except (BadRequest, LimitExceeded) as error:
            broken.append(str(error))
            console.warn(f"skipped: {error}")
            continue
        for text in warnings:
            if text not in told:
                told.add(text)
                console.warn(text)
    if not found:
        raise BadRequest(f"no image to audit with: {broken[0] if broken else 'the folder is empty'}")
    if broken:
        console.warn(f"skipped {len(broken)} of {read} files; images: {len(found)}")
    return found[:most]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        else:
            yield path


def _rows(name: str, arrays: dict[str, Any], manifest: Manifest) -> Iterator[Specimen]:
    from onnxplain.sanity.specimens import Specimen

    cut = [spec.name for spec in manifest.inputs if spec.name in arrays and has_row_axis(manifest, spec)]
    counts = {len(arrays[each]) for each in cut if arrays[each].ndim}
    n = counts.pop() if len(counts) == 1 else 1
    if n == 1:
        yield Specimen(name, arrays)
        return
    for k in range(n):
        yield Specimen(f"{name}[{k}]", {each: v[k : k + 1] if each in cut else v for each, v in arrays.items()})
