"""Why a file or a place stays as it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping

from patchforge.effort import spend, walk
from patchforge.engine.syntax import DEFINITIONS, FUNCTIONS, imported_modules, is_and, last_name
from patchforge.nodes import kernels
from patchforge.nodes.code import Code
from patchforge.nodes.known import PACKAGES
from patchforge.pattern import Kind, Site, Verdict, left

UNREACHABLE = "no node entry point leads to this file"

_MM = re.compile(r"(.*/)?(?:custom_)?mm(?:cv|seg|det|pose|engine)/")
_OPENMMLAB = re.compile(rb"OpenMMLab|MMCV_MIN|mmcv_version")
_OWN_XPU = re.compile(r"(^|/)(ipex|xpu)(/|_\w+\.py$|\.py$)", re.IGNORECASE)
_INSTALLER = re.compile(r"(^|/)install(_\w+)?\.py$")
_PIP = re.compile(r"^pip3?$|\bpip3? install\b")
_SETUPS = frozenset(("setuptools.setup", "distutils.core.setup"))
_XPU = re.compile(r"xpu", re.IGNORECASE)
_FOR_XPUS = re.compile(r"xpu|ipex|intel_extension", re.IGNORECASE)
_CUDA = re.compile(r"cuda", re.IGNORECASE)
_OURS = re.compile(r"^_patchforge_")
_GRAPHS = frozenset(("torch.cuda.CUDAGraph", "torch.cuda.graph", "torch.cuda.make_graphed_callables"))
_PROBES = re.compile(r"xformers|memory_efficient|flash_attn|sageattn|triton")
_PRINTS = re.compile(r"^(print|log|logs?_?\w*|info|warning|warn|debug|error|exception|format)$")
_LEAVE = re.compile(r"\bpatchforge: leave\b")  #: behind a #
_COMPILES = frozenset(
    f"torch.jit.{name}" for name in ("script", "script_if_tracing", "script_method", "export", "interface")
)
_OPTIONAL = (Kind.LOAD, Kind.FP64, Kind.OPERATOR)


def file_reason(code: Code, files: Mapping[str, bytes], *, reachable: bool) -> str:
    """Why no rule looks at a file; "" where they do, which is at every file that nodes lead to and an XPU can load.

    ``files``: the pack's. A copy of a library of OpenMMLab's is known by what its ``__init__.py`` says of it.
    """
    if not reachable:
        return UNREACHABLE
    if (library := _MM.match(code.path)) and _OPENMMLAB.search(files.get(f"{library[0]}__init__.py", b"")):
        return "a copy of OpenMMLab's library: for training, and for kernels that are built apart"
    imported = [module for node in code.tree.body for module in imported_modules(node)]  # in a try there is a way out
    known = sorted(package.module for package in PACKAGES if package.kernels and not package.loads)
    missing = [name for name in known if any(f"{module}.".startswith(f"{name}.") for module in imported)]
    return f"cannot be loaded without {', '.join(missing)}, which is for CUDA only" if missing else ""


def _kernel(node: ast.expr, _: Site, code: Code) -> str:
    return "in what is a kernel, or builds one" if kernels.builds(node, code) else ""


def _installs(node: ast.expr, _: Site, code: Code) -> str:
    """In an installer a function that runs pip, and in any file the arguments of ``setup``."""
    if any(isinstance(above, ast.Call) and code.name(above.func) in _SETUPS for above, _ in code.above(node)):
        return "an argument of setup(): nodes do not run it"
    pip = _INSTALLER.search(code.path) and code.mentions([_part(node, code)], _PIP)
    return "runs pip: what is chosen for CUDA is listed with the packages" if pip else ""


def _own_xpu(node: ast.expr, site: Site, code: Code) -> str:
    """In a file that is named for XPUs: what speaks of them, and what is put in the place of parts of torch."""
    if not _OWN_XPU.search(code.path):
        return ""
    replaced = site.kind is Kind.REPLACED or (site.kind is Kind.METHOD and site.text.startswith("torch."))
    own = code.mentions([code.tree if replaced else _part(node, code)], _FOR_XPUS)
    return "the pack's own code for XPUs" if own else ""


def _part(node: ast.expr, code: Code) -> ast.AST:
    """The function around a node, else the statement of the module or of a class."""
    for parent, child in code.above(node):
        if isinstance(parent, FUNCTIONS):
            return parent
        if isinstance(parent, (ast.Module, ast.ClassDef)):
            return child
    return node


def by_place(site: Site, code: Code) -> Verdict | None:
    """The verdict on a site that stays by where it stands; None where that says nothing."""
    if code.once(("leave", site.line), lambda: _says_leave(code.text.lines[site.line - 1])):
        return left([site], "its author says so")
    for reason, runs_on_xpu in _REASONS.items():
        if text := reason(site.node, site, code):
            return left([site], text, runs_on_xpu=runs_on_xpu)
    return None


def _says_leave(line: str) -> bool:
    spend(1 + len(line) // 64)
    return bool(_LEAVE.search(line, max(line.find("#"), 0))) and "#" in line


def _scripted(node: ast.expr, _: Site, code: Code) -> str:
    scripts = code.once("scripts", lambda: _for_torchscript(code))
    scripted = bool(scripts) and any(parent in scripts for parent, _ in code.above(node))
    return "in a function for TorchScript, which cannot call ours" if scripted else ""


def _unplaced(node: ast.expr, _: Site, code: Code) -> str:
    return "" if code.placed(node) else "in an f-string whose place this Python cannot tell"


def _for_torchscript(code: Code) -> frozenset[ast.AST]:
    """Functions and classes that TorchScript compiles: marked, handed to it by name, or used by one of those."""
    if "jit" not in code.source.text:
        return frozenset()
    coming: list[ast.AST] = []
    handed: set[str] = set()
    for node in code.nodes:
        if isinstance(node, DEFINITIONS) and any(code.name(mark) in _COMPILES for mark in node.decorator_list):
            coming.append(node)
        elif isinstance(node, ast.Call) and code.name(node.func) in _COMPILES:
            handed |= _names(node)
    known = {node.name: node for node in code.tree.body if isinstance(node, DEFINITIONS)}
    coming += [known.pop(name) for name in handed & known.keys()]
    compiled: set[ast.AST] = set()
    while coming:
        compiled.add(definition := coming.pop())
        coming += [known.pop(name) for name in _names(definition) & known.keys()]
    return frozenset(compiled)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in walk(node) if isinstance(part, ast.Name)}


def _main(node: ast.expr, _: Site, code: Code) -> str:
    for parent, child in code.above(node):
        if isinstance(parent, ast.If) and parent.test is not child and code.parent(parent) is code.tree:
            return "under __main__: ComfyUI does not run it" if _asks_name(parent, code) else ""
    return ""


def _asks_name(branch: ast.If, code: Code) -> bool:
    return code.once(("main", branch), lambda: bool(code.named("__name__", branch.test)))


def _beside_xpu(node: ast.expr, site: Site, code: Code) -> str:
    """Somebody has thought of XPUs here already, or this is our own edit."""
    if site.kind in _OPTIONAL:
        return ""
    if site.function.partition(".")[0].startswith("_patchforge_"):
        return "patchforge's own"
    there = "an XPU arm stands beside it"
    for parent, child in code.above(node):
        if isinstance(parent, ast.If) and child not in parent.orelse and _beside(parent, child, code):
            return there
        if (
            (isinstance(parent, (ast.If, ast.IfExp)) and (_before(parent, code) or _behind(parent, code)))
            or (
                isinstance(parent, (ast.BoolOp, ast.Compare, ast.List, ast.Tuple, ast.Set))
                and code.mentions([parent], _XPU)
            )
            or (isinstance(parent, ast.Call) and code.name(parent.func).startswith(("_patchforge_", "torch.xpu")))
        ):
            return there
        if isinstance(parent, ast.stmt):
            if isinstance(parent, (ast.If, ast.For, ast.While, ast.With, ast.Try)):
                continue
            if isinstance(parent, DEFINITIONS):
                return ""
    return ""


def _beside(branch: ast.If, child: ast.AST, code: Code) -> bool:
    if child is branch.test and (_asked_next(branch, code) or _chosen_before(branch, code)):
        return True
    return code.mentions([branch.test], _CUDA) and code.once(("neighbour", branch), lambda: _neighbour(branch, code))


def _neighbour(branch: ast.If, code: Code) -> bool:
    """Whether an ``if`` of the pack's own for XPUs, or ``xpu = getattr(torch, "xpu", None)``, stands next to CUDA's.

    Other tests and assignments may stand between.
    """
    block, at = code.block(branch), code.index(branch)
    return any(_for_xpus(other, code) for way in (block[at + 1 :], block[:at][::-1]) for other in _tests(way))


def _tests(way: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in way:
        if not isinstance(statement, (ast.If, ast.Assign)):
            return
        spend()
        yield statement


def _for_xpus(statement: ast.stmt, code: Code) -> bool:
    """An ``if`` that asks for XPUs alone, or what is made of ``torch.xpu`` for one."""
    asked = statement.test if isinstance(statement, ast.If) else statement
    return code.mentions([asked], _XPU) and not code.mentions([asked], _CUDA) and not code.mentions([asked], _OURS)


def _asked_next(branch: ast.If, code: Code) -> bool:
    """Whether another ``if`` of the same block asks torch for XPUs."""
    block = code.parent(branch)
    if block is None or code.field(branch) != "body":
        return False
    asking = code.once(
        ("asking", block), lambda: [statement for statement in getattr(block, "body", []) if _asks(statement, code)]
    )
    return any(statement is not branch for statement in asking[:2])


def _chosen_before(branch: ast.If, code: Code) -> bool:
    """Whether our line stands before an ``if``: a "cuda" was taken for the XPU."""
    before = code.block(branch)[code.index(branch) - 1] if code.index(branch) else None
    value = before.value if isinstance(before, ast.Assign) else None
    return isinstance(value, ast.Call) and code.name(value.func) == "_patchforge_choice"


def _asks(statement: ast.AST, code: Code) -> bool:
    return isinstance(statement, ast.If) and "xpu.is_available" in code.said(statement.test)


def _before(arm: ast.If | ast.IfExp, code: Code) -> bool:
    """Whether the test of an arm, or of one that it is in the ``else`` of, mentions XPUs."""
    chain = [arm]
    while (key := ("before", chain[-1])) and not code.knows(key):
        above = code.parent(chain[-1])
        if not isinstance(above, type(arm)) or code.field(chain[-1]) != "orelse":
            break
        chain.append(above)
    asked = False
    for branch in reversed(chain):
        asked = code.once(("before", branch), lambda: asked or code.mentions([branch.test], _XPU))  # noqa: B023
    return asked


def _behind(arm: ast.If | ast.IfExp, code: Code) -> bool:
    """Whether the test of an arm behind one mentions XPUs; an ``else`` with more in it ends the chain."""
    chain = [arm]
    while not code.knows(("behind", chain[-1])) and isinstance(following := _else(chain[-1]), type(arm)):
        chain.append(following)
    asked = after = False
    for branch in reversed(chain):
        after = code.once(("behind", branch), lambda: asked)  # noqa: B023
        asked = after or code.mentions([branch.test], _XPU)
    return after


def _else(arm: ast.If | ast.IfExp) -> ast.AST | None:
    rest = arm.orelse
    if isinstance(rest, list):
        return rest[0] if len(rest) == 1 else None
    return rest


_PROBE = "a probe for a CUDA library: it must fail without CUDA"


def _probe(node: ast.expr, _: Site, code: Code) -> str:
    """``try: xformers.ops.memory_efficient_attention(torch.randn(…, device="cuda"))``: must fail without CUDA."""
    for parent, child in code.above(node):
        tried = parent.body if isinstance(parent, ast.Try) else []
        if child in tried and len(tried) <= 6 and code.mentions(tried, _PROBES):
            return _PROBE
        if isinstance(parent, FUNCTIONS):
            return _PROBE if "xformers" in parent.name or "memory_efficient_attention" in parent.name else ""
    return ""


_BY_CPM = re.compile(r"^cpm_kernels\b")
_CALLED_BY_CPM = re.compile(r"^kernels$")
_ENGINE = re.compile(r"create_execution_context|deserialize_cuda_engine|execute_async_v\d|set_tensor_address|trt\.")


def _beside_kernels(node: ast.expr, site: Site, code: Code) -> str:
    """What stands in a function beside a TensorRT engine, or beside kernels that cpm_kernels compiles."""
    scope = code.scope(node)
    if site.kind not in (Kind.API, Kind.LITERAL, Kind.METHOD, Kind.OTHER) or scope is code.tree:
        return ""
    if code.mentions([scope], _ENGINE):
        return "beside a TensorRT engine, which is for CUDA only"
    compiled = code.mentions([code.tree], _BY_CPM) and code.mentions([scope], _CALLED_BY_CPM)
    return "beside kernels of cpm_kernels, which are for CUDA only" if compiled else ""


def _rocm(node: ast.expr, _: Site, code: Code) -> str:
    """``torch.version.hip is not None and torch.cuda.device_count() > 1``: no XPU comes there."""
    for parent, child in code.above(node):
        tests: list[ast.expr] = []
        if is_and(parent):
            tests = parent.values[: parent.values.index(child)] if child in parent.values else []
        elif isinstance(parent, ast.If) and child in parent.body:
            tests = parent.test.values if isinstance(parent.test, ast.BoolOp) else [parent.test]
        if any(_asks_for_rocm(test, code) for test in tests):
            return "behind a test for ROCm"
        if isinstance(parent, DEFINITIONS):
            return ""
    return ""


def _asks_for_rocm(test: ast.expr, code: Code) -> bool:
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.IsNot, ast.NotEq)):
        test = test.left
    return code.name(test) == "torch.version.hip"


def _captured(node: ast.expr, site: Site, code: Code) -> str:
    """What stands in one block with the making of a CUDA graph, or in a block in that one."""
    blocks = code.once("graphs", lambda: _making_graphs(code))
    if site.text in _GRAPHS or not blocks:
        return ""
    inside = any(child in blocks for _, child in code.above(node))
    return "beside the capture of a CUDA graph, which an XPU has to do without" if inside else ""


def _making_graphs(code: Code) -> frozenset[ast.AST]:
    """The statements of every branch or function that makes a CUDA graph."""
    statements: set[ast.AST] = set()
    for node in code.nodes:
        if isinstance(node, ast.Call) and code.name(node.func) in _GRAPHS:
            statements.update(_block(node, code))
    return frozenset(statements)


def _block(node: ast.AST, code: Code) -> list[ast.stmt]:
    for parent, child in code.above(node):
        if isinstance(parent, (ast.If, *DEFINITIONS)):
            return code.block(child)
    return []


def _attribute(node: ast.expr, site: Site, code: Code) -> str:
    """``hasattr(torch, "cuda")``, but not the method of a tensor, which is called by its name."""
    parent = code.parent(node)
    asks = isinstance(parent, ast.Call) and getattr(parent.func, "id", "") in (
        "hasattr",
        "getattr",
        "setattr",
        "delattr",
    )
    if not asks or site.kind is not Kind.LITERAL or not isinstance(parent, ast.Call) or parent.args[1:2] != [node]:
        return ""
    return "" if names_method(parent, code) else "the name of an attribute"


def names_method(call: ast.Call, code: Code) -> bool:
    """``getattr(x, "cuda")``, alone or called, of what is no module of torch: ``x.cuda`` in other words."""
    if getattr(call.func, "id", "") != "getattr":
        return False
    around, owner = code.parent(call), code.name(call.args[0])
    module = owner.partition(".")[0] == "torch" and owner.rpartition(".")[2].islower()
    called = isinstance(around, ast.Call) and around.func is call
    return not module and (called or len(call.args) == 2)


def _wording(node: ast.expr, site: Site, code: Code) -> str:
    """The word "cuda" that is not a device."""
    if site.kind not in (Kind.LITERAL, Kind.AVAILABLE) and site.text != "torch.cuda":
        return ""
    if any(isinstance(above, ast.Call) and _is_argparse(above) for above, _ in code.above(node)):
        return "an option of a script's command line"
    if site.kind is Kind.AVAILABLE:
        return ""
    compare = next((above for above, _ in code.above(node) if isinstance(above, ast.Compare)), None)
    graph = compare is not None and code.once(("graph", compare), lambda: _in_graph(compare, code))
    return "in a TorchScript graph: a string baked into a checkpoint" if graph or _of_node(node, code) else ""


def _of_node(node: ast.expr, code: Code) -> bool:
    """``node["value"].startswith("cuda")``."""
    parent = code.parent(node)
    asked, key = (parent.func, "node[") if isinstance(parent, ast.Call) else (parent, "[")
    return isinstance(asked, ast.Attribute) and asked.attr == "startswith" and key in code.said(asked)


def _in_graph(compare: ast.Compare, code: Code) -> bool:
    return any("value" in text and "[" in text for text in map(code.said, (compare.left, *compare.comparators)))


def _is_argparse(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"


def _message(node: ast.expr, site: Site, code: Code) -> str:
    """A device that is only printed."""
    if site.kind not in (Kind.AVAILABLE, Kind.OWN_QUESTION, Kind.BUILD, Kind.IS_CUDA, Kind.LITERAL):
        return ""
    for parent, child in code.above(node):
        if isinstance(parent, ast.Call) and child is not parent.func:
            name = last_name(parent)
            owner = code.said(parent.func)
            if (_PRINTS.match(name) and name != "format") or re.search(r"\b(log|logger|logging)\.", owner):
                return "only printed"
            return ""
        if isinstance(parent, (ast.stmt, ast.Lambda)):
            return ""
    return ""


#: What a place may say, and whether an XPU may come there all the same. The first that speaks is heard.
_REASONS: dict[Callable[[ast.expr, Site, Code], str], bool] = {
    _main: False,
    _kernel: False,
    _installs: False,
    _own_xpu: True,
    _beside_xpu: True,
    _probe: False,
    _beside_kernels: False,
    _rocm: False,
    _captured: False,
    _attribute: True,
    _wording: False,
    _message: True,
    _scripted: False,
    _unplaced: False,
}
