"""Hashes of a package's files, taken from the package index that pip is set to use.

The index states the SHA-256 of each file, so that no file is downloaded. Only a file without one is read and hashed.
Both ways of the simple API are understood, JSON (PEP 691) and HTML (PEP 503).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import IO, Any

from patchforge import processes
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes.nar import CHUNK
from patchforge.hashes.sri import sri, trusted

DEFAULT_INDEX = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_MOST = 32 << 20  #: bytes of an index page; the longest of the public index has a tenth of this
_SCHEMES = ("http", "https", "file")
_SOURCE = re.compile(r"\.(tar\.gz|tar\.bz2|tar\.xz|zip)$")
_SECONDS = 60.0
_ABSENT = (403, 404, 410)  #: download.pytorch.org answers 403 for a package that it does not have


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file of a version, as ``fetchurl`` wants it."""

    file: str
    url: str  #: with ``+`` as ``%2B``
    name: str  #: for the Nix store, which takes no ``%`` and few other signs
    hash: str  #: SRI of the file itself (flat)
    provenance: str  #: "published" by the index, or "computed" from the file
    yanked: bool


def package_files(name: str, version: str, indexes: Sequence[str] | None = None) -> list[PackageFile]:
    """The files of one version, sorted by name, from the first index that has it. PatchforgeError when none has."""
    asked = list(indexes or configured_indexes())
    versions: set[str] = set()
    for index in asked:
        listed = listed_files(index, name)
        if found := [one for one in listed if _plain(_version_of(one["filename"], name)) == _plain(version)]:
            return [_package_file(one) for one in sorted(found, key=lambda one: str(one["filename"]))]
        versions |= {_version_of(one["filename"], name) for one in listed} - {""}
    raise PatchforgeError(
        f"no file of {name} {version} is in the index",
        expected="one of: " + (", ".join(sorted(versions)[-8:]) or "no version at all"),
        found="asked: " + ", ".join(map(_without_password, asked)),
        do="check the spelling, or the index that pip is set to use (pip config list)",
    )


def configured_indexes() -> list[str]:
    """The index that pip uses, and its extra ones: environment before files, the public index when none is set."""
    settings = _pip_settings()
    order = (":env:", "download", "install", "global")

    def setting(key: str) -> str:
        return next((settings[f"{part}.{key}"] for part in order if f"{part}.{key}" in settings), "")

    return [setting("index-url") or DEFAULT_INDEX, *setting("extra-index-url").split()]


def _pip_settings() -> dict[str, str]:
    names = {":env:.index-url": "PIP_INDEX_URL", ":env:.extra-index-url": "PIP_EXTRA_INDEX_URL"}
    settings = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "config", "list"]
    allowed = processes.environment(allow=processes.PIP, passwords=True)
    done = processes.run(command, env=allowed, capture_output=True, text=True)
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        key, _, value = line.partition("=")
        settings.setdefault(key, " ".join(shlex.split(value.replace("\\n", " "))))
    return settings


def listed_files(index: str, name: str) -> list[dict[str, Any]]:
    """What an index says of a package's files: filename, url, sha256 ("" if it states none), yanked, metadata.

    Nothing when it has no such package. ``metadata``: the index offers the file's METADATA beside it (PEP 658).
    """
    page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', name).lower()}/"
    try:
        with open_url(page, Accept=_ACCEPT) as answer:
            data = answer.read(_MOST)
            kind = answer.headers.get("Content-Type", "") if hasattr(answer, "headers") else ""
            where = answer.geturl() if hasattr(answer, "geturl") else page
    except (FileNotFoundError, urllib.error.URLError, OSError) as error:
        if isinstance(error, FileNotFoundError) or getattr(error, "code", None) in _ABSENT:
            return []
        raise _unreachable(page, error) from error
    try:
        return _from_json(data, where) if "json" in kind else _from_html(data, where)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PatchforgeError(
            f"{_without_password(page)} is not a page of a package index",
            expected="the simple API, as JSON or HTML",
            found=f"{type(error).__name__}: {error}",
            do="check the index that pip is set to use (pip config list)",
        ) from error


