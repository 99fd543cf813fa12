"""Files in package indexes: the one that suits a requirement, and what it requires, without downloading it."""

from __future__ import annotations

import http.client
import io
import lzma
import math
import re
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import IO, Any

from packaging import tags
from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from patchforge import faults, web
from patchforge.errors import CheckFailed, Damaged, TryAgain
from patchforge.hashes.pypi import downloaded_hash, listed_files, open_url, quoted_url
from patchforge.hashes.sri import trusted
from patchforge.pins.requirements import is_exact

#: Hosts whose addresses last. An index that gives another (a mirror) is used, and its addresses are not recorded.
LASTING_HOSTS = ("files.pythonhosted.org", "download.pytorch.org", "download-r2.pytorch.org")
_GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
_PLATFORMS = [*_GLIBC, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
_RANGE = re.compile("bytes ([0-9]+)-([0-9]+)/([0-9]+)")
_MOST_TAGS = 256  #: that one wheel's name may stand for
_READ_AHEAD = 1 << 16
_METADATA = 4 << 20  #: bytes
_DIRECTORY = 64 << 20  #: bytes of a wheel that are read for its list of files and METADATA
#: What zipfile and its decompressors say of files that are none.
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    ValueError,
    OverflowError,
    RuntimeError,  # encrypted; NotImplementedError: packed in another way
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel of an index."""

    name: str
    version: Version
    tag: tags.Tag  #: of the tags in its name, the one that suits best
    rank: int  #: place of that tag in the order of preference; 0 is best
    file: str
    url: str
    sha256: str  #: hex; "" when the index states none
    yanked: bool
    metadata: bool  #: the index offers METADATA beside it

    def hash(self) -> tuple[str, str]:
        """SRI, and where it is from: ``index``, or ``computed`` from the whole file if the index states none."""
        return (trusted(self.sha256), "index") if self.sha256 else (downloaded_hash(self.url), "computed")

    def lasting_url(self, hosts: Sequence[str]) -> str:
        """The address to record; "" when it is a mirror's."""
        url = quoted_url(self.url)
        return url if any(url.startswith((f"https://{host}/", f"http://{host}/")) for host in hosts) else ""


class Wheels:
    """The wheels that some indexes have for one Python; each page is read once."""

    def __init__(self, indexes: Iterable[str], python: str) -> None:
        self._indexes = list(indexes)
        self._ranks = {tag: rank for rank, tag in enumerate(_supported(python))}
        self._pages: dict[str, list[Wheel]] = {}

    def best(self, requirement: Requirement) -> Wheel | None:
        """The newest version that satisfies it, of that the wheel that suits best; final releases first."""
        fitting = {wheel.version for wheel in self._of(requirement.name) if not wheel.yanked or is_exact(requirement)}
        version = max(requirement.specifier.filter(fitting), default=None)
        wheels = [wheel for wheel in self._of(requirement.name) if wheel.version == version]
        return min(wheels, key=lambda wheel: (wheel.yanked, wheel.rank), default=None)

    def _of(self, name: str) -> list[Wheel]:
        if name not in self._pages:
            self._pages[name] = list({wheel.file: wheel for wheel in self._read(name)}.values())
        return self._pages[name]

    def _read(self, name: str) -> Iterator[Wheel]:
        for index in reversed(self._indexes):  # of a file that several have, the first index's is kept
            for listed in listed_files(index, name):
                if wheel := self._wheel(listed):
                    yield wheel

    def _wheel(self, listed: dict[str, Any]) -> Wheel | None:
        file = str(listed["filename"])
        together = file.removesuffix(".whl").split("-")[-3:]
        if math.prod(part.count(".") + 1 for part in together) > _MOST_TAGS:
            return None
        try:
            name, version, _, compatible = parse_wheel_filename(file)
        except ValueError:
            return None
        tag = min(compatible & self._ranks.keys(), key=self._ranks.__getitem__, default=None)
        if tag is None:
            return None
        about = (listed["url"], listed["sha256"], listed["yanked"], listed["metadata"])
        return Wheel(name, version, tag, self._ranks[tag], file, *about)


@cache
def _supported(python: str) -> tuple[tags.Tag, ...]:
    major, minor = map(int, python.split("."))
    abi = f"cp{major}{minor}"
    return (
        *tags.cpython_tags((major, minor), [abi], _PLATFORMS),
        *tags.compatible_tags((major, minor), abi, _PLATFORMS),
    )


def requires(wheel: Wheel) -> list[str]:
    """``Requires-Dist`` of a wheel: from METADATA beside it, or else out of the wheel, of which only parts are read."""
    try:
        data = _beside(wheel.url) if wheel.metadata else _inside(wheel.url)
    except (OSError, StopIteration, *_BROKEN_ZIP) as error:
        raise Damaged(
            f"what {wheel.file} requires cannot be read",
            expected="METADATA beside it in the index, or in it",
            found=faults.reason(error),
            do="check the network, and the index",
        ) from error
    raw, _ = parse_email(data)
    if str(raw.get("version", "")) != str(wheel.version):
        found = f"version {raw.get('version', 'none')}"
        raise CheckFailed(f"{wheel.file} describes itself as another", expected=str(wheel.version), found=found)
    return raw.get("requires_dist", [])


def _beside(url: str) -> bytes:
    limits = replace(web.DOCUMENT, size=min(_METADATA, web.DOCUMENT.size))
    with open_url(f"{url}.metadata", limits) as answer:
        web.require(answer)
        return answer.whole()


def _inside(url: str) -> bytes:
    with _remote(url) as stream, zipfile.ZipFile(stream) as archive:
        name = next(each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
        with archive.open(name) as packed:
            data = packed.read(_METADATA + 1)
    if len(data) > _METADATA:
        raise zipfile.BadZipFile
    return data


def _remote(url: str) -> IO[bytes]:
    """The file at an address, read piece by piece; all of it at once when the server knows no ranges."""
    with open_url(url, web.FILE, Range="bytes=0-0") as answer:
        web.require(answer, http.client.OK, http.client.PARTIAL_CONTENT)
        if answer.status == http.client.PARTIAL_CONTENT:
            match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            size = web.whole_number(match[3], web.FILE.size) if match else None
            if size is None:
                raise Damaged(
                    f"{web.shown(url)} cannot be read in parts",
                    expected="Content-Range: bytes 0-0/SIZE",
                    do="name another index",
                )
            return io.BufferedReader(_Ranges(url, size), _READ_AHEAD)
        whole = tempfile.TemporaryFile(prefix="patchforge-")  # noqa: SIM115 - the caller closes it
        try:
            while data := answer.read(_READ_AHEAD):
                whole.write(data)
        except BaseException:
            whole.close()
            raise
        return whole


class _Ranges(io.RawIOBase):
    """A file on a server that answers ranges."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._at = url, size, 0
        self._left, self._end = _DIRECTORY, time.monotonic() + web.SECONDS

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start: Callable[[], int] = {0: lambda: 0, 1: lambda: self._at, 2: lambda: self._size}[whence]
        self._at = start() + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        self._left -= end - self._at
        if self._left < 0:
            raise zipfile.BadZipFile
        if time.monotonic() > self._end:
            raise TryAgain(f"{web.shown(self._url)} sends its parts too slowly", do="try again later")
        limits = replace(web.DOCUMENT, size=end - self._at)
        with open_url(self._url, limits, Range=f"bytes={self._at}-{end - 1}") as answer:
            web.require(answer, http.client.PARTIAL_CONTENT)
            data = answer.read()
        told = answer.headers.get("Content-Range", "")
        if len(data) != end - self._at or told != f"bytes {self._at}-{end - 1}/{self._size}":
            raise Damaged(
                f"{web.shown(self._url)} answers with another part than was asked for",
                do="try again later, or name another address",
            )
        buffer[: len(data)] = data
        self._at = end
        return len(data)
