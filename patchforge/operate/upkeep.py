"""What may go, and what stays: old outputs, temporary files, caches, models that nobody loads.

A file goes only if it is older than the limit, and than an hour, has one name (no hard link), no link in ComfyUI's base
folder leads to it or to a folder that it is in, and nobody has it open or mapped. Where that cannot be told it stays,
and is named.
Links are neither followed nor removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from patchforge import faults, interrupted, processes, symlinks
from patchforge.errors import NotChecked, PatchforgeError, SystemFault
from patchforge.faults import told
from patchforge.inside import Inside

DAY = 86400.0
_BLOCK = 512  # bytes of st_blocks
_SECONDS = 3600.0
_YOUNG = 3600.0  # seconds in which nothing goes, whatever the limit
_BASE = ("models", "input", "output", "temp", "custom_nodes", "user")
_SERVICES = ("/var/cache", "/var/cache/private")  # of systemd's CacheDirectory
_CACHE = re.compile(r"neo_compiler_cache|libsycl_cache|torchinductor.*|(nv)?fuser.*")
_SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".sft", ".onnx")
_FREED = re.compile(r"freed ([0-9.]+)([BKMGT]?)|([0-9.]+) (KiB|MiB|GiB) freed")
_UNITS = {"": 0, "B": 0, "K": 10, "KiB": 10, "M": 20, "MiB": 20, "G": 30, "GiB": 30, "T": 40}


@dataclass(frozen=True, slots=True)
class Gone:
    """A file that is removed, or would be: bytes that it takes on the disk."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class UpkeepPart:
    """What was done in one place. ``kept``: files that were old enough and stayed, with why."""

    name: str
    place: str
    removed: tuple[Gone, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    freed: int = 0
    said: str = ""
    ok: bool = True


@dataclass(frozen=True)
class UpkeepFile:
    """A file below a folder."""

    path: str
    status: os.stat_result

    @property
    def size(self) -> int:
        return self.status.st_blocks * _BLOCK

    @property
    def written(self) -> float:
        return self.status.st_mtime

    @property
    def used(self) -> float:
        """When it was read or written last, as far as the file system notes that (relatime: within a day)."""
        return max(self.status.st_atime, self.status.st_mtime)


class UpkeepFolder:
    """A folder of ComfyUI's or a cache, whose files may go."""

    def __init__(self, root: Path, now: float, *, dry: bool, base: Path | None = None) -> None:
        """``base``: links are looked for in here, too. PatchforgeError where ``root`` is itself a link."""
        if root.is_symlink():
            raise PatchforgeError(
                f"{root} is a link, and links are not followed",
                expected="a folder",
                found=f"a link to {root.readlink()}",
                do="clean up there by other means, or mount it here instead",
            )
        self.root, self._now, self._dry, self._base = root, now, dry, base or root
        self._inside = Inside(root)
        self._unseen: list[tuple[str, str]] = []

    @cached_property
    def files(self) -> list[UpkeepFile]:
        """All files, the oldest first."""
        files = [UpkeepFile(path, status) for path, status in self._inside.files(self._pass_over)]
        return sorted(files, key=lambda file: (file.written, file.path))

    def _pass_over(self, path: str, why: str) -> None:
        """Notes what is not looked at, whatever its age, so that somebody who waits for room learns of it."""
        self._unseen.append((path, why))

    @cached_property
    def _linked(self) -> set[tuple[int, int]]:
        """What the links below the base lead to, files and folders. NotChecked where that cannot be told."""
        return symlinks.targets([self._base])

    def remove(self, name: str, chosen: Iterable[UpkeepFile]) -> UpkeepPart:
        """Removes what may go of the files that are chosen."""
        gone: list[Gone] = []
        kept, ok = list(self._unseen), True
        for file in chosen:
            try:
                why = self._why_not(file) or self._discarded(file)
            except (OSError, SystemFault) as error:
                why, ok = told(error).found or told(error).problem, False
            if why:
                kept.append((file.path, why))
                continue
            gone.append(Gone(file.path, file.size))
            if not self._dry:
                interrupted.leaves(
                    self.root, f"of {self.root} {len(gone)} old files are removed, and the rest is as it was"
                )
        return UpkeepPart(name, str(self.root), tuple(gone), tuple(kept), sum(file.size for file in gone), ok=ok)

    def _discarded(self, file: UpkeepFile) -> str:
        """Why a file was not removed after all; "" where it was, or would be."""
        return "" if self._dry or self._inside.discard(file.path, file.status) else "changed meanwhile"

    def older(self, days: float, when: Callable[[UpkeepFile], float]) -> list[UpkeepFile]:
        """Those that were written, or used, before so many days."""
        return [file for file in self.files if when(file) < self._now - days * DAY]

    def above(self, size: int, without: Iterable[UpkeepFile]) -> list[UpkeepFile]:
        """The oldest files that are too many for ``size`` bytes, when those ``without`` are gone."""
        first = {file.path for file in without}
        left = [file for file in self.files if file.path not in first]
        over = sum(file.size for file in left) - size
        chosen = []
        for file in left:
            if over <= 0:
                break
            if not self._why_not(file):
                chosen.append(file)
                over -= file.size
        return chosen

    @cached_property
    def _linked_folders(self) -> dict[Path, bool]:
        """Whether a link leads to a folder below the root, or to one that it is in; filled as it is asked."""
        return {}

    def _is_linked(self, folder: Path) -> bool:
        if folder not in self._linked_folders:
            status = folder.stat()
            above = folder != self.root and self._is_linked(folder.parent)
            self._linked_folders[folder] = above or (status.st_dev, status.st_ino) in self._linked
        return self._linked_folders[folder]

    def _why_not(self, file: UpkeepFile) -> str:
        if file.written > self._now - _YOUNG:
            return "it was written within the last hour"
        if file.status.st_nlink > 1:
            return "it has another name (a hard link)"
        if (file.status.st_dev, file.status.st_ino) in self._linked or self._is_linked((self.root / file.path).parent):
            return "a link leads to it"
        used = self._inside.in_use(file.path)
        if used is None:
            return "whether it is in use cannot be told"
        return "somebody has it open" if used else ""


def outputs(folder: UpkeepFolder, days: int | None, size: int | None) -> UpkeepPart:
    """Outputs that are too old, and the oldest above a size."""
    old = folder.older(days, lambda file: file.written) if days is not None else []
    more = folder.above(size, old) if size is not None else []
    return folder.remove("outputs", [file for file in (*old, *more) if not _is_marker(file.path)])


def _is_marker(path: str) -> bool:
    """What is hidden, and the empty file that ComfyUI's git keeps its folder with."""
    return any(part.startswith((".", "_output_images_will_be_put_here")) for part in path.split("/"))


def temporary(folder: UpkeepFolder, days: int) -> UpkeepPart:
    """Temporary files that were not written for so long."""
    return folder.remove("temporary files", folder.older(days, lambda file: file.written))


def cache(folder: UpkeepFolder, days: int) -> UpkeepPart:
    """Kernels and compiled code that were not used for so long; they are made again when they are needed."""
    return folder.remove("cache", folder.older(days, lambda file: file.used))


def models(folder: UpkeepFolder, days: int, *, remove: bool) -> UpkeepPart:
    """Models that were not read for so long: listed, and removed only if that was asked for."""
    if os.statvfs(folder.root).f_flag & getattr(os, "ST_NOATIME", 0):
        if remove:
            raise NotChecked(
                f"when the models in {folder.root} were read last cannot be told",
                expected="a file system that notes it",
                found="it is mounted with noatime",
                do="leave --remove-models out",
            )
        return UpkeepPart(
            "unused models", str(folder.root), said="mounted with noatime: when they were read is not noted"
        )
    old = [file for file in folder.older(days, lambda file: file.used) if file.path.endswith(_SUFFIXES)]
    if remove:
        return folder.remove("unused models", old)
    listed = tuple((file.path, f"{file.size} bytes, listed only") for file in old)
    return UpkeepPart(
        "unused models", str(folder.root), kept=listed, said=f"{sum(file.size for file in old)} bytes not used"
    )


def journal(size: int, *, dry: bool) -> UpkeepPart:
    """Systemd's journal, down to a size."""
    command = ["journalctl", "--disk-usage"] if dry else ["journalctl", f"--vacuum-size={size}"]
    return _command("journal", command)


def nix(days: int, *, dry: bool) -> UpkeepPart:
    """Nix' generations that are older, and what only they need."""
    command = ["nix-collect-garbage", "--delete-older-than", f"{days}d", *(["--dry-run"] if dry else [])]
    return _command("Nix", command)


def _command(name: str, command: Sequence[str]) -> UpkeepPart:
    shown = " ".join(command)
    try:
        done = processes.run(
            command,
            env={**processes.environment(allow=processes.NIX), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except FileNotFoundError:
        return UpkeepPart(name, shown, said=f"{command[0]} is not installed", ok=False)
    except (OSError, processes.TimeoutExpired) as error:
        return UpkeepPart(name, shown, said=faults.reason(error), ok=False)
    text = f"{done.stdout}\n{done.stderr}".strip()
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    freed = sum(_bytes(*match) for match in _FREED.findall(text))
    return UpkeepPart(name, shown, freed=freed, said=last[:300], ok=done.returncode == 0)


def _bytes(number: str, unit: str, other: str, other_unit: str) -> int:
    return int(float(number or other) * (1 << _UNITS[unit or other_unit]))


def existing(folder: Path) -> dict[str, Path]:
    """ComfyUI's own folders that are there; none of an empty folder. PatchforgeError for one that is not ComfyUI's."""
    folders = {name: folder / name for name in _BASE if (folder / name).is_dir()}
    if len(folders) < 2 and not (folder / "main.py").is_file() and any(folder.iterdir()):
        raise PatchforgeError(
            f"{folder} is not ComfyUI's base folder",
            expected=f"at least two of {', '.join(_BASE)} in it",
            found=", ".join(folders) or "none of them",
            do="name another DIR",
        )
    return folders


def need_cache(place: Path) -> None:
    """PatchforgeError unless a folder is a cache, as its name or CACHEDIR.TAG says: all that is old in it goes."""
    known = _CACHE.fullmatch(place.name) or place.parts[-2:] == (".triton", "cache") or str(place.parent) in _SERVICES
    if not known and not (place / "CACHEDIR.TAG").is_file():
        raise PatchforgeError(
            f"{place} is not known to be a cache, and all that is old in it would go",
            expected="neo_compiler_cache, libsycl_cache, torchinductor_…, .triton/cache, or CACHEDIR.TAG in it",
            do="name the cache itself; touch CACHEDIR.TAG in it if it is one",
        )
