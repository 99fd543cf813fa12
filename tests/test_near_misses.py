"""A place that a transform knows, and beside it one that is nearly that: a person must look."""
# ruff: noqa: E501, ISC004 - miniatures of code, a line of theirs on a line

from __future__ import annotations

from textwrap import dedent

import pytest

from patchforge.rules import transforms
from patchforge.vocabulary import Outcome
from tests.support import MemoryTree, engine_of, release

BY_ID = {transform.id: transform for transform in transforms()}
#: (transform, path, version, the place as it is known, the near miss)
CASES = (
    (
        "free-memory",
        "comfy/model_management.py",
        "v0.33.0",
        "def get_free_memory(dev):\n    if is_intel_xpu():\n        mem_reserved = 1\n"
        "        mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved\n",
        (
            "        mem_free_xpu = probe(dev)\n",
            "        mem_free_xpu -= 1\n",
            "        mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - reserved\n",
            "        mem_free_xpu = torch.xpu.get_device_properties(0).total_memory - mem_reserved\n",
            "        x = 1; mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved; use(x)\n",
        ),
    ),
    (
        "oom-handlers",
        "execution.py",
        "v0.3.47",
        "def run(ex):\n    if isinstance(ex, OOM_EXCEPTION):\n        free()\n",
        ("    if isinstance(ex.args[0], OOM_EXCEPTION):\n        free()\n",),
    ),
    (
        "attention-memory",
        "comfy/ops.py",
        "v0.33.0",
        "import torch\ndef scaled_dot_product_attention(q, k, v):\n"
        "    return torch.nn.functional.scaled_dot_product_attention(q, k, v)\n",
        (
            "attended = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)\n",
            "kernels = {'torch': torch.nn.functional.scaled_dot_product_attention}\n",
            "def scaled_dot_product_attention(q):\n"
            "    attend = torch.nn.functional.scaled_dot_product_attention\n    return attend(q)\n",
        ),
    ),
    (
        "empty-cache",
        "comfy/model_management.py",
        "v0.33.0",
        "def soft_empty_cache():\n    if is_intel_xpu():\n        torch.xpu.empty_cache()\n",
        (
            "        torch.xpu.empty_cache()\n",
            "    if is_intel_xpu():\n        torch.xpu.empty_cache(); done()\n",
            "    if is_intel_xpu(): torch.xpu.empty_cache()\n",
            "    if not is_intel_xpu():\n        torch.xpu.empty_cache()\n",
            "    if is_intel_xpu():\n        torch.xpu.empty_cache(all=True)\n",
        ),
    ),
    (
        "non-blocking",
        "comfy/model_management.py",
        "v0.33.0",
        "def device_supports_non_blocking(device):\n    if is_intel_xpu():\n        return False\n",
        ("    if is_intel_xpu(): return False\n", "    if is_intel_xpu():\n        return 0\n"),
    ),
    (
        "ipex-repair",
        "comfy/model_management.py",
        "v0.0.1",
        "class LoadedModel:\n    def model_load(self):\n        if is_intel_xpu():\n"
        "            self.m = ipex.optimize(self.m.eval())\n",
        (
            "        if args.ipex:\n            self.m = ipex.optimize(self.m.eval())\n",
            "        if not is_intel_xpu():\n            self.m = ipex.optimize(self.m.eval())\n",
            "        if is_intel_xpu():\n            self.m = ipex.optimize(load(self).eval())\n",
        ),
    ),
    (
        "bf16",
        "comfy/model_management.py",
        "v0.33.0",
        "def should_use_bf16(device=None):\n    if is_intel_xpu():\n        return True\n",
        (
            "    if is_intel_xpu():\n        return torch.xpu.is_bf16_supported(False)\n",
            "    if is_intel_xpu(): return True\n",
        ),
    ),
    (
        "kitchen-triton",
        "comfy/quant_ops.py",
        "v0.33.0",
        'try:\n    import comfy_kitchen as ck\n    ck.registry.disable("triton")\n',
        (
            '    registry.disable("triton")\nexcept ImportError:\n    pass\n',
            '    if old: ck.registry.disable("triton", why)\nexcept ImportError:\n    pass\n',
        ),
    ),
    (
        "dynamic-vram",
        "comfy/model_patcher.py",
        "v0.33.0",
        "class ModelPatcherDynamic:\n    def get_free_memory(self, device):\n"
        '        aimdo_device = device.index if getattr(device, "type", None) == "cuda" else None\n',
        ('        aimdo_device = device.index if device.type == "cuda" else None\n',),
    ),
    (
        "current-stream",
        "comfy/model_management.py",
        "v0.33.0",
        "def current_stream(device):\n    if is_device_xpu(device):\n        return torch.xpu.current_stream()\n",
        ("    if is_device_xpu(device):\n        return torch.xpu.current_stream(device.index)\n",),
    ),
    (
        "dual-build",
        "comfy/model_management.py",
        "v0.33.0",
        "def is_nvidia():\n    if cpu_state == CPUState.GPU:\n        return True\n    return False\n",
        (
            "if args.cpu or other:\n    cpu_state = CPUState.CPU\n",
            "if args.cpu_only: cpu_state = CPUState.CPU\n",
            "def is_amd():\n    return cpu_state == CPUState.GPU and torch.version.hip\n",
        ),
    ),
    (
        "load-synchronize",
        "comfy/model_patcher.py",
        "v0.33.0",
        "class ModelPatcher:\n    def load(self, device_to):\n        if is_device_cuda(device_to):\n"
        "            torch.cuda.synchronize()\n        done()\n",
        (
            "        if is_device_cuda(device_to):\n            torch.cuda.synchronize()\n            done()\n",
            "        if is_device_cuda(device_to):\n            torch.cuda.synchronize(device_to)\n",
            "        if is_device_cuda(device_to) and fast:\n            torch.cuda.synchronize()\n",
            "        if is_device_cuda(device_to):\n            torch.cuda.synchronize()\n        else:\n            done()\n",
            "        if is_device_cuda(devices[0]):\n            torch.cuda.synchronize()\n",
            "        if is_device_cuda(device_to):\n            torch.cuda.synchronize(); done()\n",
        ),
    ),
    (
        "train-cache",
        "comfy_extras/nodes_train.py",
        "v0.33.0",
        "import torch\ndef train():\n    torch.cuda.empty_cache()\n",
        (
            "    x = torch.cuda.empty_cache()\n",
            "    if x: torch.cuda.empty_cache()\n",
            "    torch.cuda.empty_cache(); done()\n",
            "    atexit.register(torch.cuda.empty_cache)\n",
        ),
    ),
    (
        "sam3-prefetch",
        "comfy/ldm/sam3/tracker.py",
        "v0.33.0",
        "import torch\ndef track(device):\n    if is_device_cuda(device):\n        s = torch.cuda.Stream(device=device)\n",
        ("    if fast and is_device_cuda(device):\n        s = torch.cuda.Stream(device=device)\n",),
    ),
    (
        "multigpu-sync",
        "comfy/samplers.py",
        "v0.33.0",
        "def batch(device, output_device, results):\n    results.append(thread_result(output, 1))\n",
        (
            "    results.append(thread_result(outcome, 1))\n",
            "    others.append(thread_result(output, 1))\n",
            "    if x: results.append(thread_result(output, 1))\n",
        ),
    ),
    (
        "autocast-device",
        "comfy/ldm/modules/attention.py",
        "v0.33.0",
        "import torch\ndef attend(q):\n    with torch.autocast(enabled=False, device_type='cuda'):\n        pass\n",
        (
            "    with torch.autocast('cuda' if x else y):\n        pass\n",
            "def other(x):\n    with torch.autocast('cuda'):\n        pass\n",
        ),
    ),
    (
        "device-asked",
        "comfy/model_management.py",
        "v0.33.0",
        "def get_total_memory(dev):\n    if is_intel_xpu():\n        return 1\n",
        ("def get_free_memory(dev):\n    if is_intel_xpu() and fast:\n        return 1\n",),
    ),
    (
        "model-layout",
        "comfy/model_management.py",
        "v0.33.0",
        "class LoadedModel:\n    def model_load(self):\n        if x:\n            return real_model\n",
        ("        return load(self)\n", "        return\n", "        if y: return real_model\n"),
    ),
    (
        "cast-buffers",
        "comfy/model_management.py",
        "v0.33.0",
        "def reset_cast_buffers():\n    synchronize()\n",
        ("    stream.synchronize()\n", "    torch.cuda.synchronize(device)\n"),
    ),
)
FLAT = [(name, path, version, known, near) for name, path, version, known, nears in CASES for near in nears]


