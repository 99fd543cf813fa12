"""What a pack needs beside torch, and what of it stands in an XPU's way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from patchforge import effort
from patchforge.effort import TooIntricate
from patchforge.engine.blocks import UnreadableSource, parsed
from patchforge.engine.syntax import imported_modules
from patchforge.nodes.known import PACKAGES, REPLACES
from patchforge.nodes.pack import Pack

#: Those that are in the way, by the module that is imported.
BLOCKERS = {package.module: package for package in PACKAGES if package.advice}
_CUDA_WHEELS = re.compile(r"^(cupy(-cuda\w+)?|nvidia-[\w-]+|tensorrt[\w-]*|pycuda|flash[-_]attn[\w-]*)$")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)(?:\s*\[[^\]]*\])?(?=\s*(?:[<>=!~;@]|$)|\s)")
_INSTALLER = re.compile(r"(install|prestartup_script|setup_env)(_\w+)?\.py")
_WHEELS = re.compile(r"(^|[/+\W_])cu1[0-9]\d\b|/whl/cu|pypi\.ngc\.nvidia")
_LONGEST = 2000  #: characters of a line; no requirement has more
_INDEX = re.compile(r"^\s*(--(extra-)?index-url|-f|--find-links)\b.*(cu\d{2,3}|nvidia)")


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """A package that is in an XPU's way. ``blocks``: the node cannot be loaded without it."""

    path: str
    line: int
    package: str
    advice: str
    blocks: bool = False


def needs(pack: Pack) -> tuple[Need, ...]:
    """Imports that lead to CUDA-only packages, and requirements that would replace torch for XPUs; sorted."""
    packages = {need for path in pack.reachable for need in _imports(path, pack.files[path])}
    packages |= {need for path, data in pack.files.items() for need in _required(path, data)}
    return tuple(sorted(packages))


def _imports(path: str, data: bytes) -> Iterator[Need]:
    if not any(name.encode() in data for name in BLOCKERS):
        return
    try:
        with effort.at_most(effort.FILE):
            yield from _blockers(path, parsed(data))
    except (SyntaxError, ValueError, UnreadableSource, TooIntricate):
        return  # the driver says so


def _blockers(path: str, tree: ast.Module) -> Iterator[Need]:
    outer, seen = set(map(id, tree.body)), set[str]()
    for node in effort.walk(tree):
        for name in {module.partition(".")[0] for module in imported_modules(node)} & BLOCKERS.keys() - seen:
            seen.add(name)
            blocks = id(node) in outer and BLOCKERS[name].needed
            yield Need(path, getattr(node, "lineno", 1), name, BLOCKERS[name].advice, blocks=blocks)


def _advice(package: str) -> str:
    """What to do about a distribution that is asked for; "" where it is in nobody's way."""
    return REPLACES.get(package) or ("CUDA only: take it out" if _CUDA_WHEELS.match(package) else "")


def _installed(path: str, data: bytes) -> Iterator[Need]:
    """What an installer chooses: texts that name a package or an index of wheels for CUDA."""
    try:
        with effort.at_most(effort.FILE):
            texts = [node for node in effort.walk(parsed(data)) if isinstance(node, ast.Constant)]
    except (SyntaxError, ValueError, UnreadableSource, TooIntricate):
        return
    for node in texts:
        if not isinstance(node.value, str) or len(node.value) > _LONGEST:
            continue
        match = _REQUIREMENT.fullmatch(node.value.partition("=")[0].rstrip("<>=!~"))
        package = canonicalize_name(match[1]) if match else ""
        if advice := _advice(package):
            yield Need(path, node.lineno, package, f"installed by {path}: {advice}")
        elif _WHEELS.search(node.value):
            yield Need(path, node.lineno, node.value.strip()[:80], f"wheels for CUDA, chosen by {path}: leave them out")


def _required(path: str, data: bytes) -> Iterator[Need]:
    name = path.rpartition("/")[2]
    if _INSTALLER.fullmatch(name):
        yield from _installed(path, data)
        return
    if name.startswith("requirements") and name.endswith(".txt"):
        lines = list(enumerate(data.decode(errors="replace").splitlines(), 1))
    elif path == "pyproject.toml":
        lines = list(_dependencies(data.decode(errors="replace")))
    elif re.fullmatch(r"comfy-env(-root)?\.toml", name):
        yield from _for_cuda(path, data.decode(errors="replace"))
        return
    else:
        return
    for number, text in lines:
        if len(text) > _LONGEST:
            yield Need(path, number, f"{text[:40].strip()}…", f"a line of {len(text)} characters: look at it")
            continue
        if _INDEX.search(text):
            yield Need(path, number, text.strip(), "an index of CUDA wheels: take it out")
        match = _REQUIREMENT.match(text)
        package = canonicalize_name(match[1]) if match else ""
        if advice := _advice(package):
            yield Need(path, number, package, advice)


def _for_cuda(path: str, text: str) -> Iterator[Need]:
    """The wheels that comfy-env fetches for CUDA: all in ``packages`` of its ``[cuda]``."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        table = line.strip() if line.lstrip().startswith("[") else table
        if table == "[cuda]" and len(line) <= _LONGEST:
            for name in re.findall(r"[\"']([A-Za-z0-9][\w.-]*)[\"']", line.partition("#")[0]):
                package = canonicalize_name(name)
                advice = REPLACES.get(package, "a wheel for CUDA only: no replacement")
                yield Need(path, number, package, f"fetched by comfy-env for CUDA: {advice}")


def _dependencies(text: str) -> Iterator[tuple[int, str]]:
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        inside = inside or line.replace(" ", "").startswith("dependencies=[")
        if inside:
            yield from ((number, requirement) for requirement in re.findall(r"[\"']([^\"']+)[\"']", line))
        if inside and "]" in re.sub(r"[\"'][^\"']*[\"']", "", line):
            inside = False
