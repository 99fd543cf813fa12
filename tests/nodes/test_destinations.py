# ruff: noqa: E501 - miniatures are shown as they are
"""Devices are known by where they go: a default, a keyword or an attribute may be called what it likes."""

from __future__ import annotations

import pytest

from patchforge.proof.packs.helpers import helpers
from tests.nodes.test_cases import NODE, done, edits

TORCH = NODE + "import torch\n\n"
NAMES = ("where", "dst", "hw", "_d", "loc", "backend", "mode", "kind", "name", "target")
USES = {
    "moved": "x.to(P)",
    "moved by keyword": "x.to(device=P)",
    "made there": "torch.zeros(1, device=P)",
    "a device": "torch.device(P)",
    "a device by its type": "torch.device(type=P)",
    "read to": "torch.load(x, map_location=P)",
    "as a text": "x.to(str(P))",
    "with an index": 'x.to(f"{P}:0")',
    "unless something else is": "x.to(x.there or P)",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("name", NAMES)
def test_a_default_that_goes_to_a_device_is_one(name: str, use: str) -> None:
    text = f'{TORCH}def f(x, {name}="cuda"):\n    return {use.replace("P", name)}\n\nf(1)\n'
    assert edits(text) == [f"def f(x, {name}=_patchforge_device()):"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('def f(x, a="cuda"):\n    b = a\n    return x.to(b)\n\nf(1)\n', "def f(x, a=_patchforge_device()):"),
        ('def f(x, *, a="cuda:1"):\n    return g(x, a)\n\ndef g(x, b):\n    return x.to(b)\n\nf(1)\n', "def f(x, *, a=_patchforge_device(1)):"),
        ('class A:\n    def __init__(self, a="cuda"):\n        self.a = a\n\n    def f(self, x):\n        return x.to(self.a)\n\nA()\n', "def __init__(self, a=_patchforge_device()):"),
        ('f = lambda t, d="cuda": t.to(d)\nf(1)\n', "f = lambda t, d=_patchforge_device(): t.to(d)"),
        ('def deco(w="cuda"):\n    def inner(x):\n        return x.to(w)\n    return inner\n\ndeco()\n', "def deco(w=_patchforge_device()):"),
        ('x.to(getattr(ns, "device", "cuda"))\n', 'x.to(getattr(ns, "device", _patchforge_device()))'),
        ('y = torch.zeros(1, device=getattr(x, "device", "cuda:0"))\n', 'y = torch.zeros(1, device=getattr(x, "device", _patchforge_device(0)))'),
        ('setattr(c, "device", "cuda")\n', 'setattr(c, "device", _patchforge_device())'),
        ('d = torch.device(type="cuda", index=1)\n', "d = torch.device(type=_patchforge_device(), index=1)"),
        ('def f(x, a=Namespace(device="cuda")):\n    return x.to(a.device)\n\nf(1)\n', "def f(x, a=Namespace(device=_patchforge_device())):"),
        ('def f(x, a={"device": "cuda"}):\n    return x.to(a["device"])\n\nf(1)\n', 'def f(x, a={"device": _patchforge_device()}):'),
        ('backend = "cuda"\nd = torch.device(backend)\n', "backend = _patchforge_device()"),
    ],
)  # fmt: skip
def test_the_way_there_may_be_long(text: str, line: str) -> None:
    assert edits(TORCH + text) == [line]


@pytest.mark.parametrize(
    "text",
    [
        'def f(x, where="cuda"):\n    return theirs(x, where)\n\nf(1)\n',
        'class A:\n    def __init__(self, where="cuda"):\n        self.where = where\n\nA()\n',
        'def f(x, s="cuda:0,cuda:1"):\n    return [x.to(d) for d in s.split(",")]\n\nf(1)\n',
        'def f(x, a=Namespace(what="cuda")):\n    return theirs(x, a)\n\nf(1)\n',
        'y = getattr(x, "cuda")()\n',
        'move = getattr(x, "cuda")\n',
        'y = getattr(x, "cuda", None)(0)\n',
        'y = getattr(torch.Tensor, "cuda")(x)\n',
        'setattr(c, "what", "cuda")\n',
        'def f(x, *, mode="cuda"):\n    if mode == "cuda":\n        return x.cuda()\n    return x\n\nf(1)\n',
    ],
)
def test_what_nobody_can_follow_is_for_a_person(text: str) -> None:
    result = done(TORCH + text)
    assert not result.changes
    assert "person" in {str(row.decision) for row in result.sites}


@pytest.mark.parametrize(
    "text",
    [
        'ok = hasattr(torch, "cuda")\n',
        'v = getattr(torch.version, "cuda", None)\n',
        'on = getattr(args, "cuda", False)\n',
        'def f(x, impl="cuda"):\n    assert impl in ["ref", "cuda"]\n    return g(x, impl=impl)\n\nf(1)\n',
        'def f(x, where="cuda"):\n    return x\n\nf(1)\n',
    ],
)
def test_what_is_no_device_is_left(text: str) -> None:
    result = done(TORCH + text)
    assert not result.changes
    assert {str(row.decision) for row in result.sites} == {"left"}


def test_a_default_that_no_caller_uses_stays() -> None:
    assert edits(f'{TORCH}def f(x, where="cuda"):\n    return x.to(where)\n\nf(1, there)\n') == []


def test_names_that_lead_to_each_other_have_an_end() -> None:
    text = f'{TORCH}def f(x, a="cuda"):\n    b = a + c\n    c = b + a\n    a = c\n    return g(x, a)\n\ndef g(x, a):\n    return f(x, a)\n\nf(1)\n'
    assert not done(text).problems


def test_a_file_that_was_converted_before_is_converted_further() -> None:
    ours = "\n\n\n".join(helpers()[name] for name in ("_patchforge_xpu", "_patchforge_choice"))
    text = f'{TORCH}\n{ours}\n\n\ndef f(x, d, e="cuda"):\n    d = _patchforge_choice(d)\n    return x.to(d), x.to(e)\n\nf(1, 2)\n'
    result = done(text)
    assert not result.problems
    assert b"def f(x, d, e=_patchforge_device()):" in result.changes[0].after
