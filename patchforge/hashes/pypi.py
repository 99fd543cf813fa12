"""Hashes of a package's files, taken from the package index that pip is set to use.

The index states the SHA-256 of each file, so that no file is downloaded. Only a file without one is read and hashed.
Both ways of the simple API are understood, JSON (PEP 691) and HTML (PEP 503).
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from patchforge import escape, processes, web
from patchforge.errors import Damaged, PatchforgeError
from patchforge.hashes.nar import CHUNK
from patchforge.hashes.sri import sri, trusted

DEFAULT_INDEX = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_SOURCE = re.compile(r"\.(tar\.gz|tar\.bz2|tar\.xz|zip)$")
_LONGEST = 255  #: characters of a file's name
_PIECE = 1 << 12
_TAG = 1 << 15  #: characters of HTML without an end
_HTML_SECONDS = 5.0
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
        if matching := [file for file in listed if _plain(_version_of(file["filename"], name)) == _plain(version)]:
            return [_package_file(file) for file in sorted(matching, key=lambda file: str(file["filename"]))]
        versions |= {_version_of(file["filename"], name) for file in listed} - {""}
    raise PatchforgeError(
        f"no file of {name} {version} is in the index",
        expected="one of: " + (", ".join(sorted(versions)[-8:]) or "no version at all"),
        found="asked: " + ", ".join(map(web.shown, asked)),
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
    page = f"{index.rstrip('/')}/{quote(re.sub(r'[-_.]+', '-', name).lower(), safe='')}/"
    with open_url(page, Accept=_ACCEPT) as answer:
        if answer.status in _ABSENT:
            return []
        web.require(answer)
        data, kind, where = answer.whole(), answer.headers.get("Content-Type", ""), answer.url
    try:
        files = _from_json(_parsed(data, page)) if "json" in kind else list(_from_html(data))
        return [{**file, "url": _file_url(where, file["url"], index)} for file in files if _is_name(file["filename"])]
    except _Odd as error:
        raise _not_a_page(page, str(error)) from None
    except (KeyError, TypeError, AttributeError):
        raise _not_a_page(page, "JSON of another shape") from None


class _Odd(ValueError):
    """What is on a page, and should not be."""


def _parsed(data: bytes, page: str) -> Any:
    try:
        return web.parsed(data, page)
    except Damaged as error:
        raise _Odd(f"something else than {error.expected}") from None


def _not_a_page(page: str, found: str) -> Damaged:
    return Damaged(
        f"{web.shown(page)} is not a page of a package index",
        expected="the simple API, as JSON or HTML",
        found=found,
        do="check the index that pip is set to use (pip config list)",
    )


def open_url(url: str, limits: web.Limits | None = None, **asked: str) -> AbstractContextManager[web.Answer]:
    """The answer to a GET with the headers ``asked``; a password in ``url`` goes along, to this origin alone."""
    plain, secret = web.separated(url)
    return web.opened(plain, headers={**asked, **secret}, limits=limits or web.DOCUMENT)


def _file_url(page: str, reference: str, index: str) -> str:
    """Where a page's link leads: with the index's password inside its own origin. Damaged where it may not lead."""
    url = web.joined(page, reference)
    if url.startswith("file:") and page.startswith("file:"):
        root = web.file_path(f"{index.rstrip('/')}/").parent.resolve()
        if not web.file_path(url).resolve().is_relative_to(root):
            raise Damaged(
                f"{web.shown(page)} links to a file outside of its index",
                expected=f"a file in {root}",
                do="name another index",
            )
        return url
    url = web.followed(page, reference, secret=False)
    plain, secret = web.separated(index)
    if secret and web.origin(plain) == web.origin(url):
        user = urlsplit(index).netloc.rpartition("@")[0]
        return url.replace("://", f"://{user}@", 1)
    return url


def _is_name(file: str) -> bool:
    """Whether something may be the name of a file; of an odd one, nothing is known and nothing wanted."""
    return 0 < len(file) <= _LONGEST and not re.search(r"[/\\]", file) and escape.line(file) == file


def _from_json(page: Any) -> list[dict[str, Any]]:
    return [
        {
            "filename": _text(file["filename"]),
            "url": _text(file["url"]),
            "sha256": _text(file["hashes"].get("sha256", "")),
            "yanked": bool(file.get("yanked", False)),
            "metadata": bool(file.get("core-metadata") or file.get("dist-info-metadata")),
        }
        for file in page["files"]
    ]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _from_html(data: bytes) -> Iterator[dict[str, Any]]:
    links = _Links()
    text = data.decode("utf-8", "replace")
    end = time.monotonic() + _HTML_SECONDS
    for start in range(0, len(text), _PIECE):
        try:
            links.feed(text[start : start + _PIECE])
        except AssertionError:  # the parser's own word for a malformed declaration
            raise _Odd("a malformed declaration") from None
        if len(links.rawdata) > _TAG or time.monotonic() > end:  # the parser takes quadratic time over open tags
            raise _Odd("HTML that does not end its tags")
    return _anchors(links.found)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))


def _anchors(anchors: Sequence[dict[str, str | None]]) -> Iterator[dict[str, Any]]:
    for anchor in anchors:
        url, _, fragment = (anchor.get("href") or "").partition("#")
        file = unquote(url.rpartition("/")[2])
        if file.endswith(".whl") or _SOURCE.search(file):
            yield {
                "filename": file,
                "url": url,
                "sha256": fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else "",
                "yanked": "data-yanked" in anchor,
                "metadata": "data-core-metadata" in anchor or "data-dist-info-metadata" in anchor,
            }


def _package_file(described: dict[str, Any]) -> PackageFile:
    file, url = str(described["filename"]), str(described["url"])
    text = trusted(described["sha256"]) if described["sha256"] else downloaded_hash(url)
    provenance = "published" if described["sha256"] else "computed"
    return PackageFile(file, quoted_url(url), store_name(file), text, provenance, bool(described["yanked"]))


def downloaded_hash(url: str) -> str:
    """SRI of a file, read from its address and not kept. TryAgain when it breaks off."""
    sha256 = hashlib.sha256()
    with open_url(url, web.FILE) as answer:
        web.require(answer)
        while chunk := answer.read(CHUNK):
            sha256.update(chunk)
    return sri(sha256.digest())


def store_name(file: str) -> str:
    """A name that the Nix store takes: other signs become ``-``, and none stands at the front that may not."""
    return re.sub(r"[^A-Za-z0-9+._?=-]", "-", unquote(file)).lstrip(".") or "source"


def _version_of(file: str, name: str) -> str:
    """The version in a file's name; "" when it is not a wheel or source archive of the package."""
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
    parts = urlsplit(web.separated(url)[0])
    return parts._replace(path=parts.path.replace("+", "%2B")).geturl()
