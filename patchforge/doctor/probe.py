"""Runs in the interpreter that is examined, and says what its torch says: a JSON document on each line.

``probe.py [ARITHMETIC]``: the second file is the self-test of the runtime package, which imports nothing but torch.
Each question is named before it is asked, so that a crash or a hang can be told apart from an answer. Runs on Python
3.9 and later, alone: it imports nothing of patchforge.
"""
# ruff: noqa: PLC0415, BLE001 - torch is imported when it is asked for, and every error is an answer

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Distributions whose versions matter, by normalised name.
NAMES = {
    "torch",
    "torchvision",
    "torchaudio",
    "numpy",
    "triton",
    "triton-xpu",
    "pytorch-triton-xpu",
    "intel-extension-for-pytorch",
    "oneccl-bind-pt",
}


def say(**line: Any) -> None:
    print("\n" + json.dumps(line), flush=True)


def ask(question: str, answer: Callable[[], Any]) -> Any:
    """Names the question, then says the answer or the error; returns the answer, or None after an error."""
    say(question=question)
    try:
        value = answer()
    except BaseException as error:
        say(of=question, error=f"{type(error).__name__}: {error}"[:1000])
        return None
    say(of=question, answer=value)
    return value


def packages() -> dict[str, Any]:
    """Versions of what matters, and who pins torch to a version (a requirement with ==)."""
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    pins: dict[str, str] = {}
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name in NAMES:
            versions.setdefault(name, distribution.version)
        for requirement in distribution.requires or []:
            pin = re.match(r"torch\s*\(?==\s*([^\s;,)]+)", requirement)
            if pin and not re.search(r"\bextra\s*==", requirement):
                pins.setdefault(name, pin[1])
    return {"versions": versions, "pins": pins}


def build() -> dict[str, Any]:
    """Which torch this is. ``xpu``, ``cuda`` and ``hip`` are what it was built with, not what is there."""
    import torch

    return {
        "version": torch.__version__,
        "xpu": bool(getattr(torch._C, "_has_xpu", False)),  # noqa: SLF001 - torch.version.xpu came later
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
    }


def device(index: int) -> dict[str, Any]:
    """The properties of one XPU; None for one that this torch does not report. Memory in bytes."""
    import torch

    properties = torch.xpu.get_device_properties(index)
    return {
        "name": properties.name,
        "total_memory": properties.total_memory,
        "fp64": getattr(properties, "has_fp64", None),
        "bf16": getattr(properties, "has_bfloat16_conversions", None),
        "matrix": getattr(properties, "has_subgroup_matrix_multiply_accumulate", None),
        "integrated": getattr(properties, "is_integrated_gpu", None),
        "driver": getattr(properties, "driver_version", None),
        "platform": getattr(properties, "platform_name", None),
    }


def sums(index: int) -> bool:
    """A small computation on one XPU."""
    import torch

    return bool((torch.ones(64, device=f"xpu:{index}") + 1).sum().item() == 128)


def arithmetic(path: str, index: int) -> dict[str, Any]:
    """What one XPU computes wrongly ("float16 linear" to what was seen), and what avoids it."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("patchforge_arithmetic", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    wrong = module.wrong_results(index)
    return {"wrong": wrong, "do": module.advice(wrong) if wrong else ""}


def main() -> None:
    here = __file__.replace("\\", "/").rpartition("/")[0]
    sys.path[:] = [path for path in sys.path if path.replace("\\", "/") != here]
    ask("python", lambda: sys.version.split()[0])
    ask("packages", packages)
    if ask("torch", build) is None:
        return
    import torch

    if hasattr(torch, "xpu") and ask("xpu available", torch.xpu.is_available):
        for index in range(ask("xpu count", torch.xpu.device_count) or 0):
            ask(f"device {index}", lambda: device(index))  # noqa: B023 - asked at once
            ask(f"memory {index}", lambda: list(torch.xpu.mem_get_info(index)))  # noqa: B023
            ask(f"sums {index}", lambda: sums(index))  # noqa: B023
            if len(sys.argv) > 1:
                ask(f"arithmetic {index}", lambda: arithmetic(sys.argv[1], index))  # noqa: B023
    if ask("cuda available", torch.cuda.is_available):
        ask("cuda names", lambda: [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())])
    ask("numpy", lambda: torch.ones(1).numpy().size == 1)
    ask("torchvision", lambda: __import__("torchvision").__version__)


if __name__ == "__main__":
    main()
    say(end=True)
