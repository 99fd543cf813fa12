# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention in slices, so that no score matrix is larger than an XPU can hold."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any

from .devices import active, is_xpu, properties, torch_version
from .settings import GIB, MIB, configure, state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_ALCHEMIST = re.compile(r"\bA\d{2,3}M?\b|\bFlex \d|0x56", re.IGNORECASE)


def attention(sdpa: Callable[..., Any]) -> Callable[..., Any]:
    """``sdpa`` that works in chunks of queries where its score matrix would be too large (#7004, #8767).

    Shapes as in torch: q (..., Lq, E), k (..., Lk, E), v (..., Lk, Ev), a mask that broadcasts to (..., Lq, Lk). Each
    query's result depends on no other query, so nothing is approximated.
    """
    if _compiling() or not active() or state.attention_limit == 0:
        return sdpa
    return functools.partial(_attention, sdpa)


def _attention(sdpa: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not 3 <= len(args) <= 6 or _compiling() or not is_xpu(args[0]):
        return sdpa(*args, **kwargs)
    q, k, v, *rest = args
    options = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), rest)), **kwargs}  # noqa: B905 (Python 3.9)
    rows = _rows(q, k, options)
    if rows >= q.shape[-2]:
        return sdpa(*args, **kwargs)
    import torch

    mask = options.pop("attn_mask", None)
    parts = []
    for first in range(0, q.shape[-2], rows):
        count = min(rows, q.shape[-2] - first)
        part = mask if mask is None or mask.dim() < 2 or mask.shape[-2] == 1 else mask.narrow(-2, first, count)
        parts.append(sdpa(q.narrow(-2, first, count), k, v, attn_mask=part, **options))
    return torch.cat(parts, dim=-2)


def _rows(q: Any, k: Any, options: Mapping[str, Any]) -> int:
    """How many queries to compute at once, so that their fp32 scores stay within the limit; at least 1."""
    queries = int(q.shape[-2])
    row = int(math.prod(q.shape[:-2]) * k.shape[-2] * 4)
    explicit = configure().attention_limit
    small = row * queries <= (64 * MIB if explicit is None else explicit)
    if small or options.get("is_causal") or options.get("dropout_p"):
        return queries
    if _fused(q, options.get("attn_mask")):
        return queries
    return max(1, (_default_limit(q.device) if explicit is None else explicit) // row)


def _default_limit(device: Any) -> int:
    """Bytes of scores: 4 GiB (compute-runtime#627) or half of what the device has left, and at least 64 MiB."""
    import torch

    try:
        left = int(properties(device).total_memory - torch.xpu.memory_allocated(device))
    except Exception:
        left = 8 * GIB
    return max(64 * MIB, min(4 * GIB, left // 2))


def _fused(q: Any, mask: Any) -> bool:
    """Whether torch has a kernel without a score matrix: Xe2 and PVC, head sizes 64 to 192, no mask (#4886, #3141)."""
    import torch

    if mask is not None or q.shape[-1] not in (64, 96, 128, 192) or q.dtype not in (torch.float16, torch.bfloat16):
        return False
    found = properties(q.device)
    matrix = getattr(found, "has_subgroup_matrix_multiply_accumulate", True)
    return bool(matrix) and torch_version() >= (2, 7) and not _ALCHEMIST.search(str(getattr(found, "name", "")))


def _compiling() -> bool:
    import torch

    compiler = getattr(torch, "compiler", None)
    return bool(compiler is not None and hasattr(compiler, "is_compiling") and compiler.is_compiling())
