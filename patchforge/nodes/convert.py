"""A pack through the rules: every site gets a verdict, and the verdicts' edits become changed files."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from patchforge import effort
from patchforge.effort import TooIntricate, spend, walk
from patchforge.engine.blocks import REFUSED, UnreadableSource, parsed, why_refused
from patchforge.engine.edits import Chosen, Splice, segments
from patchforge.engine.records import apply_segments
from patchforge.errors import CheckFailed
from patchforge.nodes import exempt
from patchforge.nodes.census import LISTED, NEEDLES, sites
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import Handed, Operands, decisions, guarded, operands, question, ready
from patchforge.nodes.libraries import Library, flows, foreign
from patchforge.nodes.pack import Pack, PackProblem
from patchforge.nodes.shapes import test_around
from patchforge.pattern import Kind, Options, PackFacts, Site, Verdict, left, person
from patchforge.proof.packs.equivalence import NotProved
from patchforge.proof.packs.helpers import helpers, is_ours
from patchforge.proof.packs.pairing import failures
from patchforge.rules import patterns
from patchforge.vocabulary import DecidedSite, Decision, FileChange

_HELPER = re.compile(r"\b_patchforge_[a-z]+")
_DEFINED = re.compile(rb"(?:def|class)[ \t]+(\w+)")
_WORD = re.compile(rb"[\w\x80-\xff]+")


@dataclass(frozen=True, slots=True)
class Converted:
    """A pack after the rules."""

    pack: Pack
    sites: tuple[DecidedSite, ...]
    skipped: tuple[DecidedSite, ...]  #: in files that ComfyUI does not come to, in tests and in kernels
    changes: tuple[FileChange, ...]
    problems: tuple[PackProblem, ...]


def convert(pack: Pack, options: Options) -> Converted:
    """Looks at every file of a pack. Never raises for what a file contains: the problems say what was left."""
    with effort.at_most(effort.for_all(map(len, pack.files.values()))):
        return _convert(pack, options)


def _convert(pack: Pack, options: Options) -> Converted:
    problems = _Problems(pack.problems)
    named = {path for path, data in pack.files.items() if NEEDLES.search(data)}
    named |= {path for path in pack.reachable - named if LISTED.search(pack.files[path])}
    codes = dict(_read({path: pack.files[path] for path in pack.files if path in named}, problems))
    questions: frozenset[tuple[str, str]] = frozenset()
    for path, code in list(codes.items()):
        with problems.of(path):
            questions |= own_questions([code])
    if questions:
        asks = {name.encode() for _, name in questions}
        others = {path: data for path, data in pack.files.items() if path not in named}
        asking = {path: data for path, data in others.items() if not asks.isdisjoint(_WORD.findall(data))}
        codes |= _read(asking, problems)
    around = facts(pack, codes, options, questions, problems)
    decided: list[DecidedSite] = []
    skipped: list[DecidedSite] = []
    changes: list[FileChange] = []
    for path, code in sorted(codes.items()):
        with problems.of(path):
            stays = exempt.file_reason(code, reachable=path in pack.reachable)
            file_sites, change = convert_file(code, around, stays)
            (skipped if stays else decided).extend(file_sites)
            changes += [change] if change else []
    return Converted(pack, tuple(decided), tuple(skipped), tuple(changes), problems.sorted())


def facts(
    pack: Pack,
    codes: Mapping[str, Code],
    options: Options,
    questions: frozenset[tuple[str, str]],
    problems: _Problems | None = None,
) -> PackFacts:
    """What the rules may know of a pack. ``codes``: its files that are looked at; ``questions``: ``own_questions``."""
    problems = problems or _Problems(())
    return PackFacts(
        options,
        own_cuda=_own_cuda(codes.values()),
        own_questions=questions,
        calls=_calls(pack, codes, problems),
        parameters=_parameters(pack, codes, problems),
        devices=_device_lists(codes.values()),
        elsewhere=_Elsewhere(pack),
        foreign=_foreign(codes, problems),
        ready=_Ready(codes, options, questions),
    )


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


def _foreign(codes: Mapping[str, Code], problems: _Problems) -> dict[str, dict[str, Library]]:
    """What the pack's functions hand on to libraries with device names of their own."""
    by_function: dict[str, dict[str, Library]] = {}
    for path, code in codes.items():
        with problems.of(path):
            for name, given in flows(code, {}).parameters().items():
                by_function.setdefault(name, {}).update(given)
    return by_function


