"""A pack through the rules: every site gets a verdict, and the verdicts' edits become changed files."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePosixPath

from patchforge import resources
from patchforge.engine.blocks import UnreadableSource
from patchforge.engine.edits import Splice, segments
from patchforge.engine.records import apply_segments
from patchforge.errors import CheckFailed
from patchforge.nodes import skip
from patchforge.nodes.census import NEEDLES, OPTIONAL_NEEDLES, sites
from patchforge.nodes.code import Code
from patchforge.nodes.forms import test_around
from patchforge.nodes.pack import Pack, Problem
from patchforge.nodes.questions import decisions, guarded, question
from patchforge.nodes.rules import rules
from patchforge.nodes.words import Decision, Kind, Options, Site, Surroundings, Verdict, left, person
from patchforge.vocabulary import FileChange

_HELPER = re.compile(r"\b_patchforge_[a-z]+")
_CALL = re.compile(r"\b(\w+)\s*\(")


@dataclass(frozen=True, slots=True)
class Row:
    """One site in a report."""

    path: str
    line: int
    function: str
    kind: str
    text: str
    decision: Decision
    rule: str
    reason: str
    production: bool  #: ComfyUI can come to the file, and it is neither a test nor a kernel


@dataclass(frozen=True, slots=True)
class Converted:
    """A pack after the rules."""

    pack: Pack
    rows: tuple[Row, ...]
    changes: tuple[FileChange, ...]
    problems: tuple[Problem, ...]


def convert(pack: Pack, options: Options) -> Converted:
    """Looks at every file of a pack. Never raises for what a file contains: the problems say what was left."""
    with warnings.catch_warnings():  # Python's remarks on a pack's code are not ours to pass on
        warnings.simplefilter("ignore")
        return _convert(pack, options)


def _convert(pack: Pack, options: Options) -> Converted:
    needles = [NEEDLES, *(pattern for name, pattern in OPTIONAL_NEEDLES.items() if getattr(options, name))]
    problems = list(pack.problems)
    codes = dict(_read(pack.files, needles, problems))
    if answers := own_answers(codes.values()):
        asks = re.compile("|".join(sorted({name for _, name in answers})).encode())
        others = {path: data for path, data in pack.files.items() if path not in codes}
        codes = dict(sorted([*codes.items(), *_read(others, [asks], problems)]))
    around = Surroundings(options, (), _own_cuda(codes.values()), answers, _calls(pack, codes))
    rows: list[Row] = []
    changes: list[FileChange] = []
    for path, code in codes.items():
        try:
            found, change = convert_file(code, around, reachable=path in pack.reachable)
        except CheckFailed as error:
            problems.append(Problem(path, 1, error.problem))
            continue
        rows += found
        changes += [change] if change else []
    return Converted(pack, tuple(rows), tuple(changes), tuple(sorted(set(problems))))


def _read(
    files: Mapping[str, bytes], needles: Sequence[re.Pattern[bytes]], problems: list[Problem]
) -> Iterator[tuple[str, Code]]:
    """The Python files that hold one of the needles; what cannot be read becomes a problem."""
    for path, data in files.items():
        if path.endswith(".py") and any(needle.search(data) for needle in needles):
            try:
                yield path, Code(path, data)
            except UnreadableSource as error:
                problems.append(Problem(path, error.line, error.reason))
            except RecursionError:
                problems.append(Problem(path, 1, "nested too deeply to be looked at"))


def convert_file(code: Code, around: Surroundings, *, reachable: bool = True) -> tuple[list[Row], FileChange | None]:
    """The sites of one file and its change. CheckFailed where the result would not do."""
    found = sites(code, around.options, around.answers)
    if not found:
        return [], None
    around = replace(around, sites=found)
    reason = skip.file_reason(code, reachable=reachable)
    verdicts = {site: left("", [site], reason) for site in found} if reason else decide(code, around)
    verdicts, splices = _composed(verdicts)
    rows = [
        Row(
            code.path,
            site.line,
            site.function,
            str(site.kind),
            site.text,
            one.decision,
            one.rule,
            one.reason,
            not reason,
        )
        for site, one in verdicts.items()
    ]
    if not splices:
        return rows, None
    parts = segments(code.text, [*splices, *_helpers(code, splices)])
    change = FileChange(code.path, code.source.data, apply_segments(code.source.data, parts), parts)
    check(change, around)
    return rows, change


def decide(code: Code, around: Surroundings) -> dict[Site, Verdict]:
    """A verdict on every site: by its place, by a rule, by the test it stands behind, else for a person."""
    verdicts: dict[Site, Verdict] = {}
    for site in around.sites:
        if reason := skip.place_reason(site, code):
            verdicts[site] = left("", [site], reason)
    for rule in rules():
        for site in around.sites:
            if site not in verdicts and (verdict := rule.look(site, code, around)):
                verdicts.update({one: verdict for one in verdict.sites if one not in verdicts})
    open_ = [site for site in around.sites if site not in verdicts]
    for site in sorted(open_, key=lambda one: _turn(one, code)):
        for rule in rules():
            if verdict := rule.gate(site, code, around, verdicts):
                verdicts[site] = verdict
                break
        else:
            verdicts[site] = person("", [site], "say what this means on an XPU")
    return {site: _behind(site, verdicts, code) for site in around.sites}


def _turn(site: Site, code: Code) -> tuple[int, int, bool]:
    """Innermost tests first, and in one test the device before its availability; answers with a name come last."""
    asked = question(site, code)
    found = test_around(asked, code) if asked is not None else None
    depth = sum(1 for _ in code.above(found[0] if found else site.node))
    return (0 if asked is None else 1 if found else 2), -depth, site.kind in (Kind.AVAILABLE, Kind.ANSWER)


def _behind(site: Site, verdicts: Mapping[Site, Verdict], code: Code) -> Verdict:
    """What stands behind a test for CUDA that stays, stays with it."""
    verdict = verdicts[site]
    if verdict.decision is Decision.LEFT or len(verdict.sites) > 1:
        return verdict
    for gate, other in verdicts.items():
        stays = gate is not site and other.decision is not Decision.CONVERTED
        if not stays or not _guards(gate, site, code, behind=other.decision is Decision.LEFT):
            continue
        reason = f"in an arm for CUDA that stays as it is (line {gate.line})"
        if other.decision is Decision.LEFT:
            return left(verdict.rule, [site], reason)
        if verdict.decision is Decision.CONVERTED:
            return person(verdict.rule, [site], reason)
    return verdict


def _guards(gate: Site, site: Site, code: Code, *, behind: bool) -> bool:
    """Whether a site runs only where a test for CUDA holds. ``behind``: a test that leaves the block counts too."""
    asked = question(gate, code)
    gates = decisions(asked, code) if asked is not None and test_around(asked, code) else []
    above = {id(parent) for parent, _ in code.above(site.node)} | {id(site.node)}
    return any(
        id(part) in above
        for one, yes in gates
        if behind or id(one) in above
        for part in guarded(one, code, positive=yes)
    )


def _composed(verdicts: dict[Site, Verdict]) -> tuple[dict[Site, Verdict], list[Splice]]:
    """All edits; one that another edit stands in the way of is for a person."""
    chosen: list[Splice] = []
    seen: dict[int, bool] = {}
    result: dict[Site, Verdict] = {}
    for site, verdict in verdicts.items():
        if id(verdict) not in seen:
            fresh = [one for one in verdict.splices if not any(_same(one, other) for other in chosen)]
            seen[id(verdict)] = not any(_clash(one, other) for one in fresh for other in chosen)
            chosen += fresh if seen[id(verdict)] else []
        result[site] = verdict if seen[id(verdict)] else person(verdict.rule, [site], "another edit is in the way")
    return result, chosen


def _same(one: Splice, other: Splice) -> bool:
    return (one.start, one.end, one.text) == (other.start, other.end, other.text)


def _clash(one: Splice, other: Splice) -> bool:
    if one.start == one.end and other.start == other.end:
        return False
    return one.start < other.end and other.start < one.end


def _helpers(code: Code, splices: Sequence[Splice]) -> Iterator[Splice]:
    """The functions that the edits call, behind the imports. CheckFailed where their names mean something else."""
    used = {name for splice in splices for name in _HELPER.findall(splice.text)}
    wanted = {name for name in used for name in (name, *_HELPER.findall(helpers()[name]))}
    known = {node.name for node in code.tree.body if isinstance(node, ast.FunctionDef)}
    taken = {node.id for node in code.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    if clash := sorted(wanted & taken):
        raise CheckFailed(f"{', '.join(clash)} means something else here: a clash with what patchforge adds")
    lines: list[str] = []
    for name, text in helpers().items():
        if name in wanted and name not in known:
            lines += ["", *text.split("\n"), ""]
    if any("comfy.model_management" in splice.text for splice in splices) and not _imports_comfy(code):
        lines = ["import comfy.model_management", *lines]
    if lines:
        line = code.source.import_line
        end = "\r\n" if code.text.lines[max(line - 1, 0)].endswith("\r") else "\n"
        at = code.text.offset(line, 0)
        yield Splice(at, at, "".join(text + end for text in lines), (-2, 0, 0), "helpers")


def _imports_comfy(code: Code) -> bool:
    return any(
        isinstance(node, ast.Import)
        and any(alias.name == "comfy.model_management" and not alias.asname for alias in node.names)
        for node in code.tree.body
    )


@cache
def helpers() -> dict[str, str]:
    """Name → text of every function that edits may call, in the order in which they need one another."""
    text = resources.path("nodes/runtime/patchforge_pack.py").read_text("utf-8")
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            lines = text.split("\n")[node.lineno - 1 : node.end_lineno]
            found[node.name] = "\n".join(re.sub(r"\s+# noqa.*$", "", line) for line in lines)
    return found


def check(change: FileChange, around: Surroundings) -> None:
    """CheckFailed unless the result compiles, and a second run over it edits nothing."""
    try:
        compile(change.after, change.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise CheckFailed(f"the converted file would not compile: {error}; it stays as it is") from None
    code = Code(change.path, change.after)
    again = decide(code, replace(around, sites=sites(code, around.options, around.answers)))
    if more := [site for site, one in again.items() if one.decision is Decision.CONVERTED]:
        raise CheckFailed(f"a second run would edit it again (line {more[0].line}); it stays as it is")


def _own_cuda(codes: Iterable[Code]) -> frozenset[str]:
    """Classes that define ``cuda`` themselves: calling ``to`` there may not be the same."""
    return frozenset(
        node.name
        for code in codes
        for node in code.nodes
        if isinstance(node, ast.ClassDef)
        if any(isinstance(one, ast.FunctionDef) and one.name == "cuda" for one in node.body)
    )


def own_answers(codes: Iterable[Code]) -> frozenset[tuple[str, str]]:
    """(module, function) of the functions that only say whether CUDA is there."""
    return frozenset(
        (PurePosixPath(code.path).stem, node.name)
        for code in codes
        for node in code.tree.body
        if isinstance(node, ast.FunctionDef) and not any(ast.iter_child_nodes(node.args)) and _only_answers(node, code)
    )


def _only_answers(function: ast.FunctionDef, code: Code) -> bool:
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    value = body[0].value if len(body) == 1 and isinstance(body[0], ast.Return) else None
    return isinstance(value, ast.Call) and code.name(value.func) == "torch.cuda.is_available"


Calls = dict[str, tuple[tuple[int, frozenset[str], bool], ...]]


def _calls(pack: Pack, codes: Mapping[str, Code]) -> Calls:
    """How the functions with a CUDA device as a default are called, all over the pack."""
    names = {name for code in codes.values() for name in _with_defaults(code)}
    found: dict[str, list[tuple[int, frozenset[str], bool]]] = {}
    for path, data in pack.files.items() if names else ():
        if not path.endswith(".py"):
            continue
        code = codes.get(path)
        if code is None and not names & set(_CALL.findall(data.decode("latin-1"))):
            continue
        try:
            nodes = code.nodes if code else ast.walk(ast.parse(data))
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in nodes:
            if isinstance(node, ast.Call) and (name := _called(node)) in names:
                keywords = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
                star = any(isinstance(arg, ast.Starred) for arg in node.args) or any(
                    not one.arg for one in node.keywords
                )
                found.setdefault(name, []).append((len(node.args), keywords, star))
    return {name: tuple(calls) for name, calls in found.items()}


def _with_defaults(code: Code) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one)]
            if any(
                isinstance(part, ast.Constant) and str(part.value).startswith("cuda")
                for one in defaults
                for part in ast.walk(one)
            ):
                owner = code.parent(node)
                yield owner.name if node.name == "__init__" and isinstance(owner, ast.ClassDef) else node.name


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
