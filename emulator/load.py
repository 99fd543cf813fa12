# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the emulated XPU into a process, at the moment it imports torch.xpu.

Torch asks once who its XPU is, so this must come first: :func:`install` before ``import torch``.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from emulator import OPTIONS, VARIABLE, bindings, build, faults, presets
from emulator.library import is_loaded, loaded


def _load() -> None:
    """Build and load the library, and give ``torch._C`` what a build with XPU has."""
    options = presets.parse_options(os.environ.get(OPTIONS, ""))
    properties = presets.devices(os.environ[VARIABLE])
    library = loaded(build.library())
    for device in properties:
        library.emulated_add_device(options.memory or device.total_memory, device.has_fp64)
    if library.emulated_start() < 0:
        raise RuntimeError(library.emulated_error().decode())
    bindings.install(library, properties, options)
    faults.apply(options)
    if options.cuda_declared:
        _declare_cuda()


def _declare_cuda() -> None:
    """Let torch say that it has CUDA and an NVIDIA GPU too, as a build with both does; it computes nothing there."""
    import torch.cuda  # noqa: PLC0415
    import torch.version  # noqa: PLC0415

    torch.version.cuda = "12.8"
    properties = types.SimpleNamespace(name="NVIDIA (declared)", major=8, minor=9, total_memory=8 << 30)
    for name, answer in {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": properties.name,
        "get_device_capability": (properties.major, properties.minor),
        "get_device_properties": properties,
        "is_bf16_supported": True,
    }.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)


class _BeforeXpu(importlib.abc.MetaPathFinder):
    """Loads the device when torch.xpu is about to be imported; finds torch itself, to change its version.py."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torch" and path is None:
            return _with_xpu_version()
        if fullname == "torch.xpu" and not is_loaded():
            _load()
        if fullname == "torchvision" and presets.parse_options(os.environ.get(OPTIONS, "")).torchvision_schemas:
            _define_torchvision()
        return None


def _with_xpu_version() -> importlib.machinery.ModuleSpec | None:
    """Torch's spec with a folder in front whose version.py is of a build with XPU; some read it before they import."""
    spec = importlib.machinery.PathFinder.find_spec("torch")
    if spec is None or spec.origin is None or spec.submodule_search_locations is None:
        return spec
    real = Path(spec.origin).with_name("version.py")
    spec.submodule_search_locations.insert(0, str(build.version_folder(real)))
    return spec


def _define_torchvision() -> None:
    """Define what torchvision registers in C++, where its library does not fit a CPU torch."""
    import torch  # noqa: PLC0415

    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


_kept: list[object] = []


def install() -> None:
    """Arrange for the emulated XPU, if PATCHFORGE_EMULATE_XPU names a preset; nothing otherwise.

    Raises ValueError for a preset or option that is not known, RuntimeError if torch.xpu was imported already.
    """
    preset = os.environ.get(VARIABLE)
    if not preset or any(isinstance(finder, _BeforeXpu) for finder in sys.meta_path):
        return
    presets.devices(preset)
    presets.parse_options(os.environ.get(OPTIONS, ""))
    if "torch.xpu" in sys.modules:
        raise RuntimeError("torch was imported before the emulated XPU was installed")
    sys.meta_path.insert(0, _BeforeXpu())
