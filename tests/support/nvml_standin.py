"""The stand-in for NVIDIA's library: built with the C compiler at hand, loaded before the real binding looks for it."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_standin.c")
VARIABLE = "NVML_STANDIN"


@functools.cache
def load() -> ctypes.CDLL:
    """Build and load the stand-in, once a process.

    The dynamic linker knows it by its soname from then on, so the binding's own dlopen("libnvidia-ml.so.1") gets it.
    Skips the test where there is no compiler.
    """
    with tempfile.TemporaryDirectory(prefix="devd-nvml-") as directory:
        return ctypes.CDLL(str(build(Path(directory))), mode=ctypes.RTLD_GLOBAL)


def build(directory: Path) -> Path:
    """Build the stand-in under the library's own name; skip the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for NVML with")
    path = directory / "libnvidia-ml.so.1"
    command = [
        compiler,
        "-Wall",
        "-Wextra",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{path.name}",
        "-o",
        str(path),
        str(SOURCE),
    ]
    subprocess.run(command, check=True, timeout=60)
    return path
