"""What health, validate and maintain leave behind for the exporter: small documents in one folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from patchforge import outputs
from patchforge.documents import Format
from patchforge.errors import Damaged
from patchforge.operate.metrics import Sample
from patchforge.paths import all_below, need_folder


@dataclass(frozen=True, slots=True)
class HealthRecord:
    """One look at a server. ``when``: seconds since 1970."""

    server: str
    probe: str  #: live, ready or deep
    ok: bool
    reason: str
    seconds: float
    when: float


@dataclass(frozen=True, slots=True)
class ValidationRecord:
    """One validation. ``ratio``: time of the quick benchmark against the last good one; None where none was made."""

    server: str
    ok: bool
    reason: str
    ratio: float | None
    regressed: bool
    when: float


@dataclass(frozen=True, slots=True)
class MaintenanceRecord:
    """One run of maintain."""

    ok: bool
    freed: int  #: bytes
    when: float


_KINDS: Mapping[str, Format[Any]] = {
    "health": Format(HealthRecord, 1),
    "validation": Format(ValidationRecord, 1),
    "maintenance": Format(MaintenanceRecord, 1),
}
_DO = "remove it; the command that wrote it writes it again"
_MOST = 200  #: records that are read


def write(folder: Path, kind: str, name: str, record: object) -> None:
    """Puts a record into a folder, which is made if need be, in the place of the last one of its name."""
    if os.path.lexists(folder):
        need_folder(folder)
    outputs.write_document(_file(folder, kind, name), _KINDS[kind].dump(record), partial(_is_one, kind))


def check(folder: Path, kind: str, name: str) -> None:
    """PatchforgeError or OSError where ``write`` could not; writes nothing."""
    if os.path.lexists(folder):
        need_folder(folder)
    outputs.check_document(_file(folder, kind, name), partial(_is_one, kind))


def _is_one(kind: str, data: bytes) -> bool:
    try:
        _KINDS[kind].parse(data, "")
    except Damaged:
        return False
    return True


def _file(folder: Path, kind: str, name: str) -> Path:
    return folder / f"{kind}-{_plain(name)}.json"


def read(folder: Path, kind: str, name: str) -> Any:
    """The record of a name; None where there is none. Damaged for one that is not as it should be."""
    file = _file(folder, kind, name)
    return _KINDS[kind].read(file, do=_DO) if file.is_file() else None


def collect(folder: Path) -> Iterator[Sample]:
    """The records of a folder as metrics."""
    try:
        files = [path for path in all_below(folder, "*.json") if path.name.partition("-")[0] in _KINDS]
    except OSError:
        files = []
        yield Sample("patchforge_record_error", 1, (str(folder),))
    for file in files[:_MOST]:
        try:
            record = _KINDS[file.name.partition("-")[0]].read(file, do=_DO)
        except (OSError, Damaged):
            yield Sample("patchforge_record_error", 1, (str(file),))
            continue
        yield Sample("patchforge_record_error", 0, (str(file),))
        yield from _told(record, str(folder))


def _told(record: Any, folder: str) -> Iterator[Sample]:
    if isinstance(record, HealthRecord):
        labels = record.server, record.probe
        yield Sample("patchforge_health_ok", float(record.ok), labels)
        yield Sample("patchforge_health_timestamp_seconds", record.when, labels)
        yield Sample("patchforge_health_duration_seconds", record.seconds, labels)
    elif isinstance(record, ValidationRecord):
        yield Sample("patchforge_validation_ok", float(record.ok), (record.server,))
        yield Sample("patchforge_validation_timestamp_seconds", record.when, (record.server,))
        yield Sample("patchforge_benchmark_regressed", float(record.regressed), (record.server,))
        if record.ratio is not None:
            yield Sample("patchforge_benchmark_ratio", record.ratio, (record.server,))
    else:
        yield Sample("patchforge_maintenance_ok", float(record.ok), (folder,))
        yield Sample("patchforge_maintenance_timestamp_seconds", record.when, (folder,))
        yield Sample("patchforge_maintenance_freed_bytes", record.freed, (folder,))


def now() -> float:
    """Seconds since 1970."""
    return time.time()


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name) or "all"
