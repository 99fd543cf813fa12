# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: PLC0415
"""The few functions that edits in a custom-node pack call.

A file gets a copy of those that it uses: packs import their files in every possible way (relative, over ``sys.path``,
by file name), so no import of a module of ours would work in all of them. Runs on Python 3.9 and later.
"""


def _patchforge_xpu() -> bool:
    """Whether an Intel GPU is what there is; a CUDA device comes first."""
    import torch

    return not torch.cuda.is_available() and hasattr(torch, "xpu") and torch.xpu.is_available()


def _patchforge_gpu() -> object:
    """torch.xpu where only an Intel GPU is there, else torch.cuda."""
    import torch

    return torch.xpu if _patchforge_xpu() else torch.cuda


def _patchforge_device(index: object = None) -> object:
    """Gives "cuda", or "xpu" where only an Intel GPU is there; "cuda:0" with an index; a device as it is."""
    kind = "xpu" if _patchforge_xpu() else "cuda"
    if isinstance(index, int):
        return f"{kind}:{index}"
    return kind if index is None else index


def _patchforge_choice(device: object) -> object:
    """What somebody chose; a "cuda", text or torch.device, means the Intel GPU where only that is there."""
    import torch

    if str(device).partition(":")[0] != "cuda" or not _patchforge_xpu():
        return device
    text = "xpu" + str(device)[4:]
    return text if isinstance(device, str) else torch.device(text)


def _patchforge_sdp(theirs: object) -> object:
    """CUDA's choice of attention kernels; where only an Intel GPU is there, no choice."""
    import contextlib

    return (lambda *_args, **_more: contextlib.nullcontext()) if _patchforge_xpu() else theirs


def _patchforge_autocast(theirs: object) -> object:
    """CUDA's autocast class, or torch's; where only an Intel GPU is there, XPU's with the parameters of either."""
    import torch

    def xpu(*given: object, **more: object) -> object:
        named = "device_type" in more or isinstance((*given, None)[0], str)
        order = ("device_type", "dtype", "enabled") if named else ("enabled", "dtype")
        more = {"dtype": torch.float16, **dict(zip((*order, "cache_enabled"), given)), **more}  # noqa: B905
        kind = str(more.pop("device_type", "cuda"))
        return torch.autocast("xpu" if kind.startswith("cuda") else kind, **more)

    return xpu if _patchforge_xpu() else theirs
