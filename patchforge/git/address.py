"""Addresses of repositories: which ones git is given at all."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from patchforge.errors import PatchforgeError
from patchforge.escape import without_password

_ADDRESS = re.compile(r"[a-z][\w+.-]*://|[\w.-]+@[\w.:\[\]-]+:(?!:)|[a-z][\w+.-]*::", re.IGNORECASE)
_SCP = re.compile(r"([\w.-]+)@([\w.-]+|\[[\da-f:]+\]):(.+)", re.IGNORECASE | re.DOTALL)
_ODD = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LOOPBACK_HTTP = re.compile(r"http://(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?(?:/|$)", re.IGNORECASE)
_LEAVE_OUT = "leave it out; git's credential helper gives it, and the bot's token comes from GH_TOKEN or --token-file"
_EXPECTED = "https://…, ssh://…, user@host:path, file:///…, or http:// to this machine"


def looks_like_address(text: str) -> bool:
    """Whether git would take ``text`` for an address or for a helper's name (``ext::``), rather than for a path."""
    return bool(_ADDRESS.match(text))


def check_address(address: str) -> str:
    """``address``, if git may be given it. PatchforgeError, without what may be a secret in it, if not."""
    problem, do = _problem(address)
    if problem:
        shown = without_password(address)
        raise PatchforgeError(f"{shown!r} is not accepted as an address", expected=_EXPECTED, found=problem, do=do)
    return address


def _problem(address: str) -> tuple[str, str]:
    """Why an address is not taken, and what to do; two empty texts for one that is fine."""
    do = "name another address, or a clone on this machine by its path"
    if _ODD.search(address):
        return "white space or control characters in it", do
    if match := _SCP.fullmatch(address):
        return (
            ("a name that begins with a dash", do) if match[2].startswith("-") or match[3].startswith("-") else ("", "")
        )
    try:
        parts = urlsplit(address)
        host, user, password, scheme = parts.hostname or "", parts.username, parts.password, parts.scheme.lower()
        _ = parts.port
    except ValueError as error:
        return str(error), do
    if "://" not in address or "::" in address.partition("://")[0]:
        return "a helper of git's, or no scheme", do
    if password is not None or (user is not None and scheme != "ssh"):
        return "a user, password or token in it", _LEAVE_OUT
    if host.startswith("-") or (user or "").startswith("-"):
        return "a name that begins with a dash", do
    return _scheme_problem(address, scheme, host), do


def _scheme_problem(address: str, scheme: str, host: str) -> str:
    if scheme == "http":
        return "" if LOOPBACK_HTTP.match(address) else "plain http, which anybody on the way can read and change"
    if scheme == "file":
        return "" if host in {"", "localhost"} else "a file on another machine"
    if scheme not in {"https", "ssh"}:
        return f"the scheme {scheme}"
    return "" if host else "no host"
