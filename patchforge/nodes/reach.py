"""Which files of a pack ComfyUI can come to: the closure of imports from the node entry points.

It errs on the side of too many. Imports are found by text, so that a file which this Python cannot parse counts too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

_ENTRY = re.compile(rb"NODE_CLASS_MAPPINGS|INPUT_TYPES|define_schema|comfy_entrypoint")
_FROM = re.compile(
    rb"^[ \t]*from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]+(?:\\\r?\n[^\n#;]+)*)", re.MULTILINE
)
_IMPORT = re.compile(rb"^[ \t]*import[ \t]+([\w., \t]+)", re.MULTILINE)
_NAMED = re.compile(
    rb"(?:import_module|__import__)\(\s*f?['\"]([.\w]+)['\"]|['\"]?target['\"]?\s*[:=]\s*['\"]?(\w+(?:\.\w+)+)"
)
_NAME = re.compile(rb"\w+")


def reachable(files: Mapping[str, bytes]) -> frozenset[str]:
    """The Python files that entry points lead to; all of them where there is no entry point.

    ``files``: every Python and YAML file of the pack (configurations name classes by their dotted path).
    """
    python = {path for path in files if path.endswith(".py")}
    seeds = {path for path in python if path == "__init__.py" or _ENTRY.search(files[path])}
    if not seeds:
        return frozenset(python)
    index = _index(python)
    seeds |= {
        found
        for path, data in files.items()
        if not path.endswith(".py")
        for match in _NAMED.finditer(data)
        if match[2]
        for found in _absolute(match[2].decode(), index)
    }
    seen: set[str] = set()
    todo = sorted(seeds)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo.extend(found for found in _imports(path, files[path], python, index) if found not in seen)
        todo.extend(found for found in _packages(path, python) if found not in seen)
    return frozenset(seen)


def _index(python: set[str]) -> dict[str, list[str]]:
    """Last part of a module's name → its files."""
    index: dict[str, list[str]] = {}
    for path in sorted(python):
        parts = _module(path)
        if parts:
            index.setdefault(parts[-1], []).append(path)
    return index


def _module(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).with_suffix("").parts
    return parts[:-1] if parts and parts[-1] == "__init__" else parts


def _packages(path: str, python: set[str]) -> Iterator[str]:
    for parent in PurePosixPath(path).parents:
        init = "__init__.py" if str(parent) == "." else f"{parent}/__init__.py"
        if init in python:
            yield init


def _imports(path: str, data: bytes, python: set[str], index: Mapping[str, list[str]]) -> Iterator[str]:
    for match in _FROM.finditer(data):
        base = match[1].decode()
        names = [name.decode() for name in _NAME.findall(match[2])]
        for target in (base, *(f"{base}{'' if base.endswith('.') else '.'}{name}" for name in names)):
            yield from _resolve(path, target, python, index)
    for match in _IMPORT.finditer(data):
        for part in match[1].decode(errors="replace").split(","):
            yield from _resolve(path, part.split(" as ")[0].strip(), python, index)
    for match in _NAMED.finditer(data):
        yield from _resolve(path, (match[1] or match[2]).decode(), python, index)


def _resolve(path: str, target: str, python: set[str], index: Mapping[str, list[str]]) -> Iterator[str]:
    if not target.startswith("."):
        yield from _absolute(target, index)
        return
    rest = target.lstrip(".")
    folder = PurePosixPath(path).parent
    for _ in range(len(target) - len(rest) - 1):
        folder = folder.parent
    place = folder.joinpath(*rest.split(".")) if rest else folder
    yield from (found for found in (f"{place}.py", str(place / "__init__.py")) if found in python)


def _absolute(target: str, index: Mapping[str, list[str]]) -> Iterator[str]:
    """Packs put folders of theirs on ``sys.path``: every file whose path ends with the module's name may be meant.

    The module's last part may also be a class, so its parent counts too.
    """
    parts = tuple(target.split("."))
    for wanted in (parts, parts[:-1]):
        if wanted:
            yield from (found for found in index.get(wanted[-1], ()) if _module(found)[-len(wanted) :] == wanted)
