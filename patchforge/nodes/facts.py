"""What rules may know of the rest of a pack: its own questions for CUDA, and how its functions are called."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

from patchforge import effort
from patchforge.effort import TooIntricate, spend, walk
from patchforge.engine.blocks import REFUSED, UnreadableSource, parsed, why_refused
from patchforge.engine.syntax import FUNCTIONS, after_docstring, by_position, called_by, last_name
from patchforge.errors import CheckFailed
from patchforge.nodes.census import sites
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import Handed, ready
from patchforge.nodes.cuts import cut_parameters
from patchforge.nodes.decide import decide
from patchforge.nodes.known import Package
from patchforge.nodes.libraries import flows
from patchforge.nodes.pack import Pack, PackProblem
from patchforge.pattern import Options, PackFacts, Site, Verdict

WORD = re.compile(rb"[\w\x80-\xff]+")
_DEFINED = re.compile(rb"(?:def|class)[ \t]+(\w+)")
_TO_CUDA = frozenset(f"self.to({device})" for device in ("'cuda'", "torch.device('cuda')", "device='cuda'"))

Call = tuple[int, frozenset[str], bool]  #: number of positional arguments, keywords, takes * or **
T = TypeVar("T")


class Problems:
    """What could not be looked at: one file's trouble is no other's."""

    def __init__(self, known: Iterable[PackProblem]) -> None:
        self.known = set(known)

    @contextmanager
    def of(self, path: str) -> Iterator[None]:
        """What is wrong with a file becomes a problem of that file, and the work on it ends."""
        try:
            with effort.at_most(effort.FILE):
                yield
        except CheckFailed as error:
            self.known.add(PackProblem(path, 1, error.problem))
        except REFUSED as error:
            self.known.add(PackProblem(path, *why_refused(error)))

    def told(self, codes: Mapping[str, Code], ask: Callable[[Code], Iterable[T]]) -> Iterator[T]:
        """What every file answers, as far as it can be asked."""
        for path, code in codes.items():
            with self.of(path):
                yield from ask(code)

    def sorted(self) -> tuple[PackProblem, ...]:
        return tuple(sorted(self.known))


def facts(
    pack: Pack,
    codes: Mapping[str, Code],
    options: Options,
    questions: frozenset[tuple[str, str]],
    problems: Problems | None = None,
) -> PackFacts:
    """What the rules may know of a pack. ``codes``: its files that are looked at; ``questions``: ``own_questions``."""
    problems = problems or Problems(())
    return PackFacts(
        options,
        own_cuda=_own_cuda(codes.values()),
        own_questions=questions,
        calls=_calls(pack, codes, problems),
        parameters=_parameters(pack, codes, problems),
        cuts=_cuts(codes, problems),
        devices=_device_lists(codes.values()),
        elsewhere=_Elsewhere(pack),
        foreign=_handed_to_libraries(codes, problems),
        ready=_Ready(codes, options, questions),
    )


def _cuts(codes: Mapping[str, Code], problems: Problems) -> dict[str, frozenset[int | str]]:
    cuts: dict[str, frozenset[int | str]] = {}
    for name, places in problems.told(codes, cut_parameters):
        cuts[name] = cuts.get(name, frozenset()) | places
    return cuts


class _Ready:
    """Answers whether the pack's files are ready for what they are handed: each is decided about once, when asked."""

    def __init__(self, codes: Mapping[str, Code], options: Options, questions: frozenset[tuple[str, str]]) -> None:
        self.codes, self.around = codes, PackFacts(options, own_questions=questions)
        self.known: dict[str, dict[Site, Verdict]] = {}
        self.defined: dict[str, list[str]] | None = None

    def __call__(self, handed: Handed) -> bool:
        try:
            return all(self.at(path, handed) for path in self.places(handed.called))
        except TooIntricate:
            return False

    def at(self, path: str, handed: Handed) -> bool:
        verdicts = self.decided(path)
        return ready(self.codes[path], handed, tuple(verdicts), verdicts)

    def places(self, name: str) -> list[str]:
        """The files that define a function or a class of that name; nothing where several do, as none may be meant."""
        if self.defined is None:
            self.defined = {}
            for path, code in self.codes.items():
                for node in code.nodes:
                    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                        self.defined.setdefault(node.name, []).append(path)
        paths = self.defined.get(name, [])
        return paths if len(paths) == 1 else []

    def decided(self, path: str) -> dict[Site, Verdict]:
        if path not in self.known:
            code = self.codes[path]
            file_sites = sites(code, self.around.own_questions)
            self.known[path] = decide(code, replace(self.around, sites=file_sites))
        return self.known[path]


