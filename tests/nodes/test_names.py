# ruff: noqa: E501 - miniatures are shown as they are
"""Names that an edit reads: each is bound at that very spot, on every way to it, or the proof refuses the edit."""

from __future__ import annotations

import ast
import dis
import itertools
import sys
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge.errors import CheckFailed
from patchforge.proof.packs.helpers import helpers
from patchforge.proof.packs.pairing import prove
from patchforge.proof.packs.scopes import Scopes
from tests.nodes.test_cases import decided, done, edits

#: How a function, or a class, comes by torch; and how it asks for CUDA then.
_WAYS = {
    "import torch": "torch.cuda.is_available()",
    "import torch as th": "th.cuda.is_available()",
    "import torch as T": "T.cuda.is_available()",
    "from torch import cuda": "cuda.is_available()",
    "import torch.cuda as tc": "tc.is_available()",
    "from torch.cuda import is_available": "is_available()",
    "import torch.cuda": "torch.cuda.is_available()",
}
_PLACES = {
    "function": "def {name}():\n    {way}\n    return 'cuda' if {asked} else 'cpu'\n{result} = {name}()\n",
    "method": "class {name}:\n    def run(self):\n        {way}\n        if {asked}:\n            d = 'cuda'\n        else:\n            d = 'cpu'\n        return d\n{result} = {name}().run()\n",
    "class": "class {name}:\n    {way}\n    d = 'cuda' if {asked} else 'cpu'\n{result} = {name}.d\n",
    "lambda": "def {name}():\n    {way}\n    return (lambda hasattr=None: 'cuda' if {asked} else 'cpu')()\n{result} = {name}()\n",
    "comprehension": "def {name}():\n    {way}\n    return ['cuda' if {asked} else 'cpu' for hasattr in [1]][0]\n{result} = {name}()\n",
    "through a name": "def {name}():\n    {way}\n    on = {asked}\n    return (lambda: 'cuda' if on else 'cpu')()\n{result} = {name}()\n",
    "the CPU first": "def {name}():\n    {way}\n    return 'cpu' if not {asked} else 'cuda'\n{result} = {name}()\n",
    "calls": "def {name}():\n    {way}\n    if {asked}:\n        print('x')\n    return 'cuda' if {asked} and {name} else 'cpu'\n{result} = {name}()\n",
}
_FIRST = (
    "",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
    "try:\n    import torch\nexcept ImportError:\n    torch = None\ndel torch\n",
    "def other():\n    import torch\n    return torch\n",
)


def _machine(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, xpu: bool) -> None:
    """A torch that has nothing but the answers of a made-up machine."""
    torch: Any = ModuleType("torch")
    for kind, there in (("cuda", cuda), ("xpu", xpu)):
        backend: Any = ModuleType(f"torch.{kind}")
        backend.is_available = lambda there=there: there
        setattr(torch, kind, backend)
        monkeypatch.setitem(sys.modules, f"torch.{kind}", backend)
    monkeypatch.setitem(sys.modules, "torch", torch)


def _mixed() -> Iterator[str]:
    """Files in which two places come by torch in two ways."""
    for (one, way), (two, other), first in itertools.product(_PLACES.items(), _PLACES.items(), _FIRST):
        number = (list(_PLACES).index(one) * 5 + list(_PLACES).index(two) * 3 + _FIRST.index(first)) % len(_WAYS)
        imports = list(_WAYS.items())
        (import_1, asked_1), (import_2, asked_2) = imports[number], imports[(number + 2) % len(imports)]
        yield (
            first
            + way.format(name="A", way=import_1, asked=asked_1, result="a")
            + other.format(name="B", way=import_2, asked=asked_2, result="b")
        )


