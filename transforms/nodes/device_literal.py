"""A device that is written out."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from patchforge.effort import spend, walk
from patchforge.engine.syntax import dotted, last_name
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import asks
from patchforge.nodes.destinations import Goes, goes
from patchforge.nodes.exempt import names_method
from patchforge.nodes.owners import of_object
from patchforge.nodes.shapes import (
    IMPLEMENTATION,
    below,
    device_text,
    elsewhere_on_xpu,
    formatted_device,
    is_key_of_devices,
    keyword_of,
    test_around,
)
from patchforge.pattern import Kind, Options, PackExample, PackFacts, Pattern, Site, Verdict, converted, left, person

_DEVICE = re.compile(r"device|^dev$|^gpu$|map_location|^main_dev|^to$", re.IGNORECASE)
_STORAGE = re.compile(r"storage", re.IGNORECASE)
_TAKES = re.compile(
    r"^(to|device|Generator|load|torch_load|set_default_device|to_device|move_to\w*|empty|zeros|ones|randn)$|device",
    re.IGNORECASE,
)
_LABEL = re.compile(r"nvidia|\bcuda\b.*\s|\s.*\bcuda\b", re.IGNORECASE)
_OPTION = re.compile(r"^--(no[-_]?)?cuda$", re.MULTILINE)


class DeviceLiteral(Pattern):
    """``.cuda()``, ``.to("cuda")``, ``device="cuda"``, ``torch.device("cuda")`` raise without CUDA.

    The string becomes a call that gives the same string on CUDA (and where there is no accelerator at all, so the error
    there stays the same), and "xpu" where only an Intel GPU is there.
    """

    id = "pack-device-literal"
    aliases = ("T5",)
    title = "device written out"
    after = ("*",)
    examples = (
        PackExample("a method", "x = net.cuda()\n", "x = net.to(_patchforge_device())\n"),
        PackExample("with an index", "x = net.cuda(gpu).eval()\n", "x = net.to(_patchforge_device(gpu)).eval()\n"),
        PackExample(
            "not blocking", "x = y.cuda(non_blocking=True)\n", "x = y.to(_patchforge_device(), non_blocking=True)\n"
        ),
        PackExample(
            "by keyword",
            "x = y.cuda(device='cuda:0')\nz = x.cuda(device=3, non_blocking=True)\n",
            "x = y.to(device=_patchforge_device(0))\nz = x.to(device=_patchforge_device(3), non_blocking=True)\n",
        ),
        PackExample(
            "a storage",
            "import torch\nw = torch.load(f, map_location=lambda storage, place: storage.cuda(0))\nv = torch.load(f, map_location=lambda s, _: s.cuda())\nx.untyped_storage().cuda()\n",
            "import torch\nw = torch.load(f, map_location=lambda storage, place: storage.to(device=_patchforge_device(0)) if _patchforge_xpu() else storage.cuda(0))\nv = torch.load(f, map_location=lambda s, _: s.to(device=_patchforge_device()) if _patchforge_xpu() else s.cuda())\nx.untyped_storage().cuda()\n",
            person=True,
        ),
        PackExample("the method itself", "move = x.cuda\n", person=True),
        PackExample("handed on", "import torch\nys = map(torch.Tensor.cuda, xs)\n", person=True),
        PackExample(
            "of a class, of which nobody knows, and of a module",
            """\
            import torch
            import helpers
            from .models import Net

            class Part(torch.nn.Module):
                def up(self, x):
                    torch.Tensor.cuda(x)
                    torch.nn.Module.cuda(self, 0)
                    super().cuda()
                    type(x).cuda(x)
                    Net.cuda(x)
                    return helpers.cuda(x)
            """,
            person=True,
        ),
        PackExample(
            "of an object with a name like a class",
            "Net = make()\ny = Net.cuda(gpu)\nz = Other.cuda()\n",
            "Net = make()\ny = Net.to(_patchforge_device(gpu))\nz = Other.to(_patchforge_device())\n",
        ),
        PackExample(
            "in a try that catches one error",
            "try:\n    x = x.cuda(0)\nexcept RuntimeError:\n    x = x.cpu()\n",
            person=True,
        ),
        PackExample("a flag of the pack's own", "parser.add_argument('--cuda')\nn = 1 if args.cuda else 2\n"),
        PackExample("moved", "mask = mask.to('cuda')\n", "mask = mask.to(_patchforge_device())\n"),
        PackExample(
            "a keyword",
            'import torch\nx = torch.zeros(3, device="cuda:1")\n',
            "import torch\nx = torch.zeros(3, device=_patchforge_device(1))\n",
        ),
        PackExample(
            "a list of all devices",
            'import torch\ndevices = [f"cuda:{i}" for i in range(3)]\n',
            'import torch\ndevices = [f"{_patchforge_device()}:{i}" for i in range(3)]\n',
        ),
        PackExample("put together", 'device = "cuda:" + str(i)\n', 'device = (_patchforge_device() + ":") + str(i)\n'),
        PackExample(
            "where nobody said one",
            "def f(**options):\n    device = options.get('device', 'cuda')\n    name = options.get('name', 'cuda')\n",
            "def f(**options):\n    device = options.get('device', _patchforge_device())\n    name = options.get('name', 'cuda')\n",
            person=True,
        ),
        PackExample(
            "under another condition",
            'device = "cuda" if gpu else "cpu"\n',
            'device = _patchforge_device() if gpu else "cpu"\n',
        ),
        PackExample(
            "comfy's own way, where no string is wanted",
            'x = y.to("cuda")\ndevice = "cuda"\n',
            "x = y.to(comfy.model_management.get_torch_device())\ndevice = _patchforge_device()\n",
            options=Options(comfy=True),
        ),
        PackExample(
            "a name of a device that is cut by the length of CUDA's",
            """\
            import torch

            def number(device="cuda:0"):
                return int(device[5:])

            class Part:
                def __init__(self):
                    self.device = "cuda:1"
                    self.n = len(self.device) > 4
            """,
            person=True,
        ),
        PackExample(
            "a parameter of the pack's own",
            "def move(x, device):\n    return x.to(device)\n\ny = move(x, 'cuda')\n",
            "def move(x, device):\n    return x.to(device)\n\ny = move(x, _patchforge_device())\n",
        ),
        PackExample("the name of an implementation", 'out = upfirdn(x, impl="cuda")\n'),
        PackExample(
            "chosen by a label",
            "def device(wish):\n    if wish == 'NVIDIA CUDA':\n        return 'cuda'\n    return 'mps' if mac else 'cuda'\n",
            person=True,
        ),
        PackExample(
            "given by the name of an attribute",
            "x.to(getattr(ns, 'device', 'cuda'))\nsetattr(ns, 'device', 'cuda')\n",
            "x.to(getattr(ns, 'device', _patchforge_device()))\nsetattr(ns, 'device', _patchforge_device())\n",
        ),
        PackExample("the method by its name", "x = getattr(x, 'cuda')()\n", person=True),
        PackExample(
            "the type of a device",
            "import torch\nx.to(torch.device(type='cuda', index=1))\n",
            "import torch\nx.to(torch.device(type=_patchforge_device(), index=1))\n",
        ),
        PackExample(
            "by where it goes",
            "import torch\nbackend = 'cuda'\nx = x.to(torch.device(backend))\n",
            "import torch\nbackend = _patchforge_device()\nx = x.to(torch.device(backend))\n",
        ),
        PackExample("the name of an attribute", 'import torch\nfine = hasattr(torch, "cuda")\n'),
        PackExample("a table of numbers", 'device = {"cuda": 0, "cpu": 1}[choice]\n', person=True),
        PackExample(
            "a table of devices",
            'import torch\ndevice = {"cuda": torch.device("cuda"), "cpu": torch.device("cpu")}[choice]\n',
            'import torch\ndevice = {"cuda": torch.device(_patchforge_device()), "cpu": torch.device("cpu")}[choice]\n',
        ),
        PackExample(
            "without its index",
            "same = 'cuda' if a.startswith('cuda') else a\n",
            'same = _patchforge_device() if a.startswith(("cuda", "xpu")) else a\n',
        ),
        PackExample("behind another value", 'text = f"{name}" f"cuda:{i}"\n', person=True),
        PackExample(
            "a class with a cuda of its own",
            "class Sparse:\n    def cuda(self):\n        return self\n\nx = Sparse().cuda()\n",
            person=True,
        ),
    )

    def verdict(self, site: Site, code: Code, pack: PackFacts) -> Verdict | None:
        """A device string, or a call of ``.cuda()``."""
        if site.kind is Kind.METHOD:
            return _method(site, code, pack)
        return _literal(site, code, pack) if site.kind is Kind.LITERAL and not asks(site, code) else None


def _method(site: Site, code: Code, pack: PackFacts) -> Verdict:
    call = site.node
    if not isinstance(call, ast.Call):
        return _bound(site, code)
    inside = [
        literal
        for literal in below(call, pack.sites, code)
        if literal.kind is Kind.LITERAL and _given(literal.node, call)
    ]
    if not of_object(call, code):
        return person(
            [site, *inside], "no method of an object: say .to(device) of what is moved, if it is a tensor or a module"
        )
    if own := code.once(("own", pack.own_cuda), lambda: _named_here(pack.own_cuda, code)):
        return person([site, *inside], f"{own[0]} has a cuda() of its own: say .to(device) where that moves the same")
    if _is_storage(call, code):
        return _storage(site, call, inside, code)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if len(call.args) + ("device" in keywords) > 1 or None in keywords or isinstance(_first(call), ast.Starred):
        return person([site, *inside], "say .to(device, …)")
    if (call.args or keywords.keys() & {"device"}) and _only_one_caught(call, code):
        return person(
            [site, *inside], "where torch is built for the CPU alone, .to(…) raises another error than is caught"
        )
    name = code.splice(code.end(call.func) - len("cuda"), code.end(call.func), "to")
    if (given := _first(call) or keywords.get("device")) is not None:
        known = inside[0] if len(inside) == 1 and inside[0].node is given else None
        if known is not None and isinstance(given, ast.Constant):
            return converted([site, known], name, code.replace(given, device_text(known.text)))
        return converted([site], name, *code.around(given, "_patchforge_device(", ")"))
    device = _device(pack, string=False)
    if call.keywords:
        first = code.offset(call.keywords[0].lineno, call.keywords[0].col_offset)
        return converted([site], name, code.splice(first, first, f"{device}, "))
    return converted([site], name, code.splice(code.end(call) - 1, code.end(call) - 1, device))


def _only_one_caught(call: ast.Call, code: Code) -> bool:
    """Whether a ``try`` around catches RuntimeError and not AssertionError, or the other way round.

    torch 2.13 for the CPU alone: ``x.cuda(0)`` raises the first, and ``x.to("cuda:0")`` the second.
    """
    for parent, child in code.above(call):
        if isinstance(parent, ast.Try) and child in parent.body:
            types = [handler.type for handler in parent.handlers]
            caught = {
                part.id for each in types if each is not None for part in walk(each) if isinstance(part, ast.Name)
            }
            if None in types or caught & {"Exception", "BaseException"}:
                return False
            if len(caught & {"RuntimeError", "AssertionError"}) == 1:
                return True
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return False
    return False


def _storage(site: Site, call: ast.Call, inside: list[Site], code: Code) -> Verdict:
    """A storage takes its device by name alone, and older torch gives it no ``to``: on CUDA it is asked as before."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    given = _first(call)
    if (
        not isinstance(owner, ast.Name)
        or len(call.args) > 1
        or call.keywords
        or inside
        or isinstance(given, ast.Starred)
    ):
        return person([site, *inside], "a storage takes its device by name alone: say .to(device=…)")
    device = f"_patchforge_device({code.code(given)})" if given is not None else "_patchforge_device()"
    return converted([site], *elsewhere_on_xpu(call, f"{owner.id}.to(device={device})", code))


