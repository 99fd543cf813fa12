# SPDX-License-Identifier: GPL-3.0-or-later
"""Where torch's fused attention is known to be wrong on an XPU, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

#: Battlemage and Lunar Lake, by torch's name of the device or its PCI id.
XE2 = re.compile(r"\bB\d{2,3}M?\b|\b1[34]0V\b|0x(e2[0-9a-f]{2}|64[0-9a-f]{2})\b", re.IGNORECASE)
_HALF = 2  #: bytes of a float16 and of a bfloat16


@dataclass(frozen=True)
class AttentionFault:
    """Shapes of one kernel fault; a field that is empty holds for all. Lengths are numbers of queries and keys."""

    what: str
    sources: tuple[str, ...]
    torch: tuple[tuple[int, int], tuple[int, int]]  #: the first version that has it, and the first that has not
    head_sizes: tuple[int, ...]
    mask_ranks: tuple[int, ...] = ()  #: 0 stands for no mask
    queries: int = 1  #: at least
    keys: int = 1  #: at least
    most_keys: int = 0  #: at most; 0 for no bound
    devices: re.Pattern[str] | None = None
    half: bool = False  #: in float16 and bfloat16 alone

    def concerns(self, version: tuple[int, int], name: str) -> bool:
        """Whether a device of this name has the fault under this version of torch."""
        return self.torch[0] <= version < self.torch[1] and (self.devices is None or bool(self.devices.search(name)))

    def hits(self, q: Any, k: Any, rank: int) -> bool:
        """Whether a call of these shapes, with a mask of this rank, meets the fault."""
        return (
            (not self.half or q.element_size() == _HALF)
            and q.shape[-1] in self.head_sizes
            and (not self.mask_ranks or rank in self.mask_ranks)
            and q.shape[-2] >= self.queries
            and k.shape[-2] >= self.keys
            and (not self.most_keys or k.shape[-2] <= self.most_keys)
        )


#: torch 2.7 is the first whose XPU build has a fused kernel; 2.15 brings oneDNN 3.13.2.
FAULTS = (
    AttentionFault(
        "a mask of rank 3 or 4 makes the kernel read beyond it: the device is lost",
        ("pytorch#195319", "oneDNN#5933"),
        torch=((2, 7), (2, 15)),
        head_sizes=(64,),
        mask_ranks=(3, 4),
        queries=17,
        keys=129,
    ),
    AttentionFault(
        "few keys give rows of NaN now and then: black images",
        ("pytorch#192158", "oneDNN#5758", "ComfyUI#14743"),
        torch=((2, 13), (2, 15)),
        head_sizes=(64,),
        mask_ranks=(0, 2),
        most_keys=128,
        devices=XE2,
        half=True,
    ),
)
