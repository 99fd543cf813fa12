# SPDX-License-Identifier: GPL-3.0-or-later
"""One compiler call, and a cache of its results in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
CACHE_VARIABLE = "PATCHFORGE_EMULATE_XPU_CACHE"
#: The torch that the source is written for and tested with.
TORCH = "2.13"
#: Set to "any" to try another torch, a CUDA build on a machine without CUDA included.
TORCH_VARIABLE = "PATCHFORGE_EMULATE_XPU_TORCH"
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-shared", "-D_GLIBCXX_USE_CXX11_ABI=1")


class BuildError(RuntimeError):
    """The emulated XPU cannot be built here; says what is missing or what the compiler said."""


def _torch() -> tuple[Path, str]:
    """Torch's folder and version, found without importing it: the library must be there before torch.xpu is."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError("torch is not installed")
    folder = Path(spec.origin).parent
    return folder, (folder / "version.py").read_text(encoding="utf-8")


def _compiler() -> str:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError("g++ is not installed (or CXX names no compiler)")
    return compiler


def _cache() -> Path:
    if inherited := os.environ.get(CACHE_VARIABLE):
        return Path(inherited)
    if given := os.environ.get("PATCHFORGE_CACHE"):
        return Path(given) / "emulator"
    try:
        import platformdirs  # noqa: PLC0415 (an environment made for ComfyUI may lack it)
    except ImportError:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "patchforge" / "emulator"
    return Path(platformdirs.user_cache_dir("patchforge")) / "emulator"


#: Where this process keeps what it built; :func:`emulator.environment` hands it on to other processes.
CACHE = _cache()


def own_cache() -> Path:
    """The folder, made if need be. What it holds is loaded, so BuildError where others can write to it."""
    with contextlib.suppress(FileExistsError):
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = CACHE.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
        raise BuildError(f"{CACHE} is not a folder of yours alone: move it away, or set PATCHFORGE_CACHE to another")
    return CACHE


def missing() -> str | None:
    """Why the emulated XPU cannot be built here, or None."""
    try:
        folder, version = _torch()
        _compiler()
    except BuildError as error:
        return str(error)
    if not sys.platform.startswith("linux"):
        return "the emulated XPU is built on Linux only"
    if not (folder / "lib" / "libtorch_cpu.so").is_file():
        return "torch has no libtorch_cpu.so"
    return _unfit(version)


def _unfit(version: str) -> str | None:
    """Why the torch with this text of torch/version.py will not do, or None."""
    devices = re.findall(r"^(cuda|hip|xpu)\b.*= ['\"]", version, re.MULTILINE)
    found = re.search(r"^__version__ = ['\"](.+)['\"]", version, re.MULTILINE)
    tried = os.environ.get(TORCH_VARIABLE) == "any"
    if devices and not (tried and devices == ["cuda"]):
        return "torch is a CUDA, ROCm or XPU build, and a CPU build is needed"
    if tried or (found and found[1].startswith(f"{TORCH}.")):
        return None
    return (
        f"the emulated XPU is for torch {TORCH}, and this is torch {found[1] if found else 'of unknown version'}: "
        f"install torch {TORCH}, or set {TORCH_VARIABLE}=any to try"
    )


def command(target: Path) -> list[str]:
    """The compiler call that writes ``target``."""
    folder, _ = _torch()
    include = folder / "include"
    headers = [f"-I{include}", f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}"]
    return [
        _compiler(),
        *FLAGS,
        *headers,
        str(SOURCE),
        "-o",
        str(target),
        f"-L{folder / 'lib'}",
        "-ltorch_cpu",
        "-lc10",
    ]


def version_folder(real: Path) -> Path:
    """A folder with torch's ``version.py`` as a build with XPU has it."""
    text = f"{real.read_text(encoding='utf-8')}\nxpu = 'emulated'\n"
    folder = own_cache() / f"version-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    if not (folder / real.name).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(text)
        Path(file.name).replace(folder / real.name)
    return folder


def library() -> Path:
    """The built library, from the cache or compiled now (about 15 seconds on one core).

    Raises BuildError if it cannot be built. Processes that build at the same time do not disturb each other.
    """
    if reason := missing():
        raise BuildError(reason)
    folder, version = _torch()
    parts = (SOURCE.read_text(encoding="utf-8"), version, str(folder), _compiler(), *FLAGS)
    target = own_cache() / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:20]}.so"
    if not target.is_file():
        _compile(target)
    return target


def _compile(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        result = subprocess.run(command(made), capture_output=True, text=True, check=False)
        if result.returncode:
            raise BuildError(f"the compiler failed with {result.returncode}:\n{result.stderr[-4000:]}")
        made.replace(target)


def main() -> None:
    """Build, and say how long it took."""
    start = time.perf_counter()
    print(f"{library()} ({time.perf_counter() - start:.1f} s)")


if __name__ == "__main__":
    main()