class _Problems:
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

    def sorted(self) -> tuple[PackProblem, ...]:
        return tuple(sorted(self.known))


def _read(files: Mapping[str, bytes], problems: _Problems) -> Iterator[tuple[str, Code]]:
    """The Python files; what cannot be read becomes a problem."""
    for path, data in files.items():
        if path.endswith(".py"):
            code: Code | None = None
            with problems.of(path):
                code = Code(path, data)
            if code is not None:
                yield path, code


def convert_file(code: Code, around: PackFacts, stays: str = "") -> tuple[list[DecidedSite], FileChange | None]:
    """The sites of one file and its change. ``stays``: why all of it stays. CheckFailed: the result would not do."""
    file_sites = sites(code, around.own_questions)
    if not file_sites:
        return [], None
    around = replace(around, sites=file_sites)
    verdicts = {site: left([site], stays) for site in file_sites} if stays else decide(code, around)
    verdicts, change = _changed(code, verdicts, around)
    return [_decided(code.path, site, verdict) for site, verdict in verdicts.items()], change


def _decided(path: str, site: Site, verdict: Verdict) -> DecidedSite:
    function, text = _short(site.function), _short(site.text)
    return DecidedSite(path, site.line, function, str(site.kind), text, verdict.rule, verdict.reason, verdict.decision)


_LONGEST = 200  #: characters of a name or a text in a report
_MOST_TRIES = 8  #: places in a file that the proof may refuse before all of it goes to a person


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _changed(
    code: Code, verdicts: dict[Site, Verdict], around: PackFacts
) -> tuple[dict[Site, Verdict], FileChange | None]:
    """The change that the verdicts make, proved. What does not stand goes to a person, and the rest stays."""
    refused: Counter[tuple[str, ...]] = Counter()
    for _ in range(_MOST_TRIES):
        composed, splices = _composed(verdicts, code)
        changed = (site for site, verdict in composed.items() if verdict.decision is not verdicts[site].decision)
        refused.update(map(_alike, changed))
        verdicts = composed
        if not splices:
            return verdicts, None
        splices += _helpers(code, splices)
        parts = segments(code.text, splices)
        change = FileChange(code.path, code.source.data, apply_segments(code.source.data, parts), parts)
        doubtful: dict[Site, str] = {}
        try:
            check(change, around, refused)
        except _Unfit as error:
            doubtful = dict.fromkeys(_edited_on(error.lines, splices, verdicts, code), f"its conversion {error.reason}")
            if not doubtful:
                raise
        else:
            for failure in failures(code.path, code.source.data, change.after):
                doubtful |= dict.fromkeys(_edited_at(failure, verdicts, code), f"its conversion is {failure.reason}")

        refused.update(map(_alike, doubtful))
        if not doubtful:
            return verdicts, change
        verdicts |= {site: _for_person(verdicts[site], site, reason) for site, reason in doubtful.items()}
    raise CheckFailed(f"{_MOST_TRIES} rounds, and a place is still not proved; it stays as it is")


class _Unfit(CheckFailed):
    """A result that would not do, by the 0-based lines of the converted file that are why."""

    def __init__(self, reason: str, lines: Iterable[int]) -> None:
        self.reason, self.lines = reason, tuple(lines)
        super().__init__(f"the converted file {reason}; it stays as it is")


