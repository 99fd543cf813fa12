"""The documents that ``--json`` prints, as types, and JSON Schema made from them.

Each document says what it is by ``schema``, as ``patchforge/NAME/NUMBER``; its number changes whenever a field does.
``docs/json-schema.json`` is written from here (``make docs``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from patchforge import documents
from patchforge.bench.compare import BenchmarkComparison
from patchforge.bench.costs import Recorded, ReleaseCost
from patchforge.bench.history import BenchmarkHistory
from patchforge.bench.model import Benchmark
from patchforge.bench.report import BenchmarkReport
from patchforge.bench.submission import Submitted
from patchforge.bot.follow import Followed
from patchforge.checkout.examine import FolderState
from patchforge.commands.common import schema_name
from patchforge.commands.pin import PinChange
from patchforge.doctor import upstream as doctor_upstream
from patchforge.doctor.facts import Facts, Finding
from patchforge.documents import NOT_WRITTEN, OPTIONAL
from patchforge.manifest import Manifest
from patchforge.models.store import Done
from patchforge.models.survey import ModelProblem, Place
from patchforge.nodes.manifest import PackManifest, PackReport
from patchforge.operate.health import Health
from patchforge.operate.upkeep import UpkeepPart
from patchforge.operate.validation import Check
from patchforge.pins.confirm import Confirmation
from patchforge.pins.pin_files import TorchLock
from patchforge.trial.reports.evidence import Evidence

Schema = dict[str, Any]
Path = NewType("Path", str)


def _maybe() -> Any:
    """A field that may be missing."""
    return field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Error:
    """What every command prints when it fails. ``status`` is its exit status."""

    status: int
    problem: str
    expected: str
    found: str
    do: str


@dataclass(frozen=True)
class ErrorDocument:
    """The document of an error; usage errors too."""

    error: Error


@dataclass(frozen=True)
class LeftOut:
    """A user's folder that ``apply --from DIR --to`` does not copy; a link, which is not followed, has no files."""

    path: Path
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class AppliedDocument(Manifest):
    """The manifest of the release, and where things were written; "" for nowhere."""

    format: int
    written: Path
    missing: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    indexed: bool
    files: tuple[str, ...] = _maybe()


@dataclass(frozen=True)
class Reverted:
    """What ``revert`` put back."""

    reverted: Path
    files: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class PutRight:
    """States before and after, and what was changed."""

    folder: Path
    was: FolderState
    state: FolderState
    written: tuple[str, ...]
    removed: tuple[str, ...]
    journal: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Indexed:
    indexed: int
    newest: str


@dataclass(frozen=True)
class CachePart:
    """A part of the cache, in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class CacheSize:
    folder: Path
    bytes: int


@dataclass(frozen=True)
class GeneratedRelease:
    release: str
    commit: str
    current: bool
    edited: bool


@dataclass(frozen=True)
class Status:
    """What is tracked, generated and cached."""

    patchforge: str
    rules: str
    upstream: str
    releases: Indexed
    cache: CacheSize
    generated: tuple[GeneratedRelease, ...]


@dataclass(frozen=True)
class FolderDocument:
    """The state of a checkout or pack."""

    folder: Path
    state: FolderState
    says: str
    do: str
    release: str
    files: Mapping[str, str]
    leftovers: tuple[str, ...]


@dataclass(frozen=True)
class CacheDocument:
    """What the cache holds; ``removed`` after ``--clean``. ``problem``: why the folder is none, and nothing is kept."""

    folder: Path
    problem: str
    parts: tuple[CachePart, ...]
    removed: tuple[str, ...] = _maybe()


@dataclass(frozen=True)
class Doctor:
    """What was found about the machine, and the facts that it rests on."""

    patchforge: str
    findings: tuple[Finding, ...]
    facts: Facts


@dataclass(frozen=True)
class UpstreamFacts:
    remote: doctor_upstream.Remote | None
    clone: doctor_upstream.Clone | None


@dataclass(frozen=True)
class DoctorUpstream:
    """The same of ComfyUI's address or clone."""

    patchforge: str
    findings: tuple[Finding, ...]
    facts: UpstreamFacts


@dataclass(frozen=True)
class Checked:
    """One release."""

    release: str
    verdict: Literal["ok", "failed", "not checked"]
    problems: tuple[str, ...]
    status: int


@dataclass(frozen=True)
class Declared:
    name: str
    transform: str
    count: int