def outcome(name: str, path: str, version: str, text: str) -> tuple[Outcome, int]:
    report = engine_of((BY_ID[name],)).convert(release(version), MemoryTree({path: text.encode()})).reports[0]
    return report.outcome, sum(place.outcome is Outcome.APPLIED for _, place in report.found)


@pytest.mark.parametrize(
    ("name", "path", "version", "known", "near"), FLAT, ids=[f"{case[0]}-{case[4].strip()}" for case in FLAT]
)
def test_a_near_miss_beside_a_known_place_needs_a_person(
    name: str, path: str, version: str, known: str, near: str
) -> None:
    tail = "except ImportError:\n    pass\n" if known.startswith("try:") else ""
    assert outcome(name, path, version, known + tail)[0] is Outcome.APPLIED
    assert outcome(name, path, version, known + near)[0] is Outcome.DRIFTED


def test_two_places_are_two_however_one_is_written() -> None:
    known = """\
        class ModelPatcher:
            def load(self, d):
                if is_device_cuda(d):
                    torch.cuda.synchronize()
                if is_device_cuda(d,):  # why
                    # and how
                    ( torch . cuda.synchronize( ) )  ; # done
                    # and so on
                done()
        """
    assert outcome("load-synchronize", "comfy/model_patcher.py", "v0.33.0", dedent(known)) == (Outcome.APPLIED, 2)