class _Elsewhere:
    """Answers whether another file may read a name: by its text, as an import of it may be written in many ways."""

    def __init__(self, pack: Pack) -> None:
        self.files = {path: data for path, data in pack.files.items() if path.endswith(".py")}
        self.known: dict[str, frozenset[str]] = {}

    def __call__(self, name: str, path: str) -> bool:
        if name not in self.known:
            owner = rb"\bself\." if name == "is_cuda" else rb"\b"  # any other x.is_cuda is a tensor's
            pattern = re.compile(owner + re.escape(name.encode()) + rb"\b")
            spend(1 + sum(map(len, self.files.values())) // 1000)
            self.known[name] = frozenset(path for path, data in self.files.items() if pattern.search(data))
        return not self.known[name] <= {path}


def own_questions(code: Code) -> Iterator[tuple[str, str]]:
    """(module, function) of the functions that only say whether CUDA is there."""
    for node in code.tree.body:
        if isinstance(node, ast.FunctionDef) and not any(ast.iter_child_nodes(node.args)) and _only_asks(node, code):
            yield PurePosixPath(code.path).stem, node.name


def _only_asks(function: ast.FunctionDef, code: Code) -> bool:
    body = after_docstring(function)
    value = body[0].value if len(body) == 1 and isinstance(body[0], ast.Return) else None
    return isinstance(value, ast.Call) and code.name(value.func) == "torch.cuda.is_available"


def _own_cuda(codes: Iterable[Code]) -> frozenset[str]:
    """Classes that define ``cuda`` themselves, where calling ``to`` may not be the same."""
    classes = ((node, code) for code in codes for node in code.nodes if isinstance(node, ast.ClassDef))
    return frozenset(owner.name for owner, code in classes if not _moves_as_to(owner, code))


def _moves_as_to(owner: ast.ClassDef, code: Code) -> bool:
    """No ``cuda``, or ``self.to("cuda")`` in it beside a ``to`` that hands its device to others' ``to`` alone."""
    methods = {method.name: method for method in owner.body if isinstance(method, ast.FunctionDef)}
    if (cuda := methods.get("cuda")) is None:
        return True
    body = after_docstring(cuda)
    call = body[0].value if len(body) == 1 and isinstance(body[0], (ast.Expr, ast.Return)) else None
    if not isinstance(call, ast.Call) or ast.unparse(call) not in _TO_CUDA or (to := methods.get("to")) is None:
        return False
    names = [argument.arg for argument in to.args.args[1:]]
    parents = [code.parent(use) for use in code.named(names[0], to)] if len(names) == 1 else []
    return bool(parents) and all(isinstance(parent, ast.Call) and last_name(parent) == "to" for parent in parents)


def _device_lists(codes: Iterable[Code]) -> frozenset[str]:
    """The functions that put CUDA's devices into a list."""
    return frozenset(
        function.name
        for code in codes
        for node in code.nodes
        if isinstance(node, ast.ListComp) and isinstance(node.elt, ast.JoinedStr) and node.elt.values
        if _cudas(node.elt.values[0]) and isinstance(function := code.scope(node), ast.FunctionDef)
    )


def _cudas(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")


def _handed_to_libraries(codes: Mapping[str, Code], problems: Problems) -> dict[str, dict[str, Package]]:
    """Function → its parameters that it hands on to a library with device names of its own."""
    by_function: dict[str, dict[str, Package]] = {}
    for name, given in problems.told(codes, lambda code: flows(code, {}).parameters().items()):
        by_function.setdefault(name, {}).update(given)
    return by_function


def _calls(pack: Pack, codes: Mapping[str, Code], problems: Problems) -> dict[str, tuple[Call, ...]]:
    """How the functions with a CUDA device as a default are called, all over the pack."""
    names = set(problems.told(codes, _with_defaults))
    by_name = _by_name(names, WORD, partial(_calls_of, names), pack=pack, codes=codes, problems=problems)
    return {name: tuple(there) for name, there in by_name.items()}


def _with_defaults(code: Code) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, FUNCTIONS):
            defaults = (default for default in (*node.args.defaults, *node.args.kw_defaults) if default)
            if any(_cudas(part) for default in defaults for part in walk(default)):
                yield called_by(node, code.parent(node))


def _calls_of(names: set[str], nodes: Iterable[ast.AST]) -> Iterator[tuple[str, Call]]:
    for node in nodes:
        if isinstance(node, ast.Call) and (name := last_name(node)) in names:
            keywords = {keyword.arg for keyword in node.keywords}
            star = None in keywords or any(isinstance(argument, ast.Starred) for argument in node.args)
            yield name, (len(node.args), frozenset(filter(None, keywords)), star)


def _parameters(pack: Pack, codes: Mapping[str, Code], problems: Problems) -> dict[str, tuple[str, ...]]:
    """The parameters of the pack's functions and classes that are given a CUDA device by position."""
    names = set(problems.told(codes, _given_a_device))
    by_name = _by_name(names, _DEFINED, _positional, pack=pack, codes=codes, problems=problems)
    return {name: own[0] for name, own in by_name.items() if name in names and len(set(own)) == 1}


def _given_a_device(code: Code) -> Iterator[str]:
    return (last_name(node) for node in code.nodes if isinstance(node, ast.Call) and any(map(_cudas, node.args)))


def _positional(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Function or class → the names of what it is given by position."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            yield node.name, tuple(by_position(node))
        for method in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                yield node.name, tuple(by_position(method))  # type: ignore[attr-defined]


def _by_name(
    names: set[str],
    pattern: re.Pattern[bytes],
    read: Callable[[Iterable[ast.AST]], Iterator[tuple[str, T]]],
    *,
    pack: Pack,
    codes: Mapping[str, Code],
    problems: Problems,
) -> dict[str, list[T]]:
    """What ``read`` gives for the nodes of every Python file where ``pattern`` finds one of ``names``."""
    by_name: dict[str, list[T]] = {}
    words = {name.encode() for name in names if name}
    for path, data in pack.files.items() if words else ():
        if path.endswith(".py") and not words.isdisjoint(pattern.findall(data)):
            with problems.of(path), suppress(SyntaxError, ValueError, UnreadableSource):
                for name, told in read(codes[path].nodes if path in codes else walk(parsed(data))):
                    by_name.setdefault(name, []).append(told)
    return by_name
