# ruff: noqa: E501 - miniatures are shown as they are
"""Traps of real packs and mistakes that people made by hand, each on a miniature of ours."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from patchforge.errors import CheckFailed
from patchforge.nodes.convert import Converted, convert
from patchforge.nodes.pack import Pack
from patchforge.pattern import Options
from patchforge.proof.packs.helpers import helpers
from patchforge.proof.packs.pairing import prove
from patchforge.vocabulary import Decision
from tests.support import without_helpers


def pack(files: dict[str, str | bytes]) -> Pack:
    data = {path: text if isinstance(text, bytes) else dedent(text).encode() for path, text in files.items()}
    return Pack("miniature", Path("miniature"), dict(sorted(data.items())))


def converted(text: str) -> str:
    """The file after conversion without what was added behind its imports; proved on the way."""
    done = convert(pack({"nodes.py": text}), Options())
    assert not done.problems
    after = done.changes[0].after.decode() if done.changes else dedent(text)
    for change in done.changes:
        prove(change.path, change.before or b"", change.after)
    return without_helpers(after.encode(), dedent(text))


def decisions(done: Converted) -> dict[str, str]:
    return {f"{row.path}:{row.line}": str(row.decision) for row in done.sites}


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
    assert all(row.decision is Decision.LEFT and row.reason for row in done.sites)


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
    assert {site.path for site in done.skipped} == {
        "kernels.py",
        "lib/orphan.py",
        "tests/test_model.py",
        "train.py",
    }


def test_what_stands_under_main_stays() -> None:
    assert "cuda()" in converted('import torch\nif __name__ == "__main__":\n    net.cuda()\n')


@pytest.mark.parametrize(
    "text",
    [
        'import torch\n\n@torch.jit.script\ndef f(x):\n    return x.to("cuda")\n',
        'import torch\n\n@torch.jit.script\ndef f(x):\n    return g(x)\n\ndef g(x):\n    return x.to("cuda")\n',
        'import torch\n\ndef f(x):\n    return x.to("cuda")\n\nfast = torch.jit.script(f)\n',
        'from torch import jit\n\nclass Net:\n    def forward(self, x):\n        return x.to("cuda")\n\nnet = jit.script(Net())\n',
    ],
)
def test_what_torchscript_compiles_stays(text: str) -> None:
    assert converted(text) == text


@pytest.mark.parametrize(
    "text",
    [
        'import torch\n\n@torch.jit.ignore\ndef f(x):\n    return x.to("cuda")\n',
        'import torch\n\ndef f(x):\n    return x.to("cuda")\n\nnet = torch.jit.load("net.pt")\n',
        'import torch\n\nnet = torch.jit.script(net.to("cuda"))\n',
    ],
)
def test_what_is_beside_torchscript_does_not_stay(text: str) -> None:
    assert '.to("cuda")' not in converted(text)


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
    ours = (
        "".join(f"\n\n{helpers()[name]}\n" for name in ("_patchforge_xpu", "_patchforge_device")) + "\n"
    )  # one is there
    ours = ours.replace("\n", end)
    first, rest = data[: data.index(b"\n") + 1], data[data.index(b"\n") + 1 :]
    assert change.after == first + ours.encode() + rest.replace(b".cuda()", b".to(_patchforge_device())")


# --- what people did by hand ---------------------------------------------------------------------------------------


def test_cuda_comes_first() -> None:
    text = converted('import torch\nd = "cuda" if torch.cuda.is_available() else "cpu"\n')
    assert text.index('"cuda"') < text.index('"xpu"') < text.index('"cpu"')


def test_a_blanket_replacement_is_refused() -> None:
    before, after = (f"import torch\nd = torch.device('{kind}')\n".encode() for kind in ("cuda", "xpu"))
    with pytest.raises(CheckFailed, match="on CUDA alone"):
        prove("nodes.py", before, after)


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
        prove("nodes.py", before.encode(), after.encode())


@pytest.mark.parametrize("wish", list(itertools.product(("", "not "), repeat=4)))
def test_every_way_through_an_expression_is_looked_at(wish: tuple[str, ...]) -> None:
    asked = " and ".join(f"{no}{name}" for no, name in zip(wish, "abcd", strict=True))
    before, after = (f"x = {value} if {asked} else other\n".encode() for value in ("'cuda'", "'cuda:0'"))
    with pytest.raises(CheckFailed, match="on CUDA alone"):
        prove("nodes.py", before, after)


def test_too_many_ways_are_no_proof() -> None:
    asked = " + ".join(f"bool(a{number})" for number in range(9))
    before, after = (f"x = [{value}, {asked}]\n".encode() for value in ("1", "2 - 1"))
    with pytest.raises(CheckFailed, match="more than 256 ways"):
        prove("nodes.py", before, after)


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
    assert [choice(device) for device in ("cpu", "auto", "cuda", "cuda:1", None)] == [
        "cpu",
        "auto",
        "xpu",
        "xpu:1",
        None,
    ]
    Torch.cuda.is_available = staticmethod(lambda: True)
    assert [choice(device) for device in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


def test_ipc_collect_is_never_asked_of_an_xpu() -> None:
    text = converted(
        "import torch\nif torch.cuda.is_available():\n    torch.cuda.empty_cache()\n    torch.cuda.ipc_collect()\ntorch.cuda.ipc_collect()\n"
    )
    assert "torch.xpu.empty_cache()" in text
    assert "xpu.ipc_collect" not in text
    assert "if not _patchforge_xpu():\n    torch.cuda.ipc_collect()\n" in text


def test_what_has_no_is_xpu_is_not_read() -> None:
    assert ".is_xpu" not in converted("import torch\nif x.is_cuda:\n    torch.cuda.empty_cache()\n")


def test_gates_take_xpus_in_behind_cuda() -> None:
    text = converted(
        "import torch\nif gpu and torch.cuda.is_available():\n    for part in parts:\n        part.cuda()\n"
    )
    assert "torch.cuda.is_available() or _patchforge_xpu()" in text


# --- a pack's own question -----------------------------------------------------------------------------------------

MEMORY = """
import torch