@pytest.mark.parametrize(
    ("name", "path", "version", "text", "wanted"),
    [
        (
            "ipex-opt-in",
            "comfy/model_management.py",
            "v0.33.0",
            "# ipex.optimize is gone\nclass LoadedModel:\n    # ipex.optimize(m)\n    def model_load(self):\n"
            "        real_model = 1\n        self.real_model = weakref.ref(real_model)\n",
            Outcome.APPLIED,
        ),
        (
            "visible-devices",
            "main.py",
            "v0.33.0",
            "if args.cuda_device:  # ZE_AFFINITY_MASK\n"
            "    os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)\n",
            Outcome.APPLIED,
        ),
        (
            "oneapi-selector",
            "comfy/cli_args.py",
            "v0.2.3",
            'parser.add_argument("--directml")\n# parser.add_argument("--oneapi-device-selector")\n',
            Outcome.APPLIED,
        ),
        (
            "async-offload",
            "comfy/model_management.py",
            "v0.3.40",
            "if args.async_offload:\n    NUM_STREAMS = 2\n    # def is_device_xpu(device):\n",
            Outcome.ABSENT,
        ),
        (
            "oom-level-zero",
            "comfy/model_management.py",
            "v0.33.0",
            'def is_oom(e):\n    """Not UR_RESULT_ERROR."""\n    # UR_RESULT_ERROR\n    return False\n',
            Outcome.APPLIED,
        ),
        (
            "fp64",
            "comfy/model_management.py",
            "v0.33.0",
            "# patchforge_xpu.fp64(False, device) would help\n"
            "def supports_fp64(device):\n    if is_intel_xpu():\n        return False\n",
            Outcome.APPLIED,
        ),
    ],
)
def test_what_a_comment_says_is_no_fact(name: str, path: str, version: str, text: str, wanted: Outcome) -> None:
    assert outcome(name, path, version, text)[0] is wanted
