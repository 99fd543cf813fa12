"""What trials of one release saw, as ``evidence.json`` with its pictures: bound to the manifest and to the device."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from patchforge import __version__, documents
from patchforge.errors import Damaged, PatchforgeError
from patchforge.names import odd
from patchforge.outputs import Known, OutputKind, known_by, read_folder, read_json, update_folder
from patchforge.trial.model import Device, JsonObject, Judgement, TrialSide

FILE = "evidence.json"
IMAGES = "images"


@dataclass(frozen=True, slots=True)
class SessionResult:
    """One start of the server, finished.

    ``key`` is ``session_key`` of all that decides the results. ``device`` is the session's own, with the emulator's
    options. ``facts`` is what the server says of its device: name, driver, total memory. ``date`` is the caller's, in
    ISO 8601. A session that was not run has judgements that say why.
    """

    name: str
    side: TrialSide
    key: str
    date: str
    device: Device
    arguments: tuple[str, ...]  #: the server's
    facts: JsonObject
    versions: dict[str, str]  #: python, torch and packages
    missing: tuple[str, ...]  #: files of the release that the clone lacks, so that the tree was without them
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All sessions of a release on one device. ``manifest`` is the sha256 of the manifest.json beside the patches."""

    release: str
    commit: str
    manifest: str
    device: Device
    sessions: tuple[SessionResult, ...] = ()
    project: str = "comfyui"
    patchforge: str = field(default=__version__)

    @property
    def binding(self) -> JsonObject:
        """What the evidence is about; sessions of another binding are not evidence for this one."""
        return {name: value for name, value in asdict(self).items() if name != "sessions"}

    def finished(self, side: TrialSide, name: str, key: str) -> SessionResult | None:
        """The session's result, when it has been run under the same conditions."""
        matching = (
            session for session in self.sessions if (session.side, session.name, session.key) == (side, name, key)
        )
        return next(matching, None)

    def add(self, session: SessionResult) -> Evidence:
        """With the session, in place of an earlier one of that side and name. The order is that of first addition."""
        sessions = {(session.side, session.name): session for session in self.sessions}
        sessions[session.side, session.name] = session
        return replace(self, sessions=tuple(sessions.values()))

    def merge(self, later: Evidence) -> Evidence:
        """With the sessions of ``later``, which win. Damaged when the two are not about the same thing."""
        ours, theirs = self.binding, later.binding
        if other := [name for name in ours if ours[name] != theirs[name]]:
            raise Damaged(
                "evidence of two different things cannot be merged",
                expected=", ".join(f"{name} {ours[name]}" for name in other),
                found=", ".join(f"{name} {theirs[name]}" for name in other),
                do="write it to another folder",
            )
        merged = self
        for session in later.sessions:
            merged = merged.add(session)
        return merged

    @property
    def pictures(self) -> list[str]:
        """Every picture that a judgement names."""
        return [name for session in self.sessions for judgement in session.judgements for name in judgement.images]


FORMAT = documents.Format(Evidence, 2)
_ORIGIN, _AGAIN = "the evidence", "run the tests with --rerun"


def digest(data: bytes) -> str:
    """The sha256 of a manifest.json as it is written, in hex."""
    return hashlib.sha256(data).hexdigest()


def session_key(**conditions: Any) -> str:
    """The sha256 of everything that decides a session's results; JSON values, dataclasses and enums."""
    return digest(json.dumps(documents.plain(conditions), sort_keys=True).encode())


def picture_name(side: TrialSide, session: str, test: str, what: str, data: bytes) -> str:
    """Where a picture lies beside the evidence. ``what`` is result, reference or difference."""
    suffix = "webp" if data.startswith(b"RIFF") else "png"
    return f"{IMAGES}/{side.value}/{session}/{test}-{what}.{suffix}"


def dump(evidence: Evidence) -> bytes:
    """The JSON text. ``marked`` says at a glance whether the device is real."""
    return documents.rendered({**FORMAT.data(evidence), "marked": evidence.device.real})


def parse(data: bytes) -> Evidence:
    """Reads what ``dump`` wrote. Damaged names every field that is missing, unknown or of the wrong type."""
    document = documents.parse_json(data, dict[str, Any], _ORIGIN, do=_AGAIN)
    marked = document.pop("marked", None)
    evidence = FORMAT.checked(document, _ORIGIN, do=_AGAIN)
    if any(odd(name) for name in evidence.pictures):
        raise Damaged("the evidence names pictures outside its folder", do=_AGAIN)
    if marked != evidence.device.real:
        raise Damaged(
            "the evidence is marked wrongly", expected=evidence.device.real, found=repr(marked), do="run the test again"
        )
    return evidence


def save(folder: Path, evidence: Evidence, pictures: Mapping[str, bytes]) -> None:
    """Writes evidence and pictures, together or not at all; ``pictures`` by their names in the judgements.

    Pictures of earlier sessions and reports stay; pictures that no judgement names any more go. Nothing else may be
    writing there. PatchforgeError when a named picture is neither given nor there, and when the folder holds what is
    not ours.
    """

    def change(present: Mapping[str, bytes]) -> dict[str, bytes]:
        named = set(evidence.pictures)
        if lacking := named - pictures.keys() - present.keys():
            raise PatchforgeError(
                "pictures that the evidence names are missing",
                found=", ".join(sorted(lacking)),
                do="run the test again",
            )
        if unnamed := pictures.keys() - named:
            raise PatchforgeError(
                "no judgement names these pictures", found=", ".join(sorted(unnamed)), do="run the test again"
            )
        kept = {name: data for name, data in present.items() if name in named or not name.startswith(f"{IMAGES}/")}
        return {**kept, **pictures, FILE: dump(evidence)}

    update_folder(folder, EVIDENCE, change)


def check(folder: Path) -> None:
    """PatchforgeError where ``save`` would refuse the folder that is there."""
    read_folder(folder, EVIDENCE)


def _earlier(folder: Path) -> Known | None:
    """Folders of earlier versions have no list; the evidence names its pictures."""
    document = read_json(folder / FILE) or {}
    if not isinstance(document.get("format"), int) or not isinstance(document.get("sessions"), list):
        return None
    names = {FILE, "report.md", "report.html", "against-upstream.json", "against-upstream.md", *_pictures(document)}
    return known_by(dict.fromkeys(names, lambda _: True))


def _pictures(value: Any) -> Iterator[str]:
    """Every picture that evidence of any version names."""
    if isinstance(value, dict):
        yield from (name for name in value.get("images", ()) if isinstance(name, str))
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _pictures(part)


EVIDENCE = OutputKind(
    "evidence of trials",
    re.compile(r"(evidence|against-upstream)\.json|(report|against-upstream)\.md|report\.html|images/.+\.(png|webp)"),
    _earlier,
)


def load(folder: Path) -> Evidence | None:
    """The evidence of a folder; None where there is none. Damaged when it cannot be read or lacks a picture.

    PatchforgeError when the folder holds what is not ours.
    """
    files = read_folder(folder, EVIDENCE)
    if FILE not in files:
        return None
    evidence = parse(files[FILE])
    if lacking := [name for name in evidence.pictures if name not in files]:
        raise Damaged(f"{folder} lacks pictures", expected=", ".join(lacking), do=_AGAIN)
    return evidence
