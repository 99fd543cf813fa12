"""Which device, how much memory, and what is loaded there."""
import logging
import sys
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
lowvram_available = True

directml_enabled = False
if args.directml is not None:
    import torch_directml
    directml_enabled = True
    directml_device = torch_directml.device(max(args.directml, 0))

try:
    import intel_extension_for_pytorch as ipex
    if torch.xpu.is_available():
        xpu_available = True
except:
    pass

try:
    if torch.backends.mps.is_available():
        cpu_state = CPUState.MPS
except:
    pass

if args.cpu:
    cpu_state = CPUState.CPU

def is_intel_xpu():
    return cpu_state == CPUState.GPU and xpu_available

def get_torch_device():
    if directml_enabled:
        return directml_device
    if cpu_state != CPUState.GPU:
        return torch.device(cpu_state.name.lower())
    if is_intel_xpu():
        return torch.device("xpu", torch.xpu.current_device())
    else:
        return torch.device(torch.cuda.current_device())

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

def is_nvidia():
    global cpu_state
    if cpu_state == CPUState.GPU:
        if torch.version.cuda:
            return True
    return False

current_loaded_models = []

class LoadedModel:
    def __init__(self, model):
        self.model = model
        self.device = model.load_device

    def model_load(self, lowvram_model_memory=0):
        self.real_model = self.model.patch_model(device_to=self.device)
        if is_intel_xpu() and not args.disable_ipex_optimize:
            self.real_model = ipex.optimize(self.real_model.eval(), graph_mode=True, concat_linear=True)
        return self.real_model

    def model_unload(self):
        self.model.unpatch_model(self.model.offload_device)

def unload_all_models():
    while current_loaded_models:
        current_loaded_models.pop().model_unload()

def device_supports_non_blocking(device):
    if getattr(device, "type", "") == "mps":
        return False
    if is_intel_xpu():
        return False
    return True

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
            mem_reserved = stats['reserved_bytes.all.current']
            mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
            inside = mem_reserved - stats['active_bytes.all.current']
            total = mem_free_xpu + inside
        else:
            stats = torch.cuda.memory_stats(dev)
            inside = stats['reserved_bytes.all.current'] - stats['active_bytes.all.current']
            total = torch.cuda.mem_get_info(dev)[0] + inside
    return (total, inside) if torch_free_too else total

def should_use_fp16(device=None):
    if directml_enabled or cpu_state == CPUState.CPU:
        return False
    if is_intel_xpu():
        return True
    return torch.cuda.get_device_properties("cuda").major >= 8

def should_use_bf16(device=None):
    if cpu_state != CPUState.GPU:
        return False
    if is_intel_xpu():
        return True
    return torch.cuda.is_bf16_supported()

def supports_fp8_compute(device=None):
    props = torch.cuda.get_device_properties(device)
    return (props.major, props.minor) >= (8, 9)

def soft_empty_cache(force=False):
    if cpu_state == CPUState.MPS:
        torch.mps.empty_cache()
    elif is_intel_xpu():
        torch.xpu.empty_cache()
    elif torch.cuda.is_available():
        if force or is_nvidia(): # ROCm is left alone unless asked
            torch.cuda.empty_cache()
            torch.cuda.ipc_collect()
