# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an XPU multiplies, convolves and attends as the CPU does. Stands alone: it imports torch and nothing else.

Drivers were seen that give zeros or NaN without an error: torch-xpu-ops#5220 (B580), compute-runtime#1001 (B70).
"""

from __future__ import annotations

from typing import Any

DTYPES = ("float32", "float16", "bfloat16")
#: How far a result may be off, in units of the dtype's precision at the largest result: sums are made in another order.
TOLERANCE = 64
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def wrong_results(index: int) -> dict[str, str]:
    """What is wrong on XPU ``index``: dtype and operation, as "float16 linear", to what was seen.

    Empty if all is right. Each operation per dtype, on numbers that are the same each time (about 3 MB).
    """
    import torch

    numbers = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=numbers)

    functional = torch.nn.functional
    trials = {
        "linear": (functional.linear, (random(2, 320), random(1280, 320))),
        "matmul": (torch.matmul, (random(512, 512), random(512, 512))),
        "convolution": (functional.conv2d, (random(1, 16, 32, 32), random(16, 16, 3, 3))),
        "attention": (functional.scaled_dot_product_attention, tuple(random(1, 4, n, 64) for n in (96, 77, 77))),
    }
    wrong = {}
    with torch.inference_mode():
        for dtype in DTYPES:
            for name, (operation, operands) in trials.items():
                fault = _fault(torch, operation, [operand.to(getattr(torch, dtype)) for operand in operands], index)
                if fault:
                    wrong[f"{dtype} {name}"] = fault
    return wrong


def _fault(torch: Any, operation: Any, operands: list[Any], index: int) -> str:
    """What is wrong with one operation; empty if nothing is. The reference is the CPU's, in fp32."""
    expected = operation(*(operand.float() for operand in operands))
    try:
        found = operation(*(operand.to(f"xpu:{index}") for operand in operands)).cpu().float()
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if not bool(torch.isfinite(found).all()):
        return "not finite"
    if not bool(found.any()):
        return "all zero"
    scale = float(expected.abs().max())
    off = float((found - expected).abs().max())
    most = TOLERANCE * torch.finfo(operands[0].dtype).eps * scale
    return "" if off <= most else f"off by {off:.3g} where results reach {scale:.3g}"


def advice(wrong: Any) -> str:
    """The flag that avoids what is wrong."""
    dtypes = {fault.split()[0] for fault in wrong}
    kinds = {fault.split()[1] for fault in wrong}
    if kinds == {"attention"}:
        return "update the driver, or start with --xpu-attention math"
    right = [dtype for dtype in DTYPES if dtype not in dtypes]
    if not right:
        return "update the driver, or start with --cpu"
    return f"update the driver, or start with --xpu-precision {SHORT[right[0] if 'bfloat16' in dtypes else 'bfloat16']}"
