# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention that stays clear of known faults of torch's fused kernel, and in slices where scores are too large."""

from __future__ import annotations

import functools
import math
import re
import threading
from typing import TYPE_CHECKING, Any

from .attention_faults import FAULTS, AttentionFault
from .devices import active, is_xpu, properties, torch_version
from .settings import GIB, MIB, configure, state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_ALCHEMIST = re.compile(r"\bA\d{2,3}M?\b|\bFlex \d|0x56", re.IGNORECASE)
#: torch's choice of a back end is one for the process: whoever changes it must be alone.
_MATH = threading.Lock()


class Kernel:
    """What is known of the fused kernel on one device; asked once, since properties and versions do not change."""

    def __init__(self, device: Any) -> None:
        card = properties(device)
        name = str(getattr(card, "name", ""))
        matrix = bool(getattr(card, "has_subgroup_matrix_multiply_accumulate", True))
        self.total = int(getattr(card, "total_memory", 8 * GIB))
        #: A kernel without a score matrix: Xe2 and PVC (torch-xpu-ops#4886, #3141).
        self.fused = matrix and torch_version() >= (2, 7) and not _ALCHEMIST.search(name)
        self.faults: tuple[AttentionFault, ...] = tuple(f for f in FAULTS if f.concerns(torch_version(), name))


def kernel_of(device: Any) -> Kernel:
    """The fused kernel of an XPU."""
    index = getattr(device, "index", None)
    kernel: Kernel | None = state.kernels.get(index)
    if kernel is None:
        kernel = state.kernels[index] = Kernel(device)
    return kernel


def attention(sdpa: Callable[..., Any]) -> Callable[..., Any]:
    """``sdpa`` that avoids what is known to be wrong, and slices the queries where scores are too large (#7004, #8767).

    Shapes as in torch: q (..., Lq, E), k (..., Lk, E), v (..., Lk, Ev), a mask that broadcasts to (..., Lq, Lk). Each
    query's result depends on no other query, so nothing is approximated. PATCHFORGE_XPU_ATTENTION chooses the way.
    """
    if _compiling():
        return _eager(sdpa) if state.suspect else sdpa
    if not active() or configure().attention == "fused":
        return sdpa
    return functools.partial(_attention, sdpa)


def _eager(sdpa: Callable[..., Any]) -> Callable[..., Any]:
    """``sdpa`` outside of the compiled graph, where shapes decide: a graph would call the fused kernel for all."""
    import torch

    disable: Callable[..., Any] = torch.compiler.disable
    decided: Callable[..., Any] = disable(functools.partial(_decided, sdpa))
    return decided


def _decided(sdpa: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return attention(sdpa)(*args, **kwargs)


def _attention(sdpa: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args)), **kwargs}  # noqa: B905 (Python 3.9)
    q, k, v = (given.get(name) for name in names[:3])
    if len(args) > len(names) or q is None or k is None or v is None or not is_xpu(q) or _compiling():
        return sdpa(*args, **kwargs)
    options = {name: value for name, value in given.items() if name not in names[:3]}
    way, kernel = configure().attention, kernel_of(q.device)
    mask = options.get("attn_mask")
    unsafe = way == "math" or any(fault.hits(q, k, _rank(mask)) for fault in kernel.faults)
    if unsafe and way != "math" and _flat(mask) is not mask:
        args, kwargs = (q, k, v), {**options, "attn_mask": _flat(mask)}
        options = kwargs
        unsafe = any(fault.hits(q, k, 2) for fault in kernel.faults)
    fused = not unsafe and way != "sliced" and _fused(kernel, q, mask)
    rows = _rows(q, k, options, fused=fused)
    run = functools.partial(_by_math, sdpa) if unsafe else sdpa
    return run(*args, **kwargs) if rows >= q.shape[-2] else _sliced(run, (q, k, v), options, rows)


def _rank(mask: Any) -> int:
    return 0 if mask is None else int(mask.dim())


def _flat(mask: Any) -> Any:
    """A mask that is the same for each batch and head, as one of rank 2; any other as it is."""
    if mask is None or mask.dim() <= 2 or any(size != 1 for size in mask.shape[:-2]):
        return mask
    return mask.reshape(mask.shape[-2:])


def _by_math(sdpa: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``sdpa`` without fused kernels, and with sums in fp32, as those make them: upstream allows halves for all."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    halves = getattr(torch.backends.cuda, "fp16_bf16_reduction_math_sdp_allowed", lambda: False)
    with _MATH, sdpa_kernel(SDPBackend.MATH):
        if not halves():
            return sdpa(*args, **kwargs)
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)  # noqa: FBT003 (torch names no parameter)
        try:
            return sdpa(*args, **kwargs)
        finally:
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # noqa: FBT003


def _sliced(sdpa: Callable[..., Any], tensors: tuple[Any, Any, Any], options: Mapping[str, Any], rows: int) -> Any:
    import torch

    (q, k, v), options = tensors, dict(options)
    mask = options.pop("attn_mask", None)
    parts = []
    for first in range(0, q.shape[-2], rows):
        count = min(rows, q.shape[-2] - first)
        part = mask if mask is None or mask.dim() < 2 or mask.shape[-2] == 1 else mask.narrow(-2, first, count)
        parts.append(sdpa(q.narrow(-2, first, count), k, v, attn_mask=part, **options))
    return torch.cat(parts, dim=-2)


def _rows(q: Any, k: Any, options: Mapping[str, Any], *, fused: bool = False) -> int:
    """How many queries to compute at once, so that their fp32 scores stay within the limit; at least 1."""
    queries = int(q.shape[-2])
    row = int(math.prod(q.shape[:-2]) * k.shape[-2] * 4)
    limit = configure().attention_limit
    small = limit == 0 or row * queries <= (64 * MIB if limit is None else limit)
    if small or fused or options.get("is_causal") or options.get("dropout_p"):
        return queries
    return max(1, (_default_limit(q.device) if limit is None else limit) // row)


def _default_limit(device: Any) -> int:
    """Bytes of scores: 4 GiB (compute-runtime#627) or half of what the device has left, and at least 64 MiB.

    Where gradients are recorded, what is left changes between a forward pass and its recomputation, which must cut the
    queries alike (ComfyUI#15845): the limit is then 4 GiB, whatever is left.
    """
    import torch

    if torch.is_grad_enabled():
        return 4 * GIB
    try:
        left = int(kernel_of(device).total - torch.xpu.memory_allocated(device))
    except Exception:
        left = 8 * GIB
    return max(64 * MIB, min(4 * GIB, left // 2))


def _fused(kernel: Kernel, q: Any, mask: Any) -> bool:
    """Whether torch has a kernel without a score matrix here: head sizes 64 to 192, no mask (#4886, #3141)."""
    import torch

    halves = (torch.float16, torch.bfloat16)
    return mask is None and kernel.fused and q.shape[-1] in (64, 96, 128, 192) and q.dtype in halves


def suspect() -> bool:
    """Whether the fused kernel of this torch has a known fault on some XPU."""
    return any(fault.torch[0] <= torch_version() < fault.torch[1] for fault in FAULTS)


def _compiling() -> bool:
    import torch

    compiler = getattr(torch, "compiler", None)
    return bool(compiler is not None and hasattr(compiler, "is_compiling") and compiler.is_compiling())