def open_url(url: str, **asked: str) -> IO[bytes] | Any:
    """The answer to a GET with the headers ``asked``; a password in ``url`` is sent along. OSError without one."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise PatchforgeError(f"{_without_password(url)} cannot be asked", expected="http, https or file", found=url)
    if parts.scheme == "file":
        path = urllib.request.url2pathname(parts.path)
        return open(path + "index.html" if path.endswith("/") else path, "rb")  # noqa: PTH123 - caller closes
    headers = {"Accept": "*/*", "User-Agent": "patchforge", **asked}
    if parts.username is not None:
        user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib.request.urlopen(urllib.request.Request(plain, headers=headers), timeout=_SECONDS)  # noqa: S310


def _from_json(data: bytes, page: str) -> list[dict[str, Any]]:
    return [
        {
            "filename": str(one["filename"]),
            "url": urllib.parse.urljoin(page, one["url"]),
            "sha256": str(one["hashes"].get("sha256", "")),
            "yanked": bool(one.get("yanked", False)),
            "metadata": bool(one.get("core-metadata") or one.get("dist-info-metadata")),
        }
        for one in json.loads(data)["files"]
    ]


def _from_html(data: bytes, page: str) -> list[dict[str, Any]]:
    links = _Links()
    links.feed(data.decode("utf-8", "replace"))
    return list(_anchors(links.found, page))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))


def _anchors(found: Sequence[dict[str, str | None]], page: str) -> Iterator[dict[str, Any]]:
    for anchor in found:
        url, _, fragment = urllib.parse.urljoin(page, anchor.get("href") or "").partition("#")
        yield {
            "filename": urllib.parse.unquote(url.rpartition("/")[2]),
            "url": url,
            "sha256": fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else "",
            "yanked": "data-yanked" in anchor,
            "metadata": "data-core-metadata" in anchor or "data-dist-info-metadata" in anchor,
        }


def _package_file(one: dict[str, Any]) -> PackageFile:
    file, url = str(one["filename"]), str(one["url"])
    text = trusted(one["sha256"]) if one["sha256"] else downloaded_hash(url)
    provenance = "published" if one["sha256"] else "computed"
    return PackageFile(file, quoted_url(url), store_name(file), text, provenance, bool(one["yanked"]))


def downloaded_hash(url: str) -> str:
    """SRI of a file, read from its address and not kept. CheckFailed when it breaks off."""
    sha256 = hashlib.sha256()
    read = 0
    try:
        with open_url(url) as answer:
            while chunk := answer.read(CHUNK):
                sha256.update(chunk)
                read += len(chunk)
            expected = answer.headers.get("Content-Length") if hasattr(answer, "headers") else None
    except OSError as error:
        raise _unreachable(url, error) from error
    if expected is not None and int(expected) != read:
        found = f"{read} of {expected} bytes"
        raise CheckFailed(f"{_without_password(url)} broke off", expected="the whole file", found=found, do="try again")
    return sri(sha256.digest())


def store_name(file: str) -> str:
    """A name that the Nix store takes: other signs become ``-``, and none stands at the front that may not."""
    return re.sub(r"[^A-Za-z0-9+._?=-]", "-", urllib.parse.unquote(file)).lstrip(".") or "source"


def _version_of(file: str, name: str) -> str:
    """The version in a file's name; "" when it is no wheel or source archive of the package."""
    if file.endswith(".whl"):
        return file.partition("-")[2].partition("-")[0]
    stem = _SOURCE.sub("", file)
    pattern = re.sub(r"[-_.]+", "[-_.]+", re.escape(name).replace("\\", ""))
    match = re.fullmatch(f"{pattern}-(.+)", stem, re.IGNORECASE) if stem != file else None
    return match[1] if match else ""


def _plain(version: str) -> str:
    """Equal for spellings of one version: case, a leading v, separators, zeros at the end (PEP 440, in part)."""
    public, _, local = version.lower().removeprefix("v").partition("+")
    short = re.sub(r"(\.0)+(?=$|[a-z])", "", re.sub(r"[-_]", ".", public))
    return short + (f"+{re.sub(r'[-_]', '.', local)}" if local else "")


def quoted_url(url: str) -> str:
    """The address as it may be recorded: without a password, and with ``+`` as ``%2B``."""
    parts = urllib.parse.urlsplit(_without_password(url))
    return parts._replace(path=parts.path.replace("+", "%2B")).geturl()


def _without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _unreachable(url: str, error: Exception) -> PatchforgeError:
    return PatchforgeError(
        f"{_without_password(url)} cannot be read",
        expected="an answer of the package index",
        found=str(error),
        do="check the network, and the index that pip is set to use (pip config list)",
    )