@dataclass(frozen=True)
class ScenarioEntry:
    """One pretended machine of the dynamic proof."""

    scenario: str
    verdict: str
    answers: int
    calls: int
    declared: tuple[Declared, ...]
    undeclared: tuple[str, ...]
    problems: tuple[str, ...]
    not_asked: Mapping[str, str]


@dataclass(frozen=True)
class Dynamic:
    holds: bool
    scenarios: tuple[ScenarioEntry, ...]


@dataclass(frozen=True)
class Verified:
    """One release."""

    release: str
    problem: str
    status: int
    dynamic: Dynamic = _maybe()  # noqa: RUF009 - a field, not a default


@dataclass(frozen=True)
class ReplayedRelease:
    """One release; outcomes and numbers of claims by transform."""

    release: str
    commit: str
    outcomes: Mapping[str, str]
    claims: Mapping[str, int]
    surprises: tuple[str, ...]
    drifts: tuple[str, ...]
    sites: Mapping[str, int]
    unclaimed: tuple[str, ...]
    failed: str
    status: int


@dataclass(frozen=True)
class Replayed:
    """All releases, and refs that were passed over with the reason."""

    releases: tuple[ReplayedRelease, ...]
    drifted: int
    failed: int
    passed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Explained:
    """One rule. Those for packs have the first four fields."""

    id: str
    title: str
    why: str
    aliases: tuple[str, ...]
    patch: str = _maybe()
    absent: tuple[str, ...] = _maybe()
    upstream: tuple[str, ...] = _maybe()
    issues: tuple[str, ...] = _maybe()
    files: tuple[str, ...] = _maybe()
    retires: str = _maybe()
    opt_in: str = _maybe()
    hooks: tuple[str, ...] = _maybe()


@dataclass(frozen=True)
class New:
    version: str
    tag: str
    commit: str
    released: bool


@dataclass(frozen=True)
class Passed:
    tag: str
    why: str
    moved: bool


@dataclass(frozen=True)
class FoundRevision:
    newest: str
    new: tuple[New, ...]
    passed: tuple[Passed, ...]


@dataclass(frozen=True)
class Tracked(FoundRevision):
    """New releases, and others that are passed over."""

    asked_github: bool


@dataclass(frozen=True)
class FollowedPacks:
    """Packs against their pins."""

    nodes: tuple[Followed, ...]


@dataclass(frozen=True)
class BotAction:
    """One thing that the bot does, or would do."""

    do: str
    why: str
    branch: str = _maybe()
    number: int = _maybe()
    title: str = _maybe()
    text: str = _maybe()
    commit: str = _maybe()
    expected: str = _maybe()
    draft: bool = _maybe()


@dataclass(frozen=True)
class BotProblem:
    about: str
    name: str
    title: str


@dataclass(frozen=True, kw_only=True)
class BotDocument:
    """A run of the bot. Of releases with what was found, of packs with ``nodes``."""

    actions: tuple[BotAction, ...]
    notes: tuple[str, ...]
    problems: tuple[BotProblem, ...]
    done: bool
    requests: int
    writes: int
    status: int
    seconds: float
    newest: str = _maybe()
    new: tuple[New, ...] = _maybe()
    passed: tuple[Passed, ...] = _maybe()
    nodes: tuple[Followed, ...] = _maybe()


@dataclass(frozen=True)
class Job:
    project: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Matrix:
    """A matrix of jobs as GitHub Actions takes it; it takes no ``schema``."""

    include: tuple[Job, ...]


@dataclass(frozen=True)
class Prefetched:
    """A source and its hash. Which fields there are depends on the fetcher and on where the hash is from."""

    fetcher: Literal["fetchurl", "fetchFromGitHub"]
    name: str = _maybe()
    version: str = _maybe()
    files: int | tuple[Mapping[str, Any], ...] = _maybe()
    owner: str = _maybe()
    repo: str = _maybe()
    ref: str = _maybe()
    rev: str = _maybe()
    hash: str = _maybe()
    provenance: Literal["computed", "published"] = _maybe()
    published_by: str = _maybe()
    fetchSubmodules: bool = _maybe()  # noqa: N815 - as Nix calls it
    source: str = _maybe()
    bytes: int = _maybe()
    because: str = _maybe()
    notes: tuple[Mapping[str, Any], ...] = _maybe()


@dataclass(frozen=True)
class NixFiles:
    """What the Nix expressions are like."""

    changes: tuple[str, ...]
    left_out: tuple[str, ...]
    files: int