def has_gpu():
    \"\"\"Whether CUDA is there.\"\"\"
    return torch.cuda.is_available()

def device_list(cpu=False):
    found = []
    try:
        if has_gpu():
            found += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    except Exception:
        pass
    return (["cpu"] if cpu else []) + found
"""
ASKING: dict[str, str | bytes] = {
    "__init__.py": "from .nodes import NODE_CLASS_MAPPINGS\n",
    "nodes.py": "from .lib import loader, plain, kernels\nNODE_CLASS_MAPPINGS = {}\n",
    "lib/__init__.py": "",
    "lib/memory.py": MEMORY,
    "lib/loader.py": """
        import torch
        import pack.lib.memory
        from . import memory as own
        from .memory import has_gpu as there

        def free(x):
            if there():
                torch.cuda.empty_cache()
            elif own.has_gpu():
                torch.cuda.synchronize()
            elif pack.lib.memory.has_gpu():
                torch.cuda.synchronize()
            elif x.has_gpu():
                x.free()
        """,
    "lib/plain.py": "from .memory import has_gpu\n\ndef f(mps):\n    on = mps or has_gpu()\n    return 1 if on else 2\n",
    "lib/kernels.py": """
        from .memory import has_gpu

        def attention(q):
            if has_gpu():
                from flash_attn import run
                return run(q)
            return plain(q)
        """,
}


def test_a_packs_own_question_is_followed_to_those_who_ask() -> None:
    done = convert(pack(ASKING), Options())
    after = {change.path: change.after.decode() for change in done.changes}
    assert set(after) == {"lib/loader.py", "lib/memory.py", "lib/plain.py"}
    assert "    return torch.cuda.is_available()\n" in after["lib/memory.py"]
    assert "if has_gpu() or _patchforge_xpu():" in after["lib/memory.py"]
    assert "if there() or _patchforge_xpu():" in after["lib/loader.py"]
    assert "elif own.has_gpu() or _patchforge_xpu():" in after["lib/loader.py"]
    assert "elif pack.lib.memory.has_gpu() or _patchforge_xpu():" in after["lib/loader.py"]
    assert "elif x.has_gpu():" in after["lib/loader.py"]
    assert "on = mps or _patchforge_xpu() or has_gpu()" in after["lib/plain.py"]
    assert decisions(done)["lib/kernels.py:5"] == "left"
    assert decisions(done)["lib/memory.py:6"] == "left"
    for change in done.changes:
        prove(change.path, change.before or b"", change.after)


@pytest.mark.parametrize(
    "other",
    [
        "def has_gpu():\n    return torch.cuda.is_available() and wanted\n",
        "def has_gpu(index):\n    return torch.cuda.is_available()\n",
        "def has_gpu():\n    print()\n    return torch.cuda.is_available()\n",
        "class A:\n    def has_gpu(self):\n        return torch.cuda.is_available()\n",
        "def has_gpu():\n    return other.has_gpu()\n\ndef has():\n    return torch.cuda.is_available()\n",
    ],
)
def test_what_says_more_is_no_plain_answer(other: str) -> None:
    text = "import torch\n\n" + other + "\nif has_gpu():\n    torch.cuda.empty_cache()\n"
    assert "if has_gpu():" in converted(text)


class Backend:
    def __init__(self, count: int) -> None:
        self.count = count

    def is_available(self) -> bool:
        return self.count > 0

    def device_count(self) -> int:
        return self.count


@pytest.mark.parametrize(
    ("cuda", "xpu", "expected"),
    [(2, 0, ["cuda:0", "cuda:1"]), (2, 1, ["cuda:0", "cuda:1"]), (0, 2, ["xpu:0", "xpu:1"]), (0, 0, [])],
)
def test_a_device_list_is_as_it_was_on_cuda(cuda: int, xpu: int, expected: list[str]) -> None:
    torch = ModuleType("torch")
    torch.cuda, torch.xpu = Backend(cuda), Backend(xpu)  # type: ignore[attr-defined]
    (change,) = convert(pack({"memory.py": MEMORY}), Options()).changes
    lists = []
    for data in (change.before, change.after):
        space: dict[str, object] = {}
        with pytest.MonkeyPatch.context() as patched:
            patched.setitem(sys.modules, "torch", torch)
            exec((data or b"").decode(), space)
            devices = space["device_list"]
            assert callable(devices)
            lists.append(devices())
    assert lists[1] == expected
    assert lists[0] == ([] if xpu and not cuda else expected)


# --- questions that stay -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        # another branch is meant for all other devices
        "import torch\nif x.is_cuda:\n    y = torch.zeros(1, device='cuda')\n    z = scatter(y)\nelse:\n    z = x\n",
        # the answer goes elsewhere
        "import torch\n\ndef f():\n    on = torch.cuda.is_available()\n    return on\n",
        # the name holds something else, too
        "import torch\n\ndef f(g):\n    on = torch.cuda.is_available()\n    on = g(on)\n    return 'cuda' if on else 'cpu'\n",
        # what it is passed to is not known
        "import torch\n\ndef f(use_gpu):\n    on = use_gpu and torch.cuda.is_available()\n    return library(on)\n",
        # two functions of the name
        "import torch\n\nclass A:\n    def g(self, on):\n        pass\n\nclass B:\n    def g(self, on):\n        pass\n\ndef f(x, use_gpu):\n    on = use_gpu and torch.cuda.is_available()\n    x.g(on)\n",
        # a capability is asked for behind the way out
        "import torch\n\ndef f():\n    if not torch.cuda.is_available():\n        return False\n    return torch.cuda.get_device_capability()[0] >= 8\n",
        "import torch\n\ndef f():\n    if not torch.cuda.is_available():\n        raise RuntimeError\n    return flash_attn(torch.cuda.get_device_capability())\n",
        # the name of a wish is that of a kernel
        "import torch\nif use_cuda_ops and torch.cuda.is_available():\n    x = x.cuda()\n",
        # a list of devices in which MPS stands for something else
        "import torch\nif device.type == 'cuda':\n    batch = 64\nelif device.type == 'mps':\n    batch = 8\n",
    ],
)
def test_a_question_stays_where_its_answer_is_not_understood(text: str) -> None:
    after = converted(text)
    assert "or _patchforge_xpu()" not in after
    assert '== "xpu"' not in after


def test_an_author_who_asks_for_xpus_next_is_left_alone() -> None:
    text = "import torch\n\ndef f():\n    if torch.cuda.is_available():\n        return True\n    if torch.xpu.is_available():\n        return True\n    return False\n"
    assert converted(text) == text


def test_what_has_no_device_is_asked_as_before() -> None:
    torch = pytest.importorskip("torch")
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(2)])
    names: dict[str, object] = {"x": packed}
    exec(converted("on = 1 if x.is_cuda else 2\nis_cuda = x.is_cuda\n"), names)
    assert (names["on"], names["is_cuda"]) == (2, False)


def test_fields_that_every_gpu_has_are_no_reason_to_stop() -> None:
    text = "import sys, torch\n\ndef f():\n    props = torch.cuda.get_device_properties(0)\n    return props.name, sys.version_info.major\n"
    assert "_patchforge_gpu().get_device_properties(0)" in converted(text)
    assert "torch.cuda.get_device_properties(0)" in converted(text.replace("props.name", "props.major"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # a device that is not CUDA's is asked for on CUDA, too
        ("import torch\nif d != 'cuda':\n    f()\n", "import torch\nif d != 'xpu':\n    f()\n"),
        ("if x.is_cuda:\n    f()\n", "if x.is_cuda or x.device:\n    f()\n"),
        ("if x.is_cuda or y:\n    f()\n", 'if (x.is_cuda and x.device.type == "xpu") or y:\n    f()\n'),
        # what has is_cuda need not have a device (torch's PackedSequence), nor is_xpu
        ("if x.is_cuda:\n    f()\n", 'if x.is_cuda or x.device.type == "xpu":\n    f()\n'),
        ("if x.is_cuda:\n    f()\n", "if x.is_cuda or x.is_xpu:\n    f()\n"),
        ("on = d == 'cuda'\n", "on = d in ('cuda', 'cpu')\n"),
        (
            "import torch\nif has_cuda():\n    f()\n",
            "import torch\nif has_cuda() or torch.xpu.is_available():\n    f()\n",
        ),
    ],
)
def test_the_proof_refuses_wrong_questions(before: str, after: str) -> None:
    with pytest.raises(CheckFailed):
        prove("nodes.py", before.encode(), after.encode())
