"""Whatever a module looks like: nothing is raised, the result parses, and a second run edits nothing."""

from __future__ import annotations

import ast
from textwrap import indent

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from patchforge.engine.files import look_at
from patchforge.engine.records import apply_segments
from patchforge.proof.differences import Replacement
from patchforge.proof.outside import bytes_outside_edits_equal
from patchforge.proof.static import prove
from patchforge.rules import transforms
from patchforge.vocabulary import FileChange, split_lines

ALL = transforms()
PATHS = (
    "main.py",
    "cuda_malloc.py",
    "execution.py",
    "comfy/model_management.py",
    "comfy/cli_args.py",
    "comfy/ops.py",
    "comfy/float.py",
    "comfy/model_patcher.py",
    "comfy/samplers.py",
    "comfy/ldm/modules/attention.py",
    "comfy_extras/nodes_train.py",
)

statements = st.sampled_from(
    (
        "x = 1",
        "pass; y = 'ü€𝄞'",
        "import os; z = torch.cuda.device_count()",
        "text = '''a\n   b cuda'''",
        "\n# a remark, cuda\nx = [1,\n  2]",
        "torch.cuda.empty_cache()",
        "mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved",
        "mem_free_xpu = probe(dev)",
        "return True",
        "return False",
        "return real_model",
        "return torch.xpu.current_stream()",
        "return torch.nn.functional.scaled_dot_product_attention(q, k, v)",
        "self.real_model = weakref.ref(real_model)",
        "self.real_model = ipex.optimize(self.real_model.eval(), graph_mode=True)",
        "torch.xpu.synchronize()\ntorch.xpu.empty_cache()",
        "torch.xpu.empty_cache()",
        "NUM_STREAMS = 2",
        "cpu_state = CPUState.CPU",
        "os.environ['CUDA_VISIBLE_DEVICES'] = '0'",
        "parser.add_argument('--directml', type=int)",
        "results.append(thread_result(output, 1))",
        "aimdo_device = d.index if d.type == 'cuda' else None",
        "with torch.autocast(enabled=False, device_type = 'cuda'): pass",
        "try:\n    run()\nexcept OOM_EXCEPTION as e:\n    raise",
        "try:\n    xpu_available = torch.xpu.is_available()\nexcept: pass",
        "if is_intel_xpu(): return True",
        "sign: float = 1",
    )
)
heads = st.sampled_from(
    (
        "if is_intel_xpu():",
        "if args.cpu:",
        "if args.cuda_device is not None:",
        "if args.async_offload:",
        "if is_device_xpu(device):",
        "if comfy.model_management.is_device_cuda(device):",
        "if args.enable_dynamic_vram or a():",
        "if int(version[0]) >= 2:",
        "while a:",
        "class LoadedModel:",
        "def model_load(self):",
        "@wrapped\ndef get_free_memory(dev=None):",
        "def soft_empty_cache(force=False):",
        "def reset_cast_buffers():",
        "def should_use_bf16(device=None):",
        "def device_supports_non_blocking(device):",
        "def supports_fp64(device=None):",
        "def supports_fp8_compute(device=None):",
        "def current_stream(device):",
        "def is_oom(e):",
        "def is_nvidia():",
        "def is_device_xpu(device):",
        "def manual_stochastic_round_to_float8(x, dtype):",
        "def attention_split(q, k, v):",
        "def scaled_dot_product_attention(q, k, v):",
        "async def f():",
    )
)


def suite(head: str, body: list[str], width: str, docstring: str) -> str:
    return head + "\n" + indent("\n".join([*([docstring] if docstring else []), *body]), width)


def chain(first: str, second: str) -> str:
    return first + "\n" + second


blocks = st.recursive(
    statements,
    lambda inner: st.one_of(
        st.builds(
            suite,
            heads,
            st.lists(inner, min_size=1, max_size=4),
            st.sampled_from(("    ", "  ", "\t")),
            st.sampled_from(("", '"""What it does."""')),
        ),
        st.builds(chain, inner, inner),
    ),
    max_leaves=10,
)
modules = st.lists(blocks, min_size=1, max_size=6)
starts = st.sampled_from(
    ("", "# coding: utf-8\n", '"""Docstring."""\n', "import torch\n", "from __future__ import annotations\n\n", "\n\n")
)

ROUND = "def manual_stochastic_round_to_float8(x, dtype):\n    "


@given(st.sampled_from(PATHS), starts, modules, st.sampled_from(("\n", "\r\n")), st.booleans(), st.booleans())
@example("comfy/float.py", "", [ROUND + "return True"], "\n", False, True)
@example("comfy/float.py", "", [ROUND + "return x"], "\n", False, True)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_module(  # noqa: PLR0917
    path: str, start: str, parts: list[str], newline: str, final: bool, mark: bool
) -> None:
    text = start + "\n".join(parts) + ("\n" if final else "")
    data = (b"\xef\xbb\xbf" if mark else b"") + text.replace("\n", newline).encode()
    record = look_at(path, data, ALL, {})
    assert look_at(path, data, ALL, {}) == record
    try:
        ast.parse(data)
    except SyntaxError:
        assert record.unreadable or not record.stages
        return
    assert not record.unreadable
    before = data
    for _, segments in record.stages:
        after = apply_segments(before, segments)
        bytes_outside_edits_equal(FileChange(path, before, after, segments))
        ast.parse(after)
        before = after
    assert before.endswith(b"\n") == data.endswith(b"\n")
    assert before.startswith(b"\xef\xbb\xbf") == mark
    if newline == "\r\n" and b"\n" in data:
        assert before.count(b"\n") == before.count(b"\r\n")
    elif newline == "\n":
        assert b"\r" not in before
    assert look_at(path, before, ALL, {}).stages == ()


@given(st.sampled_from(PATHS), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes(path: str, data: bytes) -> None:
    text = b"torch.cuda --directml OOM_EXCEPTION\n" + data
    record = look_at(path, text, ALL, {})
    assert record.unreadable or not record.stages
    assert split_lines(text)


def test_the_grammar_reaches_the_transforms() -> None:
    """The snippets above do what they are there for: put together they make edits that the proof accepts."""
    text = """\
import torch

def get_free_memory(dev=None):
    mem_reserved = 1
    if is_intel_xpu():
        mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved
    return mem_free_xpu
"""
    path = "comfy/model_management.py"
    record = look_at(path, text.encode(), ALL, {})
    data = text.encode()
    for _, segments in record.stages:
        data = apply_segments(data, segments)
    prove(path, text.encode(), data, [Replacement(path, *pair) for place in record.found for pair in place.replaced])
    assert data.count(b"mem_free_xpu = patchforge_xpu") == 2