@dataclass(frozen=True, kw_only=True)
class Healthy(Health):
    """What was seen of a server, and how closely it was looked at."""

    url: str
    probe: Literal["live", "ready", "deep"]


@dataclass(frozen=True)
class Written:
    """Where something was written."""

    written: Path


@dataclass(frozen=True)
class Maintained:
    """What was removed, or with ``--dry-run`` would be, in bytes."""

    dry_run: bool
    freed: int
    parts: tuple[UpkeepPart, ...]


@dataclass(frozen=True)
class Validated:
    """Whether an update may stay, and what was done or is to be done if not."""

    ok: bool
    checks: tuple[Check, ...]
    back: str


@dataclass(frozen=True)
class Limited:
    """A limit of the card's memory: the kernel's file, and what is in it."""

    file: Path
    limit: str
    written: bool


@dataclass(frozen=True)
class ModelName:
    """A name of a model file: whose, how people call it, and where."""

    place: Place
    name: str
    path: Path


@dataclass(frozen=True)
class ListedModel:
    """A model file; ``checked``: whether its digest was worked out, or only its name tells it."""

    digest: str
    checked: bool
    size: int
    names: tuple[ModelName, ...]


@dataclass(frozen=True)
class Models:
    """All model files. ``duplicated``: bytes of copies."""

    store: Path
    files: tuple[ListedModel, ...]
    duplicated: int
    problems: tuple[ModelProblem, ...]


@dataclass(frozen=True)
class ModelsDone:
    """What was done to model files, or with ``dry`` would be; ``freed``: bytes."""

    done: tuple[Done, ...]
    left: tuple[ModelProblem, ...]
    notes: tuple[str, ...]
    freed: int
    dry: bool
    problems: tuple[ModelProblem, ...]


@dataclass(frozen=True)
class WrongName:
    """A name that tells another digest than its file has."""

    path: Path
    expected: str
    found: str


@dataclass(frozen=True)
class ModelsVerified:
    """How many files were read, and which names are wrong."""

    read: int
    wrong: tuple[WrongName, ...]
    problems: tuple[ModelProblem, ...]


@dataclass(frozen=True)
class RenderedDoor:
    """nginx's configuration of a door, and where it was written; "" for nowhere."""

    part: Literal["whole", "http", "comfyui", "ollama"]
    written: Path
    text: str


@dataclass(frozen=True)
class Decided:
    """A route; ``role`` and ``does`` are "" where nobody has decided about it."""

    method: str
    path: str
    place: str
    role: Literal["viewer", "user", "admin", "nobody", ""]
    does: str


@dataclass(frozen=True)
class Routes:
    """The routes of a release or a pack."""

    name: str
    routes: tuple[Decided, ...]


@dataclass(frozen=True)
class Document:
    """One document: its type, the commands that print it, and whether they print several, as ``results``."""

    kind: type
    commands: tuple[str, ...]
    several: bool = False
    also: Mapping[str, type] = field(default_factory=dict)  #: what the file of it has besides its type


DOCUMENTS: Mapping[str, Document] = {
    "error": Document(ErrorDocument, ("every command",)),
    "apply": Document(AppliedDocument, ("apply",)),
    "revert": Document(Reverted, ("revert", "packs revert"), several=True),
    "put-right": Document(PutRight, ("repair", "update")),
    "status": Document(Status, ("status",)),
    "folder": Document(FolderDocument, ("status DIR",)),
    "cache": Document(CacheDocument, ("cache",)),
    "doctor": Document(Doctor, ("doctor",)),
    "doctor-upstream": Document(DoctorUpstream, ("doctor --upstream",)),
    "health": Document(Healthy, ("health",)),
    "health-pack": Document(Written, ("health --write-pack",)),
    "maintain": Document(Maintained, ("maintain",)),
    "validate": Document(Validated, ("validate",)),
    "check": Document(Checked, ("check",), several=True),
    "replay": Document(Replayed, ("replay",)),
    "verify": Document(Verified, ("verify",), several=True),
    "verify-online": Document(Confirmation, ("verify --online",), several=True),
    "explain": Document(Explained, ("explain", "packs explain"), several=True),
    "track": Document(Tracked, ("track",)),
    "packs-track": Document(FollowedPacks, ("packs track",)),
    "bot": Document(BotDocument, ("bot", "packs bot")),
    "matrix": Document(Matrix, ("matrix",)),
    "pin": Document(PinChange, ("pin",), several=True),
    "lock-torch": Document(TorchLock, ("lock-torch",)),
    "prefetch": Document(Prefetched, ("prefetch",)),
    "nix": Document(NixFiles, ("nix",)),
    "door-render": Document(RenderedDoor, ("door render",)),
    "door-routes": Document(Routes, ("door routes",), several=True),
    "test": Document(Evidence, ("test", "packs test"), several=True, also={"format": int, "marked": str}),
    "bench": Document(Benchmark, ("bench run",), also={"format": int}),
    "bench-compare": Document(BenchmarkComparison, ("bench compare",)),
    "bench-history": Document(BenchmarkHistory, ("bench history",)),
    "bench-report": Document(BenchmarkReport, ("bench report",)),
    "bench-record": Document(Recorded, ("bench record",)),
    "bench-costs": Document(ReleaseCost, ("bench costs",), several=True),
    "bench-submit": Document(Submitted, ("bench submit",)),
    "arbiter-limit": Document(Limited, ("arbiter limit",)),
    "models-list": Document(Models, ("models list",)),
    "models-done": Document(ModelsDone, ("models link", "models import", "models gc")),
    "models-verify": Document(ModelsVerified, ("models verify",)),
    "packs-check": Document(PackReport, ("packs check",), several=True),
    "packs-apply": Document(PackManifest, ("packs apply",), also={"format": int}),
}


