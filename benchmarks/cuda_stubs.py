"""Libraries that answer as CUDA's do and compute nothing, so that node placement can be seen without a GPU.

ONNX Runtime decides which provider runs a node when a session is made: the CUDA provider must load, find a device
and register its kernels, but nothing is computed until the session runs. So each library that it is linked to gets a
stand-in in which every function it uses returns success; a few must do a little more (a device count of one, memory
that exists). Results of a run on these are garbage; only placement is real. Needs gcc and binutils.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

HEAD = "#include <stdlib.h>\n#include <string.h>\n"

# An allocation on the "device" is memory of the host, so that weights can be copied to it.
ALLOCATE = "*p = aligned_alloc(256, (n + 255) / 256 * 256); return 0;"
HANDLE = "*p = malloc(64); return 0;"

BODIES = {
    "cuDeviceGetCount": "int {0}(int *p) {{ *p = 1; return 0; }}",
    "cudaGetDeviceCount": "int {0}(int *p) {{ *p = 1; return 0; }}",
    "cudaGetDevice": "int {0}(int *p) {{ *p = 0; return 0; }}",
    "cudaRuntimeGetVersion": "int {0}(int *p) {{ *p = 13000; return 0; }}",
    "cudaDriverGetVersion": "int {0}(int *p) {{ *p = 13000; return 0; }}",
    "cudaMemGetInfo": "int {0}(size_t *free, size_t *total) {{ *free = *total = 1UL << 36; return 0; }}",
    "cudaGetErrorString": 'const char *{0}(int e) {{ return "stub"; }}',
    "cudaGetErrorName": 'const char *{0}(int e) {{ return "stub"; }}',
    "__cudaRegisterFatBinary": "void **{0}(void *x) {{ static void *handle; return &handle; }}",
    "cudaMalloc": "int {0}(void **p, size_t n) {{ " + ALLOCATE + " }}",
    "cudaMallocHost": "int {0}(void **p, size_t n) {{ " + ALLOCATE + " }}",
    "cudaHostAlloc": "int {0}(void **p, size_t n, unsigned flags) {{ " + ALLOCATE + " }}",
    "cudaFree": "int {0}(void *p) {{ free(p); return 0; }}",
    "cudaFreeHost": "int {0}(void *p) {{ free(p); return 0; }}",
    "cudaMemcpy": "int {0}(void *d, const void *s, size_t n, int kind) {{ memcpy(d, s, n); return 0; }}",
    "cudaMemcpyAsync": "int {0}(void *d, const void *s, size_t n, int kind, void *q) {{ memcpy(d, s, n); return 0; }}",
    "cudaMemset": "int {0}(void *d, int v, size_t n) {{ memset(d, v, n); return 0; }}",
    "cudaMemsetAsync": "int {0}(void *d, int v, size_t n, void *q) {{ memset(d, v, n); return 0; }}",
    # Compute capability 9.0 (attributes 75 and 76), one of everything else.
    "cudaDeviceGetAttribute": "int {0}(int *v, int a, int d) {{ *v = a == 75 ? 9 : a == 76 ? 0 : 1; return 0; }}",
    # struct cudaDeviceProp of CUDA 13: bytes of memory at 288, shared memory per block at 296, registers at 304, warp
    # size at 308, threads per block at 320, major version at 360.
    "cudaGetDeviceProperties": (
        'int {0}(char *p, int d) {{ memset(p, 0, 800); strcpy(p, "stub"); *(size_t *)(p + 288) = 1UL << 37; '
        "*(size_t *)(p + 296) = 49152; *(int *)(p + 304) = 65536; *(int *)(p + 308) = 32; *(int *)(p + 320) = 1024; "
        "*(int *)(p + 360) = 9; return 0; }}"
    ),
    **dict.fromkeys(
        ("cudaStreamCreate", "cudaStreamCreateWithFlags", "cudaEventCreate", "cudaEventCreateWithFlags"),
        "int {0}(void **p) {{ " + HANDLE + " }}",
    ),
    **dict.fromkeys(("cublasCreate_v2", "cublasLtCreate", "cudnnCreate"), "int {0}(void **p) {{ " + HANDLE + " }}"),
    "cudnnGetVersion": "size_t {0}(void) {{ return 91900; }}",
}

OPENED_LATER = {
    "libcuda.so.1": ("cuInit", "cuDeviceGetCount"),
    "libcudnn.so.9": ("cudnnCreate", "cudnnDestroy", "cudnnSetStream", "cudnnGetVersion"),
}
"""Libraries that the provider, or onnxplain, opens by name at run time, and what it asks them for a session."""


def needed(provider: Path) -> dict[str, set[str]]:
    """CUDA library -> the functions that the provider takes from it; an unversioned one belongs to the driver."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", provider], capture_output=True, text=True, check=True
    ).stdout
    functions = defaultdict(set, {name: set(used) for name, used in OPENED_LATER.items()})
    for symbol, library in re.findall(
        r" U ((?:__)?(?:cu[A-Z]|cuda|cublas|curand|cufft|nvrtc)\w*)(?:@+(\S+))?", listing
    ):
        functions[library or "libcuda.so.1"].add(symbol)
    linked = subprocess.run(["readelf", "-d", provider], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"\(NEEDED\).*\[(libcu\S+)\]", linked):
        functions[library].add(f"stub_{re.sub(r'[^a-z0-9]', '_', library)}")
    return functions


def build(provider: Path, folder: Path) -> None:
    """Compile into ``folder`` a stand-in for every CUDA library that ``libonnxruntime_providers_cuda.so`` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    for library, functions in needed(provider).items():
        source, versions = folder / f"{library}.c", folder / f"{library}.map"
        plain = "long {0}(void) {{ return 0; }}"
        source.write_text(HEAD + "\n".join(BODIES.get(name, plain).format(name) for name in sorted(functions)) + "\n")
        command = ["gcc", "-w", "-shared", "-fPIC", "-o", folder / library, source, f"-Wl,-soname,{library}"]
        if library != "libcuda.so.1":  # the driver's symbols carry no version
            versions.write_text(f"{library} {{ global: *; }};\n")
            command.append(f"-Wl,--version-script={versions}")
        subprocess.run([str(word) for word in command], check=True)