def _is_storage(call: ast.Call, code: Code) -> bool:
    """``lambda storage, place: storage.cuda()``, as ``torch.load`` asks for one, and what is called a storage."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    name = last_name(owner) if isinstance(owner, ast.Call) else dotted(owner).rpartition(".")[2] if owner else ""
    if _STORAGE.search(name):
        return True
    around = next((parent for parent, _ in code.above(call) if isinstance(parent, ast.Lambda)), None)
    names = [argument.arg for argument in around.args.args] if around is not None else []
    return len(names) == 2 and isinstance(owner, ast.Name) and owner.id == names[0]


def _first(call: ast.Call) -> ast.expr | None:
    return call.args[0] if call.args else None


def _given(node: ast.expr, call: ast.Call) -> bool:
    return node in call.args or any(keyword.value is node for keyword in call.keywords)


def _bound(site: Site, code: Code) -> Verdict:
    """``fn = x.cuda``: the method itself, or a flag of that name."""
    if site.text != ".cuda":
        return person([site], "say lambda x: x.to(device)")
    if code.once("flags", lambda: _flags(code)) or test_around(site.node, code) is not None:
        return left([site], "a flag of the pack's own", runs_on_xpu=True)
    return person([site], "say .to(device) where this is called, if it is a tensor's or a module's method")


def _flags(code: Code) -> bool:
    """Whether the file gives an attribute, or an option of a command line, the name ``cuda``."""
    stored = (node for node in code.nodes if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load))
    return any(node.attr == "cuda" for node in stored) or bool(_OPTION.search(code.vocabulary))


def _named_here(names: frozenset[str], code: Code) -> list[str]:
    spend(1 + len(names) * len(code.vocabulary) // 1000)
    return [name for name in sorted(names) if name in code.vocabulary]


def _literal(site: Site, code: Code, pack: PackFacts) -> Verdict:
    node = site.node
    if is_key_of_devices(node, code):
        return left([site], "a key: what it stands for is the device in use", runs_on_xpu=True)
    parent = code.parent(node)
    if isinstance(parent, ast.Call) and parent.args[1:2] == [node] and names_method(parent, code):
        return person([site], "the method .cuda by its name: say .to(device) where that is called")
    role, string = _role(node, code, pack)
    if role == "implementation":
        return left([site], "the name of an implementation, not a device")
    if role != "device":
        return person([site], role)
    if label := _label(node, code):
        return person([site], f"chosen by {label!r}, which names CUDA: say what an XPU's user gets")
    if isinstance(node, ast.JoinedStr):
        edit = formatted_device(node, code)
        return converted([site], edit) if edit else person([site], "begin the string with the device in use")
    if not code.code(node).lstrip("uUrR").startswith(("'", '"')) or site.text.count("cuda") != 1:
        return person([site], "name the device in use")
    text = device_text(site.text)
    if site.text == "cuda":
        text = _device(pack, string=string)
    return converted([site], code.replace(node, text))


def _label(node: ast.expr, code: Code) -> str:
    """The text that names CUDA, or its maker, and is not a device, by which a device is chosen.

    What a function returns is chosen so wherever one of its answers is.
    """
    for parent, child in code.above(node):
        if isinstance(parent, (ast.If, ast.IfExp)) and child is not parent.test:
            chosen = child in parent.body if isinstance(parent, ast.If) else child is parent.body
            if chosen and (labels := _labels(parent.test)):
                return labels[0]
        elif isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            answers = isinstance(code.statement(node), ast.Return)
            return code.once(("label", parent), lambda: _answered_by(parent)) if answers else ""  # noqa: B023
        elif isinstance(parent, ast.ClassDef):
            return ""
    return ""


def _labels(test: ast.expr) -> list[str]:
    texts = (
        [constant.value for constant in test.comparators if isinstance(constant, ast.Constant)]
        if isinstance(test, ast.Compare)
        else []
    )
    return [text for text in texts if isinstance(text, str) and _LABEL.search(text)]


def _answered_by(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    answers = [
        branch for branch in walk(function) if isinstance(branch, ast.If) and isinstance(branch.body[-1], ast.Return)
    ]
    return next((label for answer in answers for label in _labels(answer.test)), "")


def _device(pack: PackFacts, *, string: bool) -> str:
    free = pack.options.comfy and not string
    return "comfy.model_management.get_torch_device()" if free else "_patchforge_device()"


def used_as(node: ast.expr, code: Code, pack: PackFacts) -> str:
    """What an expression is used as where it stands: "device", "implementation" or a suggestion."""
    return _role(node, code, pack)[0]


def _role(node: ast.expr, code: Code, pack: PackFacts) -> tuple[str, bool]:
    """What a string is used as ("device", "implementation" or a suggestion), and whether a string is wanted there."""
    inner = node
    for parent, child in code.above(node):
        if isinstance(parent, (ast.IfExp, ast.BoolOp, ast.BinOp, ast.JoinedStr, ast.FormattedValue)):
            if isinstance(parent, ast.IfExp) and child is parent.test:
                break
            inner = parent if isinstance(parent, ast.expr) else inner
            continue
        if isinstance(parent, ast.Attribute) and isinstance(code.parent(parent), ast.Call) and parent.attr == "format":
            return "device", True
        if isinstance(parent, ast.keyword):
            keyword, call = keyword_of(inner, code)
            return _by_keyword(keyword, call, code)
        if isinstance(parent, ast.Call):
            return _by_call(parent, inner, code, pack)
        if isinstance(parent, (ast.ListComp, ast.GeneratorExp, ast.SetComp)) and child is parent.elt:
            return "device", True
        if isinstance(inner, ast.IfExp) and _is_normalised(inner, node):
            return "device", True
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            return _by_targets(targets, code, pack)
        if isinstance(parent, ast.Return):
            return _by_names([code.function(node).rpartition(".")[2]])
        if isinstance(parent, ast.Dict):
            return _by_key(parent, child, code)
        break
    return "say what this device is on an XPU", True


def _is_normalised(chosen: ast.IfExp, device: ast.expr) -> bool:
    """``"cuda" if name.startswith("cuda") else name``: a device without its index."""
    test = chosen.test
    asked = test.func.value if isinstance(test, ast.Call) and isinstance(test.func, ast.Attribute) else None
    same = asked is not None and ast.dump(asked) == ast.dump(chosen.orelse)
    return same and chosen.body is device and isinstance(test, ast.Call) and last_name(test) == "startswith"


def _by_targets(targets: Sequence[ast.expr], code: Code, pack: PackFacts) -> tuple[str, bool]:
    """By what the names of an assignment are called; one that is called otherwise, by where it goes."""
    role, string = _by_names([code.said(target) for target in targets])
    if role == "device" or not all(isinstance(target, ast.Name) for target in targets):
        return role, string
    names = [(target.id, code.scope(target)) for target in targets if isinstance(target, ast.Name)]
    led = {where_to(name, scope, code, pack) for name, scope in names}
    return ("device", True) if led == {Goes.DEVICE} else (role, string)


def where_to(name: str, scope: ast.AST, code: Code, pack: PackFacts) -> Goes:
    """Where a parameter or a local name goes."""
    return code.once(("goes", name, scope), lambda: goes(name, scope, code, lambda at: used_as(at, code, pack)))


def _by_keyword(keyword: str, call: ast.Call | None, code: Code) -> tuple[str, bool]:
    if call is not None and keyword == "type" and code.name(call.func) == "torch.device":
        return "device", True
    if _DEVICE.search(keyword):
        torchs = call is not None and code.name(call.func).startswith("torch.") and keyword == "device"
        return "device", not torchs
    if IMPLEMENTATION.search(keyword):
        return "implementation", True
    return f"pass the device in use as {keyword}, if it is one", True


def _by_call(call: ast.Call, argument: ast.expr, code: Code, pack: PackFacts) -> tuple[str, bool]:
    name = last_name(call)
    if _is_fallback(call, argument):
        return "device", True
    own = pack.parameters.get(name, ())
    if code.field(argument) == "args" and not any(isinstance(value, ast.Starred) for value in call.args):
        at = code.index(argument)
        if at < len(own) and _DEVICE.search(own[at]):
            return "device", True
    if code.field(argument) == "args" and _TAKES.search(name):
        return "device", not (name == "to" and call.args[0] is argument)
    if (
        name == "setattr"
        and len(call.args) == 3
        and argument is call.args[2]
        and isinstance(call.args[1], ast.Constant)
    ):
        return _by_names([str(call.args[1].value)])
    if name in ("append", "insert", "extend", "add"):
        owner = code.said(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        return _by_names([owner])
    if IMPLEMENTATION.search(name):
        return "implementation", True
    return f"pass the device in use to {name or 'the call'}, if it is one", True


def _is_fallback(call: ast.Call, argument: ast.expr) -> bool:
    """``options.get("device", "cuda")``: what is taken where nobody said a device."""
    key = call.args[-2] if last_name(call) in ("get", "pop", "setdefault", "getattr") and len(call.args) > 1 else None
    named = isinstance(key, ast.Constant) and isinstance(key.value, str) and bool(_DEVICE.search(key.value))
    return named and argument is call.args[-1]


def _by_names(names: list[str]) -> tuple[str, bool]:
    last = [name.rpartition(".")[2] for name in names]
    if any(_DEVICE.search(name) for name in last):
        return "device", True
    if any(IMPLEMENTATION.search(name) for name in last):
        return "implementation", True
    return f"{', '.join(names)}: the device in use, if it is one", True


def _by_key(table: ast.Dict, value: ast.AST, code: Code) -> tuple[str, bool]:
    if code.field(value) == "keys":
        return "a table of devices: add an entry for xpu", True
    key = table.keys[code.index(value)] if code.field(value) == "values" else None
    if key is not None and is_key_of_devices(key, code):
        return "device", True
    text = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""
    if text == "default":
        return "the default of a choice: change it with its list", True
    return _by_names([text])
