"""Is the environment one in which ONNX Runtime can work?"""

from __future__ import annotations

import importlib.metadata

from onnxplain.errors import ProviderUnavailable


def check_onnxruntime() -> None:
    """Raises ProviderUnavailable where the CPU and the GPU package are both installed: they share one folder.

    Neither is no error here: what does not run a model does not need one.
    """
    found = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(found) == 2:
        raise ProviderUnavailable(
            f"{' and '.join(f'{name} {version}' for name, version in found.items())} are both installed and overwrite"
            " each other's files. Keep one:\n\n"
            "    pip uninstall --yes onnxruntime onnxruntime-gpu\n"
            '    pip install "onnxplain[cpu]"    # or "onnxplain[gpu]" for an NVIDIA GPU\n'
        )
