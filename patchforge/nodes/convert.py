"""A pack through the rules: every site gets a verdict, and the verdicts' edits become changed files."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from patchforge import effort
from patchforge.engine.edits import Chosen, Splice, segments
from patchforge.engine.records import apply_segments
from patchforge.engine.syntax import DEFINITIONS
from patchforge.errors import CheckFailed
from patchforge.nodes import exempt
from patchforge.nodes.census import LISTED, NEEDLES, sites
from patchforge.nodes.code import Code
from patchforge.nodes.decide import decide, for_person
from patchforge.nodes.facts import WORD, Problems, facts, own_questions
from patchforge.nodes.pack import Pack, PackProblem
from patchforge.pattern import Options, PackFacts, Site, Verdict, left
from patchforge.proof.packs.equivalence import NotProved
from patchforge.proof.packs.helpers import helper_builtins, helpers, is_ours
from patchforge.proof.packs.pairing import failures
from patchforge.vocabulary import DecidedSite, Decision, FileChange

_HELPER = re.compile(r"\b_patchforge_[a-z]+")


@dataclass(frozen=True, slots=True)
class Converted:
    """A pack after the rules."""

    pack: Pack
    sites: tuple[DecidedSite, ...]
    skipped: tuple[DecidedSite, ...]  #: in files that no node leads to, or that cannot be loaded without CUDA
    changes: tuple[FileChange, ...]
    problems: tuple[PackProblem, ...]


def convert(pack: Pack, options: Options) -> Converted:
    """Looks at every file of a pack. Never raises for what a file contains: the problems say what was left."""
    with effort.at_most(effort.for_all(map(len, pack.files.values()))):
        return _convert(pack, options)


def _convert(pack: Pack, options: Options) -> Converted:
    problems = Problems(pack.problems)
    named = {path for path, data in pack.files.items() if NEEDLES.search(data)}
    named |= {path for path in pack.reachable - named if LISTED.search(pack.files[path])}
    codes = dict(_read({path: pack.files[path] for path in pack.files if path in named}, problems))
    questions = frozenset(problems.told(codes, own_questions))
    if questions:
        asks = {name.encode() for _, name in questions}
        others = {path: data for path, data in pack.files.items() if path not in named}
        asking = {path: data for path, data in others.items() if not asks.isdisjoint(WORD.findall(data))}
        codes |= _read(asking, problems)
    around = facts(pack, codes, options, questions, problems)
    decided: list[DecidedSite] = []
    skipped: list[DecidedSite] = []
    changes: list[FileChange] = []
    for path, code in sorted(codes.items()):
        with problems.of(path):
            stays = exempt.file_reason(code, pack.files, reachable=path in pack.reachable)
            file_sites, change = convert_file(code, around, stays)
            (skipped if stays else decided).extend(file_sites)
            changes += [change] if change else []
    return Converted(pack, tuple(decided), tuple(skipped), tuple(changes), problems.sorted())


def _read(files: Mapping[str, bytes], problems: Problems) -> Iterator[tuple[str, Code]]:
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
        verdicts |= {site: for_person(verdicts[site], site, reason) for site, reason in doubtful.items()}
    raise CheckFailed(f"{_MOST_TRIES} rounds, and a place is still not proved; it stays as it is")


class _Unfit(CheckFailed):
    """A result that would not do, by the 0-based lines of the converted file that are why."""

    def __init__(self, reason: str, lines: Iterable[int]) -> None:
        self.reason, self.lines = reason, tuple(lines)
        super().__init__(f"the converted file {reason}; it stays as it is")


def _edited_on(
    lines: Iterable[int], splices: Iterable[Splice], verdicts: Mapping[Site, Verdict], code: Code
) -> list[Site]:
    """The sites with an edit on one of the converted file's lines; those in f-strings where no line says which."""
    wanted = set(lines)
    at, line, inside = 0, 0, set[Splice]()
    for edit in sorted(splices, key=lambda splice: (splice.start, splice.order)):
        line += code.source.text.count("\n", at, edit.start)
        last = line + edit.text.count("\n")
        if not wanted.isdisjoint(range(line, last + 1)):
            inside.add(edit)
        at, line = max(at, edit.end), last
    edited = [site for site, verdict in verdicts.items() if not inside.isdisjoint(verdict.splices)]
    return edited or [site for site, verdict in verdicts.items() if any(map(code.quoted, verdict.splices))]


def _edited_at(error: NotProved, verdicts: Mapping[Site, Verdict], code: Code) -> list[Site]:
    """The sites with an edit in what is not proved. The error where there is none."""
    if error.old is None:
        raise error
    start, end = code.start(error.old), code.text.starts[error.old.end_lineno or error.old.lineno]
    edited = [site for site, verdict in verdicts.items() if any(start <= edit.start <= end for edit in verdict.splices)]
    if not edited:
        raise error
    return edited


def _alike(site: Site) -> tuple[str, ...]:
    return str(site.kind), site.text, site.function


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
        site: fit if isinstance(fit, Verdict) else for_person(verdicts[site], site, fit) for site, fit in fits.items()
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
    builtins = {name for wanted_name in wanted for name in helper_builtins()[wanted_name]}
    if clash := sorted((wanted & _bound(code)) | (builtins & _of_the_module(code))):
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
    return {name for name, node in code.bindings if not (is_ours(node) and code.parent(node) is code.tree)}


_SCOPES = (*DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _of_the_module(code: Code) -> set[str]:
    """The names that a file's functions find in their module before they look for a builtin."""
    declared = {name for node in code.nodes if isinstance(node, ast.Global) for name in node.names}
    named = (name for name, node in code.bindings if not any(isinstance(up, _SCOPES) for up, _ in code.above(node)))
    return declared | set(named)


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
