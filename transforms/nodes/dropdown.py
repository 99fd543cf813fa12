"""A choice of devices that a node offers."""

from __future__ import annotations

import ast

from patchforge.engine.edits import Splice
from patchforge.engine.syntax import after_docstring, dotted, parameters
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import along, asks
from patchforge.nodes.libraries import flows
from patchforge.nodes.shapes import below, is_key_of_devices, names_implementations, reads_of_only_name
from patchforge.pattern import Kind, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_SIBLINGS = frozenset(("cpu", "mps", "auto", "AUTO", "Auto", "default", "gpu", "CPU", "main_device", "offload_device"))


class Dropdown(Pattern):
    """``["auto", "cuda", "cpu"]`` offers no XPU, and a saved workflow that says "cuda" fails.

    "xpu" stands before "cuda" where only an XPU is there, so it takes its place as the default; elsewhere the list is
    as it was, and so is what ComfyUI tells of the node. The node's function takes a saved "cuda" for the XPU.
    """

    id = "pack-dropdown"
    aliases = ("T7",)
    title = "choice of devices"
    after = ("pack-guarded-calls",)
    examples = (
        PackExample(
            "CUDA alone, and settings of its own",
            """\
            import torch

            class Node:
                @classmethod
                def INPUT_TYPES(cls):
                    device_list = ["cuda"]
                    return {"required": {"device": (device_list,)}}
                FUNCTION = "run"
                def run(self, x, device):
                    if device == "cuda":
                        if torch.cuda.get_device_properties(0).major >= 8:
                            torch.backends.cuda.matmul.allow_tf32 = True
                    return x.to(device)
            """,
            """\
            import torch

            class Node:
                @classmethod
                def INPUT_TYPES(cls):
                    device_list = [*(["xpu"] if _patchforge_xpu() else []), "cuda"]
                    return {"required": {"device": (device_list,)}}
                FUNCTION = "run"
                def run(self, x, device):
                    device = _patchforge_choice(device)
                    if device == "cuda":
                        if torch.cuda.get_device_properties(0).major >= 8:
                            torch.backends.cuda.matmul.allow_tf32 = True
                    return x.to(device)
            """,
        ),
        PackExample(
            "looked up in a table that is converted",
            """\
            import torch

            class Node:
                @classmethod
                def INPUT_TYPES(cls):
                    return {"required": {"device": (["cuda", "cpu"],)}}
                FUNCTION = "run"
                def run(self, device):
                    device = {"cuda": torch.device("cuda"), "cpu": torch.device("cpu")}[device]
            """,
            """\
            import torch

            class Node:
                @classmethod
                def INPUT_TYPES(cls):
                    return {"required": {"device": (["cuda", "cpu"],)}}
                FUNCTION = "run"
                def run(self, device):
                    device = {"cuda": torch.device(_patchforge_device()), "cpu": torch.device("cpu")}[device]
            """,
        ),
        PackExample(
            "a node",
            """\
            class Load:
                @classmethod
                def INPUT_TYPES(cls):
                    return {"required": {"device": (["auto", "cuda", "cpu"],)}}

                FUNCTION = "load"

                def load(self, device):
                    return (read(device),)
            """,
            """\
            class Load:
                @classmethod
                def INPUT_TYPES(cls):
                    return {"required": {"device": (["auto", *(["xpu"] if _patchforge_xpu() else []), "cuda", "cpu"],)}}

                FUNCTION = "load"

                def load(self, device):
                    device = _patchforge_choice(device)
                    return (read(device),)
            """,
        ),
        PackExample(
            "a function that looks the choice up",
            """\
            class Load:
                @classmethod
                def INPUT_TYPES(cls):
                    return {"required": {"device": (["cuda", "cpu"],)}}

                FUNCTION = "load"

                def load(self, device):
                    return ({"gpu": 0, "cpu": 1}[device],)
            """,
            person=True,
        ),
        PackExample(
            "a list with a name",
            """\
            class Load:
                @classmethod
                def INPUT_TYPES(cls):
                    devices = ["cuda", "cpu"]
                    return {"required": {"device": (devices, {"default": "cuda"})}}

                FUNCTION = "load"

                def load(self, device):
                    return (read(device),)
            """,
            """\
            class Load:
                @classmethod
                def INPUT_TYPES(cls):
                    devices = [*(["xpu"] if _patchforge_xpu() else []), "cuda", "cpu"]
                    return {"required": {"device": (devices, {"default": _patchforge_device()})}}

                FUNCTION = "load"

                def load(self, device):
                    device = _patchforge_choice(device)
                    return (read(device),)
            """,
        ),
        PackExample(
            "what a device may be",
            """\
            VALID = {"auto", "cuda", "cpu"}

            def check(device):
                if device not in VALID:
                    raise ValueError(device)
            """,
            """\
            VALID = {"auto", *(["xpu"] if _patchforge_xpu() else []), "cuda", "cpu"}

            def check(device):
                if device not in VALID:
                    raise ValueError(device)
            """,
        ),
        PackExample(
            "what a device may be, and only CUDA is after",
            """\
            VALID = {"auto", "cuda", "cpu"}

            def check(device):
                if device not in VALID:
                    raise ValueError(device)
                return 64 if device == "cuda" else 1
            """,
            person=True,
        ),
        PackExample("a list for others", 'DEVICES = ["cuda", "cpu"]\n', person=True),
        PackExample("what a profiler watches", 'profile(activities=["cpu", "cuda"])\n'),
        PackExample("an option of a script", 'parser.add_argument("--device", choices=["cuda", "cpu"])\n'),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A device string among others."""
        parent = code.parent(site.node)
        if (
            site.kind is not Kind.LITERAL
            or not isinstance(parent, (ast.List, ast.Tuple, ast.Set))
            or not isinstance(site.node, ast.Constant)
        ):
            return None
        values = code.once(("values", parent), lambda: _values(parent))
        if isinstance(code.parent(parent), ast.Compare):
            return None
        if names_implementations(site.node, code):
            return left([site], "names of implementations")
        if not _SIBLINGS & values and not (values == {"cuda"} and _is_choice(parent, code)):
            return None
        if site.text != "cuda":
            return person([site], "offer the devices that are there")
        places = _places(parent, code)
        offered = code.precede(site.node, '*(["xpu"] if _patchforge_xpu() else []), ')
        if places and all(_only_checks(place, code) for place in places):
            asking = {other for place in places for other in _asked(place, pack.sites, code)} - {site}
            return converted([site], offered, together=asking, otherwise="what passes this check is not ready for xpu")
        entries = [_entry(place, code) for place in places]
        known = [entry for entry in entries if entry is not None]
        if not known or len(known) < len(entries):
            return person([site], "offer xpu where it is there, and map a saved cuda where the choice is used")
        for method, key in known:
            if library := flows(code, pack.foreign).parameters().get(method.name, {}).get(key):
                return person([site], f"{method.name} hands {key} to {library.module}, which {library.takes}")
            if not all(map(pack.ready, along(method, key, (), code).handed)):
                return person(
                    [site], f"{key} is asked for CUDA alone where {method.name} hands it to: convert that first"
                )
            if _looked_up(method, key, code):
                return left([site], f"{method.name} looks {key} up, and finds the device in use", runs_on_xpu=True)
            if not _simple(method, key, code):
                return person([site], f"{method.name} looks {key} up: teach it xpu first, then offer it")
        asking = {other for method, key in known for other in along(method, key, pack.sites, code).asked}
        mapped = dict.fromkeys(splice for method, key in known for splice in _mapped(method, key, code))
        defaults = [default for place in places for default in _defaults(place, pack.sites, code)]
        changed = [code.replace(default.node, "_patchforge_device()") for default in defaults]
        otherwise = "what is chosen is asked for CUDA alone"
        return converted([site, *defaults], offered, *mapped, *changed, together=asking, otherwise=otherwise)


def _only_checks(place: ast.expr, code: Code) -> bool:
    """``device not in DEVICES``."""
    compare = code.parent(place)
    several = isinstance(compare, ast.Compare) and isinstance(compare.ops[0], (ast.In, ast.NotIn))
    return several and code.field(place) == "comparators"


def _is_choice(parent: ast.expr, code: Code) -> bool:
    """``devices = ["cuda"]``, which an entry of a node offers."""
    places = _places(parent, code)
    return isinstance(code.parent(parent), ast.Assign) and any(_entry(place, code) is not None for place in places)


def _asked(place: ast.expr, sites: tuple[Site, ...], code: Code) -> list[Site]:
    """The questions for a device in the function that checks it."""
    return [site for site in below(code.scope(place), sites, code) if asks(site, code)]


def _values(choices: ast.List | ast.Tuple | ast.Set) -> set[str]:
    return {
        choice.value for choice in choices.elts if isinstance(choice, ast.Constant) and isinstance(choice.value, str)
    }


def _defaults(choices: ast.expr, sites: tuple[Site, ...], code: Code) -> list[Site]:
    """The default that stands beside the choices, where it is CUDA's."""
    entry = code.parent(choices)
    tables = (
        [element for element in entry.elts if isinstance(element, ast.Dict)] if isinstance(entry, ast.Tuple) else []
    )
    return [
        site
        for table in tables
        for key, value in zip(table.keys, table.values, strict=True)
        for site in sites
        if isinstance(key, ast.Constant) and key.value == "default" and site.node is value and site.text == "cuda"
    ]


def _places(choices: ast.expr, code: Code) -> list[ast.expr]:
    """Where a list of choices is used: where it stands, or wherever the name is that it is given."""
    assign = code.parent(choices)
    return list(reads_of_only_name(assign, code)) if isinstance(assign, ast.Assign) else [choices]


def _entry(choices: ast.expr, code: Code) -> tuple[ast.FunctionDef, str] | None:
    """The node's function and its parameter for an entry of INPUT_TYPES."""
    key, inputs = "", False
    for parent, child in code.above(choices):
        if isinstance(parent, ast.Dict) and not key and code.field(child) == "values":
            name = parent.keys[code.index(child)]
            key = str(name.value) if isinstance(name, ast.Constant) else ""
        elif isinstance(parent, ast.FunctionDef):
            inputs = parent.name == "INPUT_TYPES"
        elif isinstance(parent, ast.ClassDef) and inputs and key:
            return _consumer(parent, key)
    return None


def _consumer(node: ast.ClassDef, key: str) -> tuple[ast.FunctionDef, str] | None:
    names = (part for part in node.body if isinstance(part, ast.Assign) and dotted(part.targets[0]) == "FUNCTION")
    value = getattr(next(names, None), "value", None)
    name = value.value if isinstance(value, ast.Constant) else ""
    methods = (method for method in node.body if isinstance(method, ast.FunctionDef) and method.name == name)
    method = next(methods, None)
    return (method, key) if method is not None and key in parameters(method) else None


def _simple(method: ast.FunctionDef, key: str, code: Code) -> bool:
    """Whether the choice is only passed on: not compared, and not a key of a table."""
    for node in along(method, key, (), code).reads:
        if isinstance(code.parent(node), ast.Subscript):
            return False
    first = _first(method)
    return first is not None and code.own_lines(first)


def _looked_up(method: ast.FunctionDef, key: str, code: Code) -> bool:
    """Whether each use of the choice is one of ``{"cuda": torch.device("cuda"), …}[choice]``."""
    places = [code.parent(node) for node in along(method, key, (), code).reads if isinstance(node.ctx, ast.Load)]
    tables = [place.value if isinstance(place, ast.Subscript) else None for place in places]
    keys = [
        [key for key in table.keys if key is not None and is_key_of_devices(key, code)]
        if isinstance(table, ast.Dict)
        else []
        for table in tables
    ]
    return bool(keys) and all(keys)


def _first(method: ast.FunctionDef) -> ast.stmt | None:
    return next(iter(after_docstring(method)), None)


def _mapped(method: ast.FunctionDef, key: str, code: Code) -> tuple[Splice, ...]:
    line = f"{key} = _patchforge_choice({key})"
    first = _first(method)
    return (code.before(first, [line]),) if first is not None else ()