def _edited_on(
    lines: Iterable[int], splices: Iterable[Splice], verdicts: Mapping[Site, Verdict], code: Code
) -> Iterator[Site]:
    """The sites with an edit on one of the converted file's lines; those in f-strings where no line says which."""
    wanted = set(lines)
    at, line, inside = 0, 0, set[Splice]()
    for edit in sorted(splices, key=lambda splice: (splice.start, splice.order)):
        line += code.source.text.count("\n", at, edit.start)
        last = line + edit.text.count("\n")
        if not wanted.isdisjoint(range(line, last + 1)):
            inside.add(edit)
        at, line = max(at, edit.end), last
    edited = {id(verdict) for verdict in verdicts.values() if not inside.isdisjoint(verdict.splices)}
    edited = edited or {
        id(v) for v in verdicts.values() if any(code.quotes(edit.start, edit.end)[0] for edit in v.splices)
    }
    return (site for site, verdict in verdicts.items() if id(verdict) in edited)


def _edited_at(error: NotProved, verdicts: Mapping[Site, Verdict], code: Code) -> list[Site]:
    """The sites with an edit in what is not proved. The error where there is none."""
    if error.old is None:
        raise error
    start, end = code.start(error.old), code.text.starts[error.old.end_lineno or error.old.lineno]
    edited = {
        id(verdict) for verdict in verdicts.values() if any(start <= edit.start <= end for edit in verdict.splices)
    }
    if not edited:
        raise error
    return [site for site, verdict in verdicts.items() if id(verdict) in edited]


def _alike(site: Site) -> tuple[str, ...]:
    return str(site.kind), site.text, site.function


def decide(code: Code, around: PackFacts) -> dict[Site, Verdict]:
    """A verdict on every site: by its place, by a rule, by the test it stands behind, else for a person."""
    verdicts: dict[Site, Verdict] = {}
    for site in around.sites:
        if verdict := exempt.by_place(site, code) or foreign(site, code, around.foreign):
            verdicts[site] = verdict
    kept = {site for site, verdict in verdicts.items() if not verdict.runs_on_xpu}
    for rule in patterns():
        for site in around.sites:
            if site not in verdicts and (verdict := rule.verdict(site, code, around)):
                if verdict.decision is Decision.CONVERTED and not kept.isdisjoint(verdict.sites):
                    continue  # half a choice is none
                verdict = replace(verdict, rule=rule.id)
                verdicts.update({claimed: verdict for claimed in verdict.sites if claimed not in verdicts})
    open_ = [site for site in around.sites if site not in verdicts]
    for site in sorted(open_, key=lambda site: _turn(site, code)):
        for rule in patterns():
            if verdict := rule.verdict_on_test(site, code, around, verdicts):
                verdict = replace(verdict, rule=rule.id)
                verdicts |= dict.fromkeys((site, *verdict.sites), verdict)
                break
        else:
            verdicts[site] = person([site], "say what this means on an XPU")
    verdicts = _agreed(verdicts)
    staying = [
        stay
        for gate, verdict in verdicts.items()
        if verdict.decision is not Decision.CONVERTED
        for stay in _staying(gate, verdict, code)
    ]
    return {site: _behind(site, verdicts[site], staying, code) for site in around.sites}


def _agreed(verdicts: dict[Site, Verdict]) -> dict[Site, Verdict]:
    """A choice that is only half converted is for a person: what it leads to must be ready for an XPU too."""
    while broken := {
        site: _for_person(verdict, site, f"{verdict.otherwise} (line {apart.line})")
        for site, verdict in verdicts.items()
        if verdict.decision is Decision.CONVERTED
        and (apart := next((needed for needed in verdict.together if not _ready(needed, verdicts)), None)) is not None
    }:
        verdicts = verdicts | broken
    return verdicts


def _ready(site: Site, verdicts: Mapping[Site, Verdict]) -> bool:
    return site not in verdicts or verdicts[site].runs_on_xpu


def _turn(site: Site, code: Code) -> tuple[int, int, int, bool]:
    """Innermost tests first, of neighbours the last, and in one test the device before its availability.

    So what stands behind a test has its verdict, also where that follows a way out. Answers with a name come last.
    """
    asked = question(site, code)
    test = test_around(asked, code) if asked is not None else None
    gate = test[0] if test else site.node
    depth = sum(1 for _ in code.above(gate))
    kind = 0 if asked is None else 1 if test else 2
    return kind, -depth, -code.span(gate)[0], site.kind in (Kind.AVAILABLE, Kind.OWN_QUESTION)


