"""Whether the patched ComfyUI keeps an XPU host on its XPU. The XPU is pretended: nothing is computed on it."""

# ruff: noqa: INP001 - a script
import sys
from types import SimpleNamespace
from unittest import mock

import torch

GIB = 1024**3
CARD = SimpleNamespace(
    name="Intel(R) Arc(TM) B580 Graphics", total_memory=12 * GIB, has_fp64=True, is_integrated_gpu=False
)
STATISTICS = {"active_bytes.all.current": 0, "reserved_bytes.all.current": 0}
ANSWERS = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": CARD.name,
    "get_device_properties": CARD,
    "memory_stats": STATISTICS,
    "mem_get_info": (11 * GIB, 12 * GIB),
    "is_bf16_supported": True,
    "synchronize": None,
    "empty_cache": None,
}

folder = sys.argv[1]
sys.path.insert(0, folder)
sys.argv = [f"{folder}/main.py"]
for name, answer in ANSWERS.items():
    setattr(torch.xpu, name, mock.Mock(return_value=answer))
torch.cuda.is_available = mock.Mock(return_value=False)
torch.version.cuda = torch.version.hip = None

import comfy.model_management as management  # noqa: E402 - after the XPU is there

device = management.get_torch_device()
if device.type != "xpu" or management.cpu_state != management.CPUState.GPU:
    print(
        "an XPU host is demoted\n  expected: device xpu, state GPU\n"
        f"  found: device {device}, state {management.cpu_state}",
        file=sys.stderr,
    )
    raise SystemExit(1)
print(f"an XPU host uses {device}")