@cache
def schema(name: str) -> Schema:
    """JSON Schema (draft 7) of one document."""
    document = DOCUMENTS[name]
    inner = _of(document.kind)
    for field_name, kind in document.also.items():
        inner = _with(inner, field_name, _of(kind))
    if document.several:
        inner = _object({"results": {"type": "array", "items": inner}}, ["results"])
    if name == "matrix":
        return inner
    return _with(inner, "schema", {"const": schema_name(name)})


def everything() -> bytes:
    """All of them, as ``docs/json-schema.json``."""
    return documents.rendered(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "What patchforge --json prints",
            "definitions": {name: schema(name) for name in DOCUMENTS},
            "anyOf": [{"$ref": f"#/definitions/{name}"} for name in DOCUMENTS],
        }
    )


_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    object: {},
    Any: {},
}


def _of(kind: Any) -> Schema:
    """A type as JSON Schema. TypeError for one that no document has."""
    if isinstance(kind, NewType):
        return _of(kind.__supertype__)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if is_dataclass(kind):
        return _of_dataclass(kind)
    if hasattr(kind, "_fields"):
        return _array(list(get_type_hints(kind).values()))
    made = _GENERIC.get(get_origin(kind))
    if made is None:
        raise TypeError(f"no JSON Schema of {kind!r}")
    return made(get_args(kind))


def _of_dataclass(kind: Any) -> Schema:
    hints = get_type_hints(kind)
    written = [attribute for attribute in fields(kind) if attribute.metadata != NOT_WRITTEN]
    schema = _object(
        {attribute.name: _of(hints[attribute.name]) for attribute in written},
        [attribute.name for attribute in written if not _may_lack(attribute)],
    )
    return {**schema, "description": (kind.__doc__ or "").partition("\n")[0]}


def _may_lack(attribute: Field[Any]) -> bool:
    return attribute.metadata == OPTIONAL and (
        attribute.default is not MISSING or attribute.default_factory is not MISSING
    )


def _object(properties: Mapping[str, Schema], required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": sorted(required),
        "additionalProperties": False,
    }


def _with(schema: Schema, name: str, inner: Schema) -> Schema:
    return {
        **schema,
        "properties": {**schema["properties"], name: inner},
        "required": sorted({*schema["required"], name}),
    }


def _array(inner: Sequence[Any]) -> Schema:
    kinds = [kind for kind in inner if kind is not ...]
    if len(kinds) > 1:
        return {"type": "array", "items": [_of(kind) for kind in kinds], "minItems": len(kinds), "maxItems": len(kinds)}
    return {"type": "array", "items": _of(kinds[0])}


def _any_of(inner: Sequence[Any]) -> Schema:
    return {"anyOf": [_of(kind) for kind in inner]}


def _mapping(inner: Sequence[Any]) -> Schema:
    return {"type": "object", "additionalProperties": _of(inner[1])}


_GENERIC: Mapping[Any, Callable[[Sequence[Any]], Schema]] = {
    tuple: _array,
    list: _array,
    Sequence: _array,
    frozenset: _array,
    dict: _mapping,
    Mapping: _mapping,
    Union: _any_of,
    UnionType: _any_of,
    Literal: lambda inner: {"enum": list(inner)},
}
