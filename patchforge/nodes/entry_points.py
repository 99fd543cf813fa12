"""Which files of a pack ComfyUI can come to: the closure of imports from the node entry points.

It errs on the side of too many. Imports are found by text, so that a file which this Python cannot parse counts too.
A folder's name says nothing: ``scripts/`` is production where a node imports from it. Only tests and setup are not
entry points by themselves. A text that is the name of a file or module of the pack leads there (registries, workers
that are started), and in a file that loads others by a path or a name put together so does the name of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from patchforge import effort
from patchforge.effort import TooIntricate, spend

_ENTRY = re.compile(rb"NODE_CLASS_MAPPINGS|INPUT_TYPES|define_schema|comfy_entrypoint")
_FROM = re.compile(
    rb"(?:^|[:;])[ \t]*from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]+(?:\\\r?\n[^\n#;]+)*)", re.MULTILINE
)
_IMPORT = re.compile(rb"(?:^|[:;])[ \t]*import[ \t]+([\w., \t]+)", re.MULTILINE)
_NAMED = re.compile(
    rb"(?:import_module|__import__)\(\s*f?['\"]([.\w]+)['\"]|['\"]?target['\"]?\s*[:=]\s*['\"]?\.*(\w+(?:\.\w+)+)"
)
_NAME = re.compile(rb"\w+")
#: A text that is the name of a file, or of what stands in a module, wherever it is: registries, workers, commands.
_MEANT = re.compile(rb"""['"/\\]([\w-]+\.py)['"]|['"](\w+(?:\.\w+){2,})['"]""")
_ASIDE = re.compile(
    r"(^|/)tests?/|(^|/)(test|setup|conftest|noxfile|install)(_\w+)?\.py$|(^|/)\w+_test\.py$", re.IGNORECASE
)
_LOADS = re.compile(rb"spec_from_file_location|SourceFileLoader|import_module|__import__|run_path|load_source")
_TEXT = re.compile(rb"""(?<![\w\\])[fFrRbB]{0,2}(?:"([^"\\\n]{1,200})"|'([^'\\\n]{1,200})')""")


def reachable(files: Mapping[str, bytes]) -> frozenset[str]:
    """The Python files that entry points lead to; all of them where there is no entry point.

    ``files``: every Python and YAML file of the pack (configurations name classes by their dotted path).
    """
    python = {path for path in files if path.endswith(".py")}
    own = {path for path in python if not _ASIDE.search(path)}
    seeds = {path for path in own if path == "__init__.py" or _ENTRY.search(files[path])}
    if not seeds:
        return frozenset(own)
    try:
        with effort.at_most(effort.for_all(map(len, files.values()))):
            return _closure(files, python, seeds)
    except TooIntricate:
        return frozenset(own)


def _closure(files: Mapping[str, bytes], python: set[str], seeds: set[str]) -> frozenset[str]:
    index = _Index(python)
    seeds |= {
        module
        for path, data in files.items()
        if not path.endswith(".py")
        for match in _NAMED.finditer(data)
        if match[2]
        for module in index.absolute(match[2].decode("latin-1"))
    }
    seen: set[str] = set()
    todo = sorted(seeds)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo.extend(target for target in _imports(path, files[path], index) if target not in seen)
        todo.extend(package for package in _packages(path, python) if package not in seen)
    return frozenset(seen)


class _Index:
    """The modules of a pack by their names' last parts."""

    def __init__(self, python: set[str]) -> None:
        self.python = python
        self.modules: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self.asked: set[str] = set()
        self.folders: dict[str, list[str]] = {}
        self.named: dict[str, list[str]] = {}
        for path in sorted(python):
            folder, _, name = path.rpartition("/")
            self.folders.setdefault(folder, []).append(path)
            self.named.setdefault(name, []).append(path)
            if parts := _module(path):
                self.modules.setdefault(parts[-1], []).append((parts, path))

    def absolute(self, target: str) -> Iterator[str]:
        """Packs put folders of theirs on ``sys.path``: every file whose path ends with the module's name may be meant.

        The module's last part may also be a class, so its parent counts too. Each name is answered once.
        """
        if target not in self.asked:
            self.asked.add(target)
            yield from self.modules_of(tuple(target.split(".")))

    def modules_of(self, parts: tuple[str, ...]) -> Iterator[str]:
        """The files of a module by the end of its name; its last part may be what stands in it."""
        for wanted in (parts, parts[:-1]):
            for module, path in self.modules.get(wanted[-1], ()) if wanted else ():
                spend()
                if module[-len(wanted) :] == wanted:
                    yield path

    def meant(self, text: str) -> Iterator[str]:
        """What a text names by itself: a file that is not a test, or a module by two parts of its name at least."""
        if text in self.asked:
            return
        self.asked.add(text)
        if text.endswith(".py"):
            named = self.named.get(text, ()) if text != "__init__.py" else ()
            yield from (path for path in named if not _ASIDE.search(path))
            return
        yield from self.modules_of(tuple(text.split(".")))

    def within(self, folder: str) -> Iterator[str]:
        """The files of a folder that all are loaded; nobody means its tests."""
        return (path for path in self.folders.get(folder, ()) if not _ASIDE.search(path))

    def loaded(self, path: str, text: str) -> Iterator[str]:
        """What a loader's text may mean: a file by its name, all files of a folder, or of the loader's own."""
        folder = path.rpartition("/")[0]
        plain = re.sub(r"\{[^{}]*\}", "", text).replace("\\", "/").strip("./*")
        if text.endswith(".py"):
            wanted = plain.removesuffix(".py").rpartition("/")[2]
            yield from self.named.get(f"{wanted}.py", ()) if wanted and plain != "py" else self.within(folder)
            return
        if not re.fullmatch(r"[\w./-]+", plain):
            return
        below = plain.replace(".", "/")
        for top in {folder, ""}:
            yield from self.within(f"{top}/{below}".strip("/"))
        yield from self.absolute(plain.replace("/", "."))


def _module(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).with_suffix("").parts
    return parts[:-1] if parts and parts[-1] == "__init__" else parts


def _packages(path: str, python: set[str]) -> Iterator[str]:
    for parent in PurePosixPath(path).parents:
        init = "__init__.py" if str(parent) == "." else f"{parent}/__init__.py"
        if init in python:
            yield init


def _imports(path: str, data: bytes, index: _Index) -> Iterator[str]:
    data = re.sub(rb"\\\r?\n", b" ", data)
    for match in _FROM.finditer(data + b")"):  # one that is never closed would be looked for again and again
        base = match[1].decode("latin-1")
        names = [name.decode() for name in _NAME.findall(match[2])]
        for target in (base, *(f"{base}{'' if base.endswith('.') else '.'}{name}" for name in names)):
            yield from _resolve(path, target, index)
    for match in _IMPORT.finditer(data):
        for part in match[1].decode(errors="replace").split(","):
            yield from _resolve(path, part.split(" as ")[0].strip(), index)
    for match in _NAMED.finditer(data):
        yield from _resolve(path, (match[1] or match[2]).decode("latin-1"), index)
    for match in _MEANT.finditer(data):
        yield from index.meant((match[1] or match[2]).decode("latin-1"))
    if _LOADS.search(data):
        for text in {match[1] or match[2] for match in _TEXT.finditer(data)}:
            spend()
            yield from index.loaded(path, text.decode("latin-1"))


def _resolve(path: str, target: str, index: _Index) -> Iterator[str]:
    spend()
    if not target.startswith("."):
        yield from index.absolute(target)
        return
    rest = target.lstrip(".")
    parents = PurePosixPath(path).parents
    folder = parents[min(len(target) - len(rest), len(parents)) - 1]
    place = folder.joinpath(*rest.split(".")) if rest else folder
    yield from (file for file in (f"{place}.py", str(place / "__init__.py")) if file in index.python)
