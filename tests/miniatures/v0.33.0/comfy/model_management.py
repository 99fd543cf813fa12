"""Which device, how much memory, and what is loaded there."""
from __future__ import annotations

import logging
import weakref
from contextlib import contextmanager
from enum import Enum

import psutil
import torch
from comfy.cli_args import args

class CPUState(Enum):
    GPU = 0
    CPU = 1
    MPS = 2

cpu_state = CPUState.GPU
xpu_available = False

directml_enabled = False
if args.directml is not None:
    import torch_directml
    directml_enabled = True
    directml_device = torch_directml.device(max(args.directml, 0))

try:
    _ = torch.xpu.device_count()
    xpu_available = torch.xpu.is_available()
except:
    xpu_available = False

try:
    if torch.backends.mps.is_available():
        cpu_state = CPUState.MPS
except:
    pass

try:
    import torch_npu
    npu_available = torch.npu.is_available()
except:
    npu_available = False

if args.cpu:
    cpu_state = CPUState.CPU

def is_intel_xpu():
    global cpu_state
    global xpu_available
    if cpu_state == CPUState.GPU:
        if xpu_available:
            return True
    return False

def is_ascend_npu():
    return npu_available

def get_torch_device():
    if directml_enabled:
        return directml_device
    if cpu_state != CPUState.GPU:
        return torch.device(cpu_state.name.lower())
    if is_intel_xpu():
        return torch.device("xpu", torch.xpu.current_device())
    elif is_ascend_npu():
        return torch.device("npu", torch.npu.current_device())
    else:
        return torch.device(torch.cuda.current_device())

def get_all_torch_devices(exclude_current=False):
    devices = []
    if cpu_state == CPUState.GPU:
        if is_nvidia():
            devices += [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
        elif is_intel_xpu():
            devices += [torch.device("xpu", n) for n in range(torch.xpu.device_count())]
    else:
        devices.append(get_torch_device())
    if exclude_current:
        devices.remove(get_torch_device())
    return devices

@contextmanager
def cuda_device_context(device):
    """Makes the device current for a while; other kinds of device are left alone."""
    before = None
    if device.type == "cuda" and device.index is not None:
        before = torch.cuda.current_device()
        torch.cuda.set_device(device)
    try:
        yield
    finally:
        if before is not None:
            torch.cuda.set_device(before)

def get_total_memory(dev=None):
    if dev is None:
        dev = get_torch_device()
    if getattr(dev, "type", "") in ("cpu", "mps"):
        return psutil.virtual_memory().total
    if directml_enabled:
        total = 1024 ** 3
    elif is_intel_xpu():
        total = torch.xpu.get_device_properties(dev).total_memory
    else:
        _, total = torch.cuda.mem_get_info(dev)
    return total

try:
    OOM_EXCEPTION = torch.cuda.OutOfMemoryError
except:
    OOM_EXCEPTION = Exception

def is_oom(e):
    if isinstance(e, OOM_EXCEPTION):
        return True
    if isinstance(e, RuntimeError) and "out of memory" in str(e).lower():
        return True
    return False

def is_nvidia():
    global cpu_state
    if cpu_state == CPUState.GPU:
        if torch.version.cuda:
            return True
    return False

def is_amd():
    global cpu_state
    if cpu_state == CPUState.GPU:
        if torch.version.hip:
            return True
    return False

current_loaded_models = []

class LoadedModel:
    def __init__(self, model):
        self.model = model
        self.device = model.load_device

    def model_load(self, lowvram_model_memory=0, force_patch_weights=False):
        self.model.model_patches_to(self.device)
        with cuda_device_context(self.device):
            self.model.partially_load(self.device, lowvram_model_memory)
        real_model = self.model.model
        self.real_model = weakref.ref(real_model)
        return real_model

    def model_unload(self):
        self.model.detach()
        self.real_model = None
        return True

def unload_all_models():
    while current_loaded_models:
        current_loaded_models.pop().model_unload()

def device_supports_non_blocking(device):
    if is_device_type(device, "mps"):
        return False
    if is_intel_xpu(): # slower on integrated GPUs
        return False
    if args.deterministic:
        return False
    return True

STREAMS = {}
NUM_STREAMS = 0
if args.async_offload is not None:
    NUM_STREAMS = args.async_offload
else:
    if is_nvidia() or is_amd():
        NUM_STREAMS = 2

if args.disable_async_offload:
    NUM_STREAMS = 0

def current_stream(device):
    if device is None:
        return None
    if is_device_cuda(device):
        return torch.cuda.current_stream()
    elif is_device_xpu(device):
        return torch.xpu.current_stream()
    else:
        return None

def get_offload_stream(device):
    if NUM_STREAMS == 0:
        return None
    if is_device_cuda(device):
        return STREAMS.setdefault(device, torch.cuda.Stream(device=device, priority=0))
    elif is_device_xpu(device):
        return STREAMS.setdefault(device, torch.xpu.Stream(device=device, priority=0))
    return None

def get_free_memory(dev=None, torch_free_too=False):
    if dev is None:
        dev = get_torch_device()
    if getattr(dev, "type", "") in ("cpu", "mps"):
        total = inside = psutil.virtual_memory().available
    else:
        if directml_enabled:
            total = inside = 1024 ** 3
        elif is_intel_xpu():
            stats = torch.xpu.memory_stats(dev)
            mem_active = stats['active_bytes.all.current']
            mem_reserved = stats['reserved_bytes.all.current']
            mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
            inside = mem_reserved - mem_active
            total = mem_free_xpu + inside
        else:
            stats = torch.cuda.memory_stats(dev)
            inside = stats['reserved_bytes.all.current'] - stats['active_bytes.all.current']
            total = torch.cuda.mem_get_info(dev)[0] + inside
    return (total, inside) if torch_free_too else total

def is_device_type(device, type):
    return getattr(device, "type", "") == type

def is_device_xpu(device):
    return is_device_type(device, 'xpu')

def is_device_cuda(device):
    return is_device_type(device, 'cuda')

def should_use_fp16(device=None):
    if directml_enabled or cpu_state == CPUState.CPU:
        return False
    if is_intel_xpu():
        return torch.xpu.get_device_properties(device).has_fp16
    return torch.cuda.get_device_properties(device).major >= 8

def should_use_bf16(device=None):
    if cpu_state != CPUState.GPU:
        return False
    if is_intel_xpu():
        return torch.xpu.is_bf16_supported()
    return torch.cuda.is_bf16_supported()

def supports_fp8_compute(device=None):
    if not is_nvidia():
        return False
    props = torch.cuda.get_device_properties(device)
    return (props.major, props.minor) >= (8, 9)

def supports_fp64(device=None):
    if is_device_type(device, "mps"):
        return False
    if is_intel_xpu():
        return False
    return not directml_enabled

def soft_empty_cache(force=False):
    if cpu_state == CPUState.MPS:
        torch.mps.empty_cache()
    elif is_intel_xpu():
        torch.xpu.synchronize()
        torch.xpu.empty_cache()
    elif is_ascend_npu():
        torch.npu.empty_cache()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()


def synchronize():
    if is_intel_xpu():
        torch.xpu.synchronize()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_cast_buffers():
    for offload_stream in STREAMS.values():
        offload_stream.synchronize()
    synchronize()
    STREAMS.clear()
    soft_empty_cache()
