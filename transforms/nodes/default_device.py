"""A parameter's default is a CUDA device."""

from __future__ import annotations

import ast
from functools import partial

from patchforge.effort import spend
from patchforge.nodes.code import Code
from patchforge.nodes.shapes import device_text, is_default
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person


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
        PackExample("the name of an implementation", 'def conv(x, impl="cuda"):\n    return x\n\nconv(1)\n'),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A device string in the default of a parameter."""
        if site.kind is not Kind.LITERAL or not is_default(site.node, code):
            return None
        place = _parameter(site.node, code)
        if place is None:
            return None
        function, parameter, index = place
        if not _is_device(parameter):
            return left([site], "the name of an implementation, by its parameter")
        name = _callable_name(function, code)
        calls = (pack.calls or {}).get(name, ())
        spend(1 + len(calls))
        if calls and all(star is False and (parameter in keywords or count > index) for count, keywords, star in calls):
            return left([site], "every caller in the pack passes a device")
        if not isinstance(site.node, ast.Constant):
            return person([site], "compute the default when the function runs")
        return converted([site], code.replace(site.node, device_text(site.text)))


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
