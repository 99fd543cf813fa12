"""A parameter's default is a CUDA device."""

from __future__ import annotations

import ast
import re
from functools import partial

from patchforge.transforms.nodes.device_literal import where_to

from patchforge.effort import spend
from patchforge.nodes.code import Code
from patchforge.nodes.destinations import Goes
from patchforge.nodes.shapes import IMPLEMENTATION, device_text, is_default
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_ONE = re.compile(r"cuda(:\d*)?")


class DefaultDevice(Pattern):
    """``def load(path, device="cuda")``: who omits the device gets one that is not there.

    Where every caller in the pack passes it, nothing needs to change. The default keeps its type, and its value on CUDA.
    """

    id = "pack-default-device"
    aliases = ("T6",)
    title = "default device of a parameter"
    after = ("pack-dropdown",)
    examples = (
        PackExample(
            "a caller omits it",
            """\
            import torch

            def load(path, device='cuda'):
                return torch.load(path, map_location=device)

            model = load("x")
            """,
            """\
            import torch

            def load(path, device=_patchforge_device()):
                return torch.load(path, map_location=device)

            model = load("x")
            """,
        ),
        PackExample(
            "every caller passes it",
            """\
            def load(path, half=False, device='cuda'):
                return read(path, device)

            model = load("x", device=there)
            other = load("x", False, there)
            """,
        ),
        PackExample(
            "a device object stays one",
            """\
            import torch

            class Model:
                def __init__(self, device=torch.device("cuda:0")):
                    self.device = device

            model = Model()
            """,
            """\
            import torch

            class Model:
                def __init__(self, device=torch.device(_patchforge_device(0))):
                    self.device = device

            model = Model()
            """,
        ),
        PackExample(
            "by where it goes",
            """\
            import torch

            def move(x, where="cuda"):
                there = where
                return x.to(there)

            def read(f, loc="cuda:0"):
                return torch.load(f, map_location=loc)

            turn = lambda t, d="cuda": t.to(d)
            x = turn(move(read("f")))
            """,
            """\
            import torch

            def move(x, where=_patchforge_device()):
                there = where
                return x.to(there)

            def read(f, loc=_patchforge_device(0)):
                return torch.load(f, map_location=loc)

            turn = lambda t, d=_patchforge_device(): t.to(d)
            x = turn(move(read("f")))
            """,
        ),
        PackExample(
            "where nobody sees it go", "def f(x, where='cuda'):\n    return theirs(x, where)\n\nf(1)\n", person=True
        ),
        PackExample(
            "in a default that holds more",
            "from argparse import Namespace\n\ndef f(x, args=Namespace(device='cuda')):\n    return x.to(args.device)\n\nf(1)\n",
            "from argparse import Namespace\n\ndef f(x, args=Namespace(device=_patchforge_device())):\n    return x.to(args.device)\n\nf(1)\n",
        ),
        PackExample("several devices", "def f(x, devices='cuda:0,cuda:1'):\n    return x\n\nf(1)\n", person=True),
        PackExample(
            "the name of an implementation",
            'def conv(x, impl="cuda"):\n    assert impl in ["ref", "cuda"]\n    return theirs(x, impl=impl)\n\nconv(1)\n',
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A device string in the default of a parameter."""
        if site.kind is not Kind.LITERAL or not is_default(site.node, code):
            return None
        place = _parameter(site.node, code)
        if place is None:
            return None
        function, parameter, index = place
        if (other := _no_device(site, function, parameter, code, pack)) is not None:
            return other
        name = _callable_name(function, code)
        calls = (pack.calls or {}).get(name, ())
        spend(1 + len(calls))
        if calls and all(star is False and (parameter in keywords or count > index) for count, keywords, star in calls):
            return left([site], "every caller in the pack passes a device")
        if not isinstance(site.node, ast.Constant) or not _ONE.fullmatch(site.text):
            return person([site], "compute the default when the function runs")
        return converted([site], code.replace(site.node, device_text(site.text)))


def _no_device(site: Site, function: ast.AST, parameter: str, code: Code, pack: PackFacts) -> Verdict | None:
    """The verdict on a default that is no device as far as is seen; None where it is one."""
    if (inner := _part(site.node, code)) is not None:
        return None if _is_device(inner) else person([site], f"{inner} of {parameter}: the device in use, if it is one")
    led = None if _is_device(parameter) else where_to(parameter, function, code, pack)
    if led is None or led is Goes.DEVICE:
        return None
    if led is Goes.NOWHERE:
        return left([site], "nothing reads it")
    if led is Goes.UNSEEN:
        return person([site], f"see where {parameter} goes: the device in use, if it is one")
    if led is Goes.IMPLEMENTATION or IMPLEMENTATION.search(parameter):
        return left([site], "the name of an implementation, by where it goes")
    return left([site], "it is only asked about, and each question is looked at by itself", runs_on_xpu=True)


def _part(node: ast.expr, code: Code) -> str | None:
    """The keyword, or the key, that a device has in a default that holds more: ``Namespace(device="cuda")``."""
    for parent, child in code.above(node):
        if isinstance(parent, ast.keyword):
            call = code.parent(parent)
            made = isinstance(call, ast.Call) and code.name(call.func) == "torch.device"
            return None if made else parent.arg or ""
        if isinstance(parent, ast.Dict):
            key = parent.keys[code.index(child)] if code.field(child) == "values" else None
            return str(key.value) if isinstance(key, ast.Constant) else ""
        if isinstance(parent, ast.arguments):
            return None
    return None


def _is_device(name: str) -> bool:
    return "device" in name or name in ("dev", "map_location", "gpu", "cuda")


def _parameter(node: ast.expr, code: Code) -> tuple[ast.AST, str, int] | None:
    for parent, child in code.above(node):
        if not isinstance(parent, ast.arguments):
            continue
        function = code.parent(parent)
        if function is None:
            return None
        named = code.once(("named", parent), partial(_positional, parent))
        bound = isinstance(code.parent(function), ast.ClassDef) and bool(named) and named[0].arg in ("self", "cls")
        if code.field(child) == "defaults":
            index = len(named) - len(parent.defaults) + code.index(child)
            return function, named[index].arg, index - bound
        if code.field(child) == "kw_defaults":
            return function, parent.kwonlyargs[code.index(child)].arg, 1 << 30
    return None


def _positional(arguments: ast.arguments) -> list[ast.arg]:
    return [*arguments.posonlyargs, *arguments.args]


def _callable_name(function: ast.AST, code: Code) -> str:
    name = getattr(function, "name", "")
    owner = code.parent(function)
    return owner.name if name == "__init__" and isinstance(owner, ast.ClassDef) else name
