# ruff: noqa: E501 - miniatures are shown as they are
"""Traps of real packs and mistakes that people made by hand, each on a miniature of ours."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from patchforge.errors import CheckFailed
from patchforge.nodes.code import Code
from patchforge.nodes.driver import Converted, convert, helpers
from patchforge.nodes.pack import Pack
from patchforge.nodes.proof import prove
from patchforge.nodes.words import Decision, Options


def pack(files: dict[str, str | bytes]) -> Pack:
    data = {path: text if isinstance(text, bytes) else dedent(text).encode() for path, text in files.items()}
    return Pack("miniature", Path("miniature"), dict(sorted(data.items())))


def converted(text: str) -> str:
    """The file after conversion without what was added behind its imports; proved on the way."""
    done = convert(pack({"nodes.py": text}), Options())
    assert not done.problems
    after = done.changes[0].after.decode() if done.changes else dedent(text)
    for change in done.changes:
        prove(Code(change.path, change.before or b""), Code(change.path, change.after))
    for helper in helpers().values():
        after = after.replace(f"\n{helper}\n\n", "")
    return after


def decisions(done: Converted) -> dict[str, str]:
    return {f"{row.path}:{row.line}": str(row.decision) for row in done.rows}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch.cuda as cuda\ncuda.empty_cache()\n", "_patchforge_gpu().empty_cache()"),
        ("from torch.cuda import set_device\nset_device(0)\n", "_patchforge_gpu().set_device(0)"),
        (
            "import torch as th\nx = 'cuda' if th.cuda.is_available() else 'cpu'\n",
            'hasattr(th, "xpu") and th.xpu.is_available()',
        ),
        (
            "import torch.cuda.amp as amp\n@amp.autocast(enabled=False)\ndef f(): pass\n",
            "@_patchforge_autocast(amp.autocast)(enabled=False)",
        ),
        (
            "import torch\nautocast = torch.cuda.amp.autocast\n",
            "autocast = _patchforge_autocast(torch.cuda.amp.autocast)",
        ),
        (
            "import torch\nwith torch.amp.autocast_mode.autocast('cuda'):\n    f()\n",
            "autocast_mode.autocast(_patchforge_device())",
        ),
    ],
)
def test_aliases_are_followed(before: str, after: str) -> None:
    assert after in converted(before)


@pytest.mark.parametrize(
    "text",
    [
        'import torch\nok = hasattr(torch, "cuda") and getattr(torch.version, "cuda", None)\n',
        'impl = "cuda"\nassert impl in ["ref", "cuda"]\n',
        'mode = "sageattn_qk_int8_pv_fp16_cuda"\n',
        'profile(activities=["cpu", "cuda"])\n',
        'from typing import Literal\nBACKEND = Literal["cuda", "triton"]\n',
        'if str(node["value"]).startswith("cuda"):\n    node.copyAttributes(other)\n',
        '# model.cuda()\n\ndef f():\n    """>>> pipe.to("cuda")"""\n',
        "x = torch.device(0)\npipe = pipeline(device=0)\ny = x.to(0)\n",
        "with autocast(mm.get_autocast_device(device)):\n    pass\n",
        'import torch\nif torch.cuda.is_available():\n    probe_flash_attention(torch.zeros(1, device="cuda"))\n',
        'LABEL = {"CUDA": "NVIDIA"}\n',
        "import torch\ntry:\n    import xformers\n    xformers.ops.memory_efficient_attention(torch.randn(1, device='cuda'))\nexcept Exception:\n    pass\n",
    ],
)
def test_what_is_no_device_stays(text: str) -> None:
    done = convert(pack({"nodes.py": text}), Options())
    assert not done.changes
    assert all(row.decision is Decision.LEFT and row.reason for row in done.rows)


def test_only_the_reachable_production_files_change() -> None:
    site = 'x = net.to("cuda")\n'
    done = convert(
        pack(
            {
                "__init__.py": "from .nodes import NODE_CLASS_MAPPINGS\n",
                "nodes.py": "from .lib import model\nNODE_CLASS_MAPPINGS = {}\n",
                "lib/__init__.py": "",
                "lib/model.py": site,
                "lib/orphan.py": site,
                "lib/named.py": site,
                "config.yaml": "target: lib.named.Net\n",
                "kernels.py": "import cupy\n" + site,
                "train.py": site,
                "tests/test_model.py": site,
            }
        ),
        Options(),
    )
    assert [change.path for change in done.changes] == ["lib/model.py", "lib/named.py"]
    assert {row.path for row in done.rows if not row.production} == {
        "kernels.py",
        "lib/orphan.py",
        "tests/test_model.py",
        "train.py",
    }


def test_what_stands_under_main_stays() -> None:
    assert "cuda()" in converted('import torch\nif __name__ == "__main__":\n    net.cuda()\n')


def test_a_function_for_torchscript_stays() -> None:
    text = 'import torch\n\n@torch.jit.script\ndef f(x):\n    return x.to("cuda")\n'
    assert converted(text) == text


def test_its_author_may_say_leave() -> None:
    text = 'x = y.to("cuda")  # patchforge: leave\n'
    assert converted(text) == text


@pytest.mark.parametrize("name", ["crlf", "bom", "no last line end", "tabs", "umlauts"])
def test_bytes_outside_the_edits_stay(name: str) -> None:
    text = b"import torch\n\ndef f(x):\n    return x.cuda()  # \xc3\xa4\n"
    data = {
        "crlf": text.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + text,
        "no last line end": text.rstrip(b"\n"),
        "tabs": text.replace(b"    ", b"\t"),
        "umlauts": text.replace(b"return x", b"return {'\xc3\xa4\xc3\xb6': x}['\xc3\xa4\xc3\xb6']"),
    }[name]
    (change,) = convert(pack({"nodes.py": data}), Options()).changes
    end = "\r\n" if name == "crlf" else "\n"
    ours = "".join(f"\n{helpers()[one]}\n\n".replace("\n", end) for one in ("_patchforge_xpu", "_patchforge_device"))
    first, rest = data[: data.index(b"\n") + 1], data[data.index(b"\n") + 1 :]
    assert change.after == first + ours.encode() + rest.replace(b".cuda()", b".to(_patchforge_device())")


# --- what people did by hand ---------------------------------------------------------------------------------------


def test_cuda_comes_first() -> None:
    text = converted('import torch\nd = "cuda" if torch.cuda.is_available() else "cpu"\n')
    assert text.index('"cuda"') < text.index('"xpu"') < text.index('"cpu"')


def test_a_blanket_replacement_is_refused() -> None:
    before = Code("nodes.py", b"import torch\nd = torch.device('cuda')\n")
    after = Code("nodes.py", b"import torch\nd = torch.device('xpu')\n")
    with pytest.raises(CheckFailed, match="on CUDA alone"):
        prove(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # a device object where a string was
        ('d = "cuda"\n', "d = torch.device(_patchforge_device())\n"),
        # an XPU before CUDA
        (
            'import torch\nd = "cuda" if torch.cuda.is_available() else "cpu"\n',
            'import torch\nd = "xpu" if torch.xpu.is_available() else "cuda" if torch.cuda.is_available() else "cpu"\n',
        ),
        # another order of calls
        (
            "import torch\nx = (torch.cuda.synchronize(), torch.cuda.empty_cache())\n",
            "import torch\nx = (torch.cuda.empty_cache(), torch.cuda.synchronize())\n",
        ),
        # a call that no XPU has
        (
            "import torch\nx = torch.cuda.ipc_collect()\n",
            "import torch\nx = (torch.xpu if torch.xpu.is_available() and not torch.cuda.is_available() else torch.cuda).ipc_collect()\n",
        ),
        # a second definition that shadows the first
        ("def get_device():\n    return 1\n", "def get_device():\n    return 2\n\ndef get_device():\n    return 1\n"),
        # CUDA in the arm for XPUs
        (
            "import torch\nif torch.cuda.is_available():\n    d = 'cuda'\n",
            "import torch\nif torch.cuda.is_available():\n    d = 'cuda'\nelif torch.xpu.is_available():\n    d = 'cuda'\n",
        ),
    ],
)
def test_the_proof_refuses(before: str, after: str) -> None:
    with pytest.raises(CheckFailed):
        prove(Code("nodes.py", before.encode()), Code("nodes.py", after.encode()))


def test_nothing_is_defined_twice() -> None:
    text = converted(
        "import torch\n\ndef get_device():\n    if torch.cuda.is_available():\n        return 'cuda'\n    return 'cpu'\n"
    )
    assert text.count("def get_device") == 1
    assert "return 'xpu'" in text


def test_no_provider_is_called_xpu() -> None:
    text = converted("import onnxruntime\nC = (['CPU', 'CUDA'],)\nname = provider + 'ExecutionProvider'\n")
    assert '"OpenVINO"' in text
    assert not re.search(r"[\"']XPU", text)


def test_an_explicit_choice_is_kept() -> None:
    space: dict[str, object] = {}
    for text in helpers().values():
        exec(text.replace("import torch", "torch = fake"), space)

    class Torch:
        class cuda:
            is_available = staticmethod(lambda: False)

        class xpu:
            is_available = staticmethod(lambda: True)

    space["fake"] = Torch
    choice = space["_patchforge_choice"]
    assert callable(choice)
    assert [choice(one) for one in ("cpu", "auto", "cuda", "cuda:1", None)] == ["cpu", "auto", "xpu", "xpu:1", None]
    Torch.cuda.is_available = staticmethod(lambda: True)
    assert [choice(one) for one in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


def test_ipc_collect_is_never_asked_of_an_xpu() -> None:
    text = converted(
        "import torch\nif torch.cuda.is_available():\n    torch.cuda.empty_cache()\n    torch.cuda.ipc_collect()\ntorch.cuda.ipc_collect()\n"
    )
    assert "torch.xpu.empty_cache()" in text
    assert "xpu.ipc_collect" not in text
    assert "None if _patchforge_xpu() else torch.cuda.ipc_collect()" in text


def test_tensors_are_not_asked_for_is_xpu() -> None:
    assert "is_xpu" not in converted("import torch\nif x.is_cuda:\n    torch.cuda.empty_cache()\n")


def test_gates_take_xpus_in_behind_cuda() -> None:
    text = converted(
        "import torch\nif gpu and torch.cuda.is_available():\n    for part in parts:\n        part.cuda()\n"
    )
    assert "(torch.cuda.is_available() or _patchforge_xpu())" in text