@pytest.mark.parametrize("start", range(8))
def test_every_place_reads_a_torch_that_is_bound_there(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    for text in list(_mixed())[start::8]:
        (change,) = done(text).changes
        for cuda, xpu, expected in (
            (True, False, "cuda"),
            (True, True, "cuda"),
            (False, False, "cpu"),
            (False, True, "xpu"),
        ):
            _machine(monkeypatch, cuda=cuda, xpu=xpu)
            names: dict[str, object] = {}
            exec(compile(change.after, text, "exec"), names)
            assert (names["a"], names["b"]) == (expected, expected), (text, change.after.decode())


ARM = "import torch\ndef f():\n    import torch as th\n    return 'cuda' if th.cuda.is_available() else {}'cpu'\n"
XPU = "'xpu' if hasattr({0}, 'xpu') and {0}.xpu.is_available() else "


def _ours(*names: str) -> str:
    return "".join(f"{helpers()[name]}\n" for name in names)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # a name for torch from another scope
        (ARM.format(""), ARM.format(XPU.format("torch"))),
        (
            "class A:\n    import torch as th\n    def f(self):\n        import torch\n        return 'cuda' if torch.cuda.is_available() else 'cpu'\n",
            "class A:\n    import torch as th\n    def f(self):\n        import torch\n        return 'cuda' if torch.cuda.is_available() else "
            + XPU.format("th")
            + "'cpu'\n",
        ),
        # ... in an arm's test, and in what stands in an arm
        (
            "import torch as T\ndef f():\n    import torch as th\n    if T.cuda.is_available():\n        d = 'cuda'\n",
            "import torch as T\ndef f():\n    import torch as th\n    if T.cuda.is_available():\n        d = 'cuda'\n    elif th.xpu.is_available():\n        d = 'xpu'\n",
        ),
        (
            "import torch\nif torch.cuda.is_available():\n    torch.cuda.empty_cache()\n",
            "import torch\nif torch.cuda.is_available():\n    torch.cuda.empty_cache()\nelif torch.xpu.is_available():\n    th.xpu.empty_cache()\n",
        ),
        (
            "import torch\nif torch.cuda.is_available():\n    d = 'cuda'\n",
            "import torch\nif torch.cuda.is_available():\n    d = 'cuda'\nelif torch.xpu.is_available():\n    import torch as th\n    d = 'xpu'\n",
        ),
        # an arm that makes another name the function's own
        (
            "import torch\nkeep = 1\ndef f():\n    print(keep)\n    if torch.cuda.is_available():\n        d = 'cuda'\n",
            "import torch\nkeep = 1\ndef f():\n    print(keep)\n    if torch.cuda.is_available():\n        d = 'cuda'\n    elif torch.xpu.is_available():\n        keep = d = 'xpu'\n",
        ),
        # a builtin that is something else there
        (
            "import torch\ndef f(hasattr=None):\n    return 'cuda' if torch.cuda.is_available() else 'cpu'\n",
            "import torch\ndef f(hasattr=None):\n    return 'cuda' if torch.cuda.is_available() else "
            + XPU.format("torch")
            + "'cpu'\n",
        ),
        (
            "getattr = 1\nif x.is_cuda:\n    f()\n",
            "getattr = 1\nif x.is_cuda or getattr(x, 'is_xpu', False):\n    f()\n",
        ),
        # our functions: missing, below, in another scope, or hidden
        ("d = x.to('cuda')\n", "d = x.to(_patchforge_device())\n"),
        ("d = x.to('cuda')\n", "d = x.to(_patchforge_device())\n" + _ours("_patchforge_xpu", "_patchforge_device")),
        (
            "def f(_patchforge_device):\n    return x.to('cuda')\n",
            _ours("_patchforge_xpu", "_patchforge_device")
            + "def f(_patchforge_device):\n    return x.to(_patchforge_device())\n",
        ),
        (
            "def g():\n    global _patchforge_device\n    _patchforge_device = 1\nd = x.to('cuda')\n",
            _ours("_patchforge_xpu", "_patchforge_device")
            + "def g():\n    global _patchforge_device\n    _patchforge_device = 1\nd = x.to(_patchforge_device())\n",
        ),
        # ComfyUI, where a function has a comfy of its own
        (
            "def f():\n    d = x.to('cuda')\n    import comfy.utils\n",
            "import comfy.model_management\ndef f():\n    d = x.to(comfy.model_management.get_torch_device())\n    import comfy.utils\n",
        ),
        # a choice that makes a name the function's own, or that comes before it has a value
        (
            "import torch\nd = 'cuda'\ndef f():\n    if d == 'cuda' and not torch.cuda.is_available():\n        return 'cpu'\n    return d\n",
            "import torch\n"
            + _ours("_patchforge_xpu", "_patchforge_choice")
            + "d = 'cuda'\ndef f():\n    d = _patchforge_choice(d)\n    if d == 'cuda' and not torch.cuda.is_available():\n        return 'cpu'\n    return d\n",
        ),
        (
            "import torch\ndef f():\n    if not torch.cuda.is_available():\n        d = 'cpu'\n",
            "import torch\n"
            + _ours("_patchforge_xpu", "_patchforge_choice")
            + "def f():\n    d = _patchforge_choice(d)\n    if not torch.cuda.is_available():\n        d = 'cpu'\n",
        ),
    ],
)
def test_the_proof_refuses_names_that_need_not_be_bound(before: str, after: str) -> None:
    with pytest.raises(CheckFailed, match=r"bound there|a value there"):
        prove("nodes.py", before.encode(), after.encode())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ARM.format(""), ARM.format(XPU.format("th"))),
        ("d = x.to('cuda')\n", _ours("_patchforge_xpu", "_patchforge_device") + "d = x.to(_patchforge_device())\n"),
        (
            "class A:\n    def hasattr(self): pass\n    def f(self, torch):\n        return 'cuda' if torch.cuda.is_available() else 'cpu'\n",
            "class A:\n    def hasattr(self): pass\n    def f(self, torch):\n        return 'cuda' if torch.cuda.is_available() else "
            + XPU.format("torch")
            + "'cpu'\n",
        ),
        (
            "import torch\ndef f(d):\n    if not torch.cuda.is_available():\n        d = 'cpu'\n",
            "import torch\n"
            + _ours("_patchforge_xpu", "_patchforge_choice")
            + "def f(d):\n    d = _patchforge_choice(d)\n    if not torch.cuda.is_available():\n        d = 'cpu'\n",
        ),
    ],
)
def test_the_proof_takes_names_that_are_bound(before: str, after: str) -> None:
    prove("nodes.py", before.encode(), after.encode())


