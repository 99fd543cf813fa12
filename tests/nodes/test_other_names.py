"""CUDA by other names: each is listed with what to do, and what only looks so is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforge.nodes.convert import Converted, convert
from patchforge.nodes.pack import Pack
from patchforge.pattern import Options
from patchforge.vocabulary import Decision

START = "import importlib, operator, os, subprocess, sys\nimport torch\nNODE_CLASS_MAPPINGS = {}\n"

PERSON = [
    # types, as texts and called
    "x = x.type('torch.cuda.FloatTensor')",
    "torch.set_default_tensor_type('torch.cuda.HalfTensor')",
    "same = x.type() == 'torch.cuda.BFloat16Tensor'",
    "x = torch.cuda.FloatTensor(3)",
    "name = f'torch.cuda.{kind}Tensor'",
    # inside of torch, and its other parts
    "n = torch._C._cuda_getDeviceCount()",
    "torch._C._cuda_clearCublasWorkspaces()",
    "if hasattr(torch._C, '_cuda_f'):\n    pass\nelse:\n    torch._C._cuda_f()",
    "if hasattr(torch._C, '_cuda_g'):\n    torch._C._cuda_f()",
    "activities = [torch.profiler.ProfilerActivity.CUDA]",
    "from torch.profiler import ProfilerActivity as A\nactivities = [A.CUDA]",
    "model = torch.compile(model, backend='cudagraphs')",
    "with torch.autograd.profiler.emit_nvtx():\n    f()",
    "with torch.autograd.profiler.profile(use_cuda=True):\n    f()",
    # torch.cuda in other ways
    "importlib.import_module('torch.cuda').empty_cache()",
    "importlib.import_module('.cuda', 'torch').empty_cache()",
    "sys.modules['torch.cuda'].empty_cache()",
    "sys.modules['torch'].cuda.empty_cache()",
    "__import__('torch').cuda.empty_cache()",
    "t = __import__('torch')\nt.cuda.empty_cache()",
    "globals()['torch'].cuda.FloatTensor(3)",
    "vars(torch)['cuda'].empty_cache()",
    "torch.__dict__['cuda'].empty_cache()",
    "getattr(torch, 'cuda').empty_cache()",
    "x = getattr(x, 'cuda')()",
    "setattr(torch, 'cuda', other)",
    "n = operator.attrgetter('cuda.device_count')(torch)",
    "x = operator.methodcaller('cuda')(x)",
    "from torch import *\nok = cuda.is_available()",
    "from torch.cuda import *\nok = is_available()",
    # the device's name in other words
    "ok = device.upper() == 'CUDA'",
    "ok = device in ('CUDA', 'CPU')",
    "ok = device == 'CUDA'.lower()",
    "d = torch.device('CUDA')",
    "x = x.to('CUDA:0')",
    "x = make(device='Cuda')",
    "match name:\n    case 'CUDA':\n        f()",
    "match name:\n    case 'cuda':\n        f()",
    "match name:\n    case {'cuda': n}:\n        f()",
    "x = {'cuda': 1, 'cpu': 2}[kind]",
    "x = dict(cuda=1, cpu=2)[kind]",
    "ok = device.type in ('cuda',)",
    "ok = name == b'cuda'",
    "show(f'cuda:{i}')",
    # NVIDIA's tools
    "subprocess.run(['nvidia-smi', '-q'])",
    "subprocess.run('/usr/bin/nvidia-smi --query-gpu=name', shell=True)",
    "os.system(f'nvidia-smi -i {i}')",
    "import pynvml\npynvml.nvmlInit()",
    "from pynvml import nvmlInit\nnvmlInit()",
    "import pynvml as n\nn.nvmlInit()",
    "from pynvml import *\nnvmlInit()",
    "import ctypes\nctypes.CDLL('libcuda.so.1')",
    "import ctypes\nctypes.WinDLL('C:/cudart64_110.dll')",
    "call(stream.cuda_stream)",
    # the environment
    "os.environ['CUDA_VISIBLE_DEVICES'] = '0'",
    "os.environ.update(CUDA_VISIBLE_DEVICES='0')",
    "env = dict(os.environ, CUDA_VISIBLE_DEVICES='0')",
    "os.putenv('CUDA_DEVICE_ORDER', 'PCI_BUS_ID')",
    "os.environ['NVIDIA_VISIBLE_DEVICES'] = '0'",
    "os.environ['_CUDA_VISIBLE_DEVICES'] = '0'",
    "ok = os.environ.get('PYTORCH_DISABLE_CUDA_GRAPH')",
    "torch._C._cuda_getCurrentRawStream = mine",
    "torch._inductor.config.triton.cudagraph_trees = False",
    "from torch.nn.attention import SDPBackend\nbackends = [SDPBackend.CUDNN_ATTENTION]",
    "library.cudaDeviceCanAccessPeer(1, 2)",
    "os.system(f'CUDA_VISIBLE_DEVICES={i} python run.py')",
    # code in a text
    "ok = eval('torch.cuda.is_available()')",
    "exec('x = x.cuda()')",
    "subprocess.run([sys.executable, '-c', 'import torch; torch.cuda.init()'])",
]

LEFT = [
    "torch.backends.cudnn.benchmark = True",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "print(prof.key_averages().table(sort_by='self_cuda_time_total'))",
    "t = event.cuda_time_total",
    "ok = torch.has_cuda",
    "torch.compiler.cudagraph_mark_step_begin()",
    "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'",
    "os.environ['NCCL_DEBUG'] = 'INFO'",
    "os.environ['TORCH_CUDA_ARCH_LIST'] = '8.0'",
    "os.environ.setdefault('PYTORCH_CUDA_ALLOC_CONF', 'expandable_segments:True')",
    "ok = torch.distributed.is_nccl_available()",
    "import pynvml\ntry:\n    pynvml.nvmlInit()\nexcept Exception:\n    pass",
    "LABELS = {'CUDA': 'NVIDIA'}",
    "ok = hasattr(torch, 'cuda')",
    "torch._C._cuda_f() if hasattr(torch._C, '_cuda_f') else None",
    "hasattr(torch._C, '_cuda_f') and torch._C._cuda_f()",
    "choices = (['inductor', 'cudagraphs'],)",
    "kernel(stream.cuda_stream)",
    "ok = 'CUBLAS_STATUS_NOT_SUPPORTED' in str(error)",
]

NONE = [
    "print('nvidia-smi was not found: is the driver of CUDA there?')",
    "raise RuntimeError(f'nvidia-smi failed: {error}')",
    "use_cuda = opt.use_cuda",
    "cuda_graph = self.cuda_graphs[cuda_stream]",
    "import cupy\ncupy.cuda.Device(0)",
    "path = 'kernels/cuda/add.cu'",
    "nvml_handle = self.nvml_handle",
    "from torch import *\ncuda = mine()\ncuda.is_available()",
    "from torch.cuda import *\ndef is_available():\n    pass\nis_available()",
    "message = 'torch.cuda.is_available() says no'",
    "run('model', cuda_memory=3)",
]


def looked_at(text: str) -> Converted:
    done = convert(Pack("p", Path("p"), {"__init__.py": (START + text + "\n").encode()}), Options())
    assert not done.problems
    return done


@pytest.mark.parametrize("text", PERSON)
def test_it_is_listed_with_what_to_do(text: str) -> None:
    done = looked_at(text)
    (reason,) = {site.reason for site in done.sites if site.decision is Decision.PERSON}
    assert reason
    assert not done.changes


@pytest.mark.parametrize("text", LEFT)
def test_it_is_left_with_a_reason(text: str) -> None:
    done = looked_at(text)
    assert done.sites
    assert all(site.decision is Decision.LEFT and site.reason for site in done.sites)


@pytest.mark.parametrize("text", NONE)
def test_it_is_no_name_of_cuda(text: str) -> None:
    assert [site for site in looked_at(text).sites if site.kind == "another name of CUDA"] == []


@pytest.mark.parametrize(
    "inner",
    [
        "torch._C._cuda_clearCublasWorkspaces()",
        "subprocess.run(['nvidia-smi'])",
        "importlib.import_module('torch.cuda').empty_cache()",
        "pynvml.nvmlInit()",
    ],
)
def test_a_test_for_cuda_before_it_stays(inner: str) -> None:
    """What would not run on an XPU gets no arm there, whatever stands beside it."""
    done = looked_at(f"import pynvml\nif torch.cuda.is_available():\n    torch.cuda.empty_cache()\n    {inner}\n")
    after = done.changes[0].after.decode() if done.changes else ""
    assert "elif" not in after
    assert "is_available() or" not in after