@dataclass(frozen=True, slots=True)
class _Stay:
    """A test for CUDA that stays, and what runs only where it holds: ranges of numbers (see ``Code``)."""

    gate: Site
    left: bool
    test: tuple[int, int]
    guarded: tuple[int, int]


def _staying(gate: Site, verdict: Verdict, code: Code) -> Iterator[_Stay]:
    asked = question(gate, code)
    if asked is None:
        return
    left_there = verdict.decision is Decision.LEFT
    if (both := operands(asked, code)) is not None:
        inside = code.span(both.body[0])[0], code.span(both.body[-1])[1]
        yield _Stay(gate, left_there, code.span(both.node), inside)
    for branch, positive in decisions(asked, code) if test_around(asked, code) else ():
        if not isinstance(branch, Operands) and (parts := guarded(branch, code, positive=positive)):
            inside = code.span(parts[0])[0], code.span(parts[-1])[1]  # neighbours in one block
            yield _Stay(gate, left_there, code.span(branch), inside)


def _behind(site: Site, verdict: Verdict, staying: Sequence[_Stay], code: Code) -> Verdict:
    """What stands behind a test for CUDA that stays, stays with it; also behind one that leaves the block."""
    if verdict.decision is Decision.LEFT or len(verdict.sites) > 1:
        return verdict
    spend(1 + len(staying) // 4)
    at = code.span(site.node)[0]
    for stay in staying:
        if stay.gate is site or not stay.guarded[0] <= at <= stay.guarded[1]:
            continue
        reason = f"in an arm for CUDA that stays as it is (line {stay.gate.line})"
        if stay.left:
            return replace(left([site], reason), rule=verdict.rule)
        if stay.test[0] <= at <= stay.test[1] and verdict.decision is Decision.CONVERTED:
            return _for_person(verdict, site, reason)
    return verdict


def _for_person(verdict: Verdict, site: Site, reason: str) -> Verdict:
    """What takes the place of a verdict that does not hold for a site."""
    return replace(person([site], reason), rule=verdict.rule)


def _composed(verdicts: dict[Site, Verdict], code: Code) -> tuple[dict[Site, Verdict], list[Splice]]:
    """All edits; one that another edit stands in the way of, or an f-string's quotes, is for a person."""
    chosen = Chosen()
    seen: dict[int, Verdict | str] = {}
    for verdict in verdicts.values():
        if id(verdict) not in seen:
            seen[id(verdict)] = fit = _requoted(verdict, code) or _QUOTES
            if isinstance(fit, Verdict) and chosen.take(fit.splices) is not None:
                seen[id(verdict)] = "another edit is in the way"
    fits = {site: seen[id(verdict)] for site, verdict in verdicts.items()}
    result = {
        site: fit if isinstance(fit, Verdict) else _for_person(verdicts[site], site, fit) for site, fit in fits.items()
    }
    return result, chosen.splices


_QUOTES = "in an f-string, whose quotes Pythons before 3.12 cannot have inside"


def _requoted(verdict: Verdict, code: Code) -> Verdict | None:
    """A verdict whose edits have no quotes of the f-string that they stand in; None where that cannot be."""
    edits: list[Splice] = []
    for edit in verdict.splices:
        (outer, nested), text = code.quotes(edit.start, edit.end), edit.text
        other = "'" if outer[:1] == '"' else '"'
        if outer and outer in text and other not in text:
            text = text.replace(outer, other)
        if outer and (outer in text or "\\" in text or (len(outer) == 1 and "\n" in text)):
            return None
        if nested and other in text:
            return None
        edits.append(edit if text == edit.text else replace(edit, text=text))
    return verdict if edits == list(verdict.splices) else replace(verdict, splices=tuple(edits))


def _helpers(code: Code, splices: Sequence[Splice]) -> Iterator[Splice]:
    """The functions that the edits call, behind the imports. CheckFailed where their names mean something else."""
    used = {name for splice in splices for name in _HELPER.findall(splice.text)}
    wanted = {name for name in used for name in (name, *_HELPER.findall(helpers()[name]))}
    known = {node.name for node in code.tree.body if isinstance(node, ast.FunctionDef) and is_ours(node)}
    if clash := sorted(wanted & _bound(code)):
        raise CheckFailed(f"{', '.join(clash)} means something else here: a clash with what patchforge adds")
    lines: list[str] = []
    for name, text in helpers().items():
        if name in wanted and name not in known:
            lines += ["", "", *text.split("\n")]
    if lines:
        lines += [""] * _missing_below(code)
    if any("comfy.model_management" in splice.text for splice in splices) and not _imports_comfy(code):
        lines = ["import comfy.model_management", *lines]
    if lines:
        yield code.text.imported(lines, "helpers")


def _missing_below(code: Code) -> int:
    """How many blank lines are wanting, of two, between the imports and what follows them."""
    line = code.source.import_line
    rest = [text.strip() for text in code.text.lines[line : line + 3]]
    blank = next((number for number, text in enumerate(rest) if text), len(rest))
    return max(2 - blank, 0) if any(rest) else 0


def _bound(code: Code) -> set[str]:
    """The names that a file gives to something else than our functions."""
    names: set[str] = set()
    for node in code.nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(name := getattr(node, "name", None), str):  # functions, classes, exceptions, patterns
            ours = is_ours(node) and code.parent(node) is code.tree
            names |= set() if ours else {name}
    return names


def _imports_comfy(code: Code) -> bool:
    return any(
        isinstance(node, ast.Import)
        and any(alias.name == "comfy.model_management" and not alias.asname for alias in node.names)
        for node in code.tree.body
    )


def check(change: FileChange, around: PackFacts, refused: Counter[tuple[str, ...]] | None = None) -> Code:
    """The result. CheckFailed unless it compiles, and a second run over it edits nothing but what is ``refused``."""
    try:
        with warnings.catch_warnings():  # Python's remarks on a pack's code are not ours to pass on
            warnings.simplefilter("ignore")
            compile(change.after, "<pack>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _Unfit(f"would not compile: {error.msg}", [(error.lineno or 1) - 1]) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckFailed(f"the converted file would not compile: {error}; it stays as it is") from None
    code = Code(change.path, change.after)
    again = decide(code, replace(around, sites=sites(code, around.own_questions)))
    more = [site for site, verdict in again.items() if verdict.decision is Decision.CONVERTED]
    if left_over := Counter(map(_alike, more)) - (refused or Counter()):
        lines = [site.line - 1 for site in more if _alike(site) in left_over]
        raise _Unfit("would be edited again by a second run", lines)
    return code


def _own_cuda(codes: Iterable[Code]) -> frozenset[str]:
    """Classes that define ``cuda`` themselves, where calling ``to`` may not be the same."""
    return frozenset(
        node.name
        for code in codes
        for node in code.nodes
        if isinstance(node, ast.ClassDef)
        if not _moves_as_to(node, code)
    )


def _moves_as_to(owner: ast.ClassDef, code: Code) -> bool:
    """No ``cuda``, or ``self.to("cuda")`` in it beside a ``to`` that hands its device to others' ``to`` alone."""
    methods = {method.name: method for method in owner.body if isinstance(method, ast.FunctionDef)}
    if (cuda := methods.get("cuda")) is None:
        return True
    only = cuda.body[-1] if len(cuda.body) == 1 + (ast.get_docstring(cuda, clean=False) is not None) else None
    call = only.value if isinstance(only, (ast.Expr, ast.Return)) else None
    if not isinstance(call, ast.Call) or ast.unparse(call) not in _TO_CUDA or (to := methods.get("to")) is None:
        return False
    names = [argument.arg for argument in to.args.args[1:]]
    used = code.named(names[0], to) if len(names) == 1 else []
    parents = [code.parent(use) for use in used]
    return bool(parents) and all(isinstance(parent, ast.Call) and _called(parent) == "to" for parent in parents)


def own_questions(codes: Iterable[Code]) -> frozenset[tuple[str, str]]:
    """(module, function) of the functions that only say whether CUDA is there."""
    return frozenset(
        (PurePosixPath(code.path).stem, node.name)
        for code in codes
        for node in code.tree.body
        if isinstance(node, ast.FunctionDef) and not any(ast.iter_child_nodes(node.args)) and _only_asks(node, code)
    )


def _only_asks(function: ast.FunctionDef, code: Code) -> bool:
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    value = body[0].value if len(body) == 1 and isinstance(body[0], ast.Return) else None
    return isinstance(value, ast.Call) and code.name(value.func) == "torch.cuda.is_available"


_TO_CUDA = frozenset(f"self.to({device})" for device in ("'cuda'", "torch.device('cuda')", "device='cuda'"))
Calls = dict[str, tuple[tuple[int, frozenset[str], bool], ...]]


def _calls(pack: Pack, codes: Mapping[str, Code], problems: _Problems) -> Calls:
    """How the functions with a CUDA device as a default are called, all over the pack."""
    names: set[str] = set()
    for path, code in codes.items():
        with problems.of(path):
            names.update(_with_defaults(code))
    by_name: dict[str, list[tuple[int, frozenset[str], bool]]] = {}
    words = {name.encode() for name in names}
    for path, data in pack.files.items() if names else ():
        if path in codes or (path.endswith(".py") and not words.isdisjoint(_WORD.findall(data))):
            with problems.of(path), suppress(SyntaxError, ValueError, UnreadableSource):
                for name, call in _calls_of(names, codes[path].nodes if path in codes else walk(parsed(data))):
                    by_name.setdefault(name, []).append(call)
    return {name: tuple(calls) for name, calls in by_name.items()}


def _calls_of(
    names: AbstractSet[str], nodes: Iterable[ast.AST]
) -> Iterator[tuple[str, tuple[int, frozenset[str], bool]]]:
    for node in nodes:
        if isinstance(node, ast.Call) and (name := _called(node)) in names:
            keywords = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
            star = any(isinstance(arg, ast.Starred) for arg in node.args) or any(
                not keyword.arg for keyword in node.keywords
            )
            yield name, (len(node.args), keywords, star)


def _with_defaults(code: Code) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
            if any(
                isinstance(part, ast.Constant) and str(part.value).startswith("cuda")
                for default in defaults
                for part in walk(default)
            ):
                owner = code.parent(node)
                yield owner.name if node.name == "__init__" and isinstance(owner, ast.ClassDef) else node.name


def _parameters(pack: Pack, codes: Mapping[str, Code], problems: _Problems) -> dict[str, tuple[str, ...]]:
    """The parameters of the pack's functions and classes that are given a CUDA device by position."""
    names: set[str] = set()
    for path, code in codes.items():
        with problems.of(path):
            names |= {
                _called(node) for node in code.nodes if isinstance(node, ast.Call) and any(map(_cudas, node.args))
            }
    by_name: dict[str, list[tuple[str, ...]]] = {}
    words = {name.encode() for name in names if name}
    for path, data in pack.files.items() if words else ():
        if path.endswith(".py") and not words.isdisjoint(_DEFINED.findall(data)):
            with problems.of(path), suppress(SyntaxError, ValueError, UnreadableSource):
                for name, own in _positional(codes[path].nodes if path in codes else walk(parsed(data))):
                    by_name.setdefault(name, []).append(own)
    return {name: own[0] for name, own in by_name.items() if name in names and len(set(own)) == 1}


def _cudas(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")


def _positional(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Function or class → the names of what it is given by position."""
    for node in nodes:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for function in inner:
            made = isinstance(node, ast.ClassDef)
            if isinstance(function, ast.FunctionDef) and (function.name == "__init__") is made:
                names = tuple(each.arg for each in (*function.args.posonlyargs, *function.args.args))
                yield node.name, names[1:] if names[:1] in (("self",), ("cls",)) else names  # type: ignore[attr-defined]


def _device_lists(codes: Iterable[Code]) -> frozenset[str]:
    """The functions that put CUDA's devices into a list."""
    return frozenset(
        function.name
        for code in codes
        for node in code.nodes
        if isinstance(node, ast.ListComp) and isinstance(node.elt, ast.JoinedStr) and node.elt.values
        if _cudas(node.elt.values[0]) and isinstance(function := code.scope(node), ast.FunctionDef)
    )


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