def test_a_name_of_the_module_does_not_become_a_functions() -> None:
    text = "import torch\ndevice = wish()\n\ndef f():\n    if device == 'cuda' and not torch.cuda.is_available():\n        return 'cpu'\n    return device\n"
    assert "device = _patchforge_choice(device)" not in edits(text)
    own = text.replace("def f():", "def f(device):")
    assert "device = _patchforge_choice(device)" in edits(own)


@pytest.mark.parametrize("name", ["hasattr", "isinstance", "object"])
def test_a_builtin_that_means_something_else_to_our_functions(name: str) -> None:
    result = done(f"import torch\n{name} = make()\n\ndef f(x):\n    return x.cuda(0)\n")
    assert not result.changes
    assert [problem.reason for problem in result.problems] == [
        f"{name} means something else here: a clash with what patchforge adds"
    ] * len(result.problems)
    assert result.problems


def test_is_xpu_is_not_asked_for_where_getattr_is_something_else() -> None:
    text = "import torch\n\ndef f(x, getattr):\n    if x.is_cuda:\n        torch.cuda.empty_cache()\n"
    assert "person" in decided(text)
    assert 'if x.is_cuda or getattr(x, "is_xpu", False):' in edits(text.replace(", getattr", ""))


_NAMES = st.sampled_from(("a", "b", "torch"))
_SIMPLE = st.one_of(
    st.builds("{} = 1".format, _NAMES),
    st.builds("print({})".format, _NAMES),
    st.builds("import {}".format, _NAMES),
    st.builds("x = [{} for {} in {}]".format, _NAMES, _NAMES, _NAMES),
    st.builds("x = lambda {}={}: {}".format, _NAMES, _NAMES, _NAMES),
    st.builds("x = [y := {} for z in [lambda {}: {}]]".format, _NAMES, _NAMES, _NAMES),
)


def _indented(block: list[str]) -> str:
    return "\n".join("    " + line for part in block for line in part.split("\n"))


_BLOCKS = st.recursive(
    _SIMPLE,
    lambda inner: st.one_of(
        st.builds(
            lambda name, argument, default, declared, body: (
                f"def {name}({argument}={default}):\n"
                + _indented([*([f"global {declared}"] if declared not in (argument, "") else []), *body])
            ),
            _NAMES,
            _NAMES,
            _NAMES,
            st.sampled_from(("", "", "a", "b")),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(
            lambda name, body: f"class {name.title()}:\n" + _indented(body),
            _NAMES,
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(
            lambda name, body: f"if {name}:\n" + _indented(body), _NAMES, st.lists(inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=8,
)


@given(st.lists(_BLOCKS, min_size=1, max_size=4))
def test_names_are_looked_up_as_python_does(blocks: list[str]) -> None:
    """The code that Python compiles says of every name that is read whether it is the module's."""
    text = "\n".join(blocks) + "\n"
    try:
        compiled = compile(text, "nodes.py", "exec")
    except SyntaxError:  # global behind a use of the name
        return
    tree = ast.parse(text)
    scopes = Scopes(tree)
    reads = {
        (node.lineno, node.col_offset): node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    for place, whole in _loads(compiled):
        if (node := reads.get(place)) is not None:
            assert (scopes.owner(node, node.id) is tree) is whole, (text, node.id, place)


def _loads(code: CodeType) -> Iterator[tuple[tuple[int, int], bool]]:
    """The place of every name that is read, and whether it is the module's; in a class body both may be."""
    for step in dis.get_instructions(code):
        if isinstance(step.argval, CodeType):
            yield from _loads(step.argval)
        at = step.positions
        read = step.opname.startswith("LOAD_") and isinstance(step.argval, str)
        if at is not None and read and (step.opname != "LOAD_NAME" or code.co_name == "<module>"):
            yield (at.lineno or 0, at.col_offset or 0), step.opname in ("LOAD_NAME", "LOAD_GLOBAL")
