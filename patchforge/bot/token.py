"""The token for GitHub: where it comes from, that no child of this process can read it, and that it goes nowhere else.

Once read it is in this process's memory alone, which is closed to others of the same user (``processes.close``).
"""

from __future__ import annotations

import base64
import html
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from patchforge import faults, processes
from patchforge.errors import PatchforgeError
from patchforge.git.address import check_address, looks_like_address

_LONGEST = 1024  #: characters of a token
_MOST = 1 << 16  #: bytes of what holds one
_VARIABLES = ("GH_TOKEN", "GITHUB_TOKEN")
_CREDENTIAL = "github-token"  #: the name in systemd's LoadCredential=


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A secret. Only ``text`` shows it. ``file``: a file that still holds it."""

    text: str = ""
    file: Path | None = None

    def __repr__(self) -> str:
        return "Token(***)"

    @property
    def basic(self) -> str:
        """The value of git's Authorization header."""
        return "basic " + base64.b64encode(f"x-access-token:{self.text}".encode()).decode()

    def hidden(self, text: str) -> str:
        """``text`` without the token in any of its spellings; to be called before anything is cut off ``text``."""
        return _pattern(self.text).sub("***", text) if self.text else text

    def hidden_in(self, value: Any) -> Any:
        """JSON without the token in any text of it."""
        if isinstance(value, str):
            return self.hidden(value)
        if isinstance(value, list):
            return [self.hidden_in(item) for item in value]
        if isinstance(value, dict):
            return {self.hidden(key): self.hidden_in(item) for key, item in value.items()}
        return value


@cache
def _pattern(secret: str) -> re.Pattern[str]:
    """The token with each character as itself, quoted or escaped, or all of it in base 64 (however embedded) or 16."""
    data = secret.encode()
    plain = "".join(map(_character, secret))
    return re.compile("|".join([plain, data.hex(), *_base64(data)]), re.IGNORECASE)


def _character(character: str) -> str:
    """For addresses, JSON, Python, shells and HTML."""
    code = ord(character)
    few = "{0,8}"  # bounded, so that a long run of signs is not gone through once for each of them
    slash = r"(?:\\{1,8})"
    spelt = [f"%(?:25){few}{code:02x}", f"{slash}u0{few}{code:x}", f"{slash}x{code:02x}"]
    spelt += [f"&#0{few}{code};", f"&#x0{few}{code:x};"]
    named = [re.escape(html.escape(character))] if html.escape(character) != character else []
    return f"(?:{'|'.join([*spelt, *named])}|{slash}?{re.escape(character)})"


def _base64(data: bytes) -> Iterator[str]:
    """What base 64 has of ``data`` wherever it stands in what is encoded: first and last letters depend on the rest."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        core = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        letters = {"+": "(?:[+-]|%2b)", "/": "(?:[/_]|%2f|\\\\/)"}
        yield "".join(letters.get(letter, letter) for letter in core)


def find_token(file: str | None = None) -> Token:
    """From ``file``, GH_TOKEN, GITHUB_TOKEN or systemd's credentials folder; an empty token when there is none.

    The variables are gone afterwards, also from the bytes that the system shows of this process's environment.
    """
    processes.close()
    token = _found(file)
    for name, value in list(os.environ.items()):
        if name in _VARIABLES or (token.text and token.text in value):
            _forget(name)
    return token


def _found(file: str | None) -> Token:
    if file:
        return _read(Path(file))
    for name in _VARIABLES:
        if text := os.environ.get(name, "").strip():
            return _checked(text, name)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / _CREDENTIAL if folder else None
    return _read(path) if path and path.is_file() else Token()


def _read(path: Path) -> Token:
    try:
        readable = path if stat.S_ISREG(path.stat().st_mode) else None
        with path.open("rb") as stream:
            text = stream.read(_MOST).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchforgeError(
            f"the token file {path} cannot be read", found=faults.reason(error), do="name a text file that you may read"
        ) from None
    return _checked(text, str(path), readable)


def _checked(text: str, where: str, file: Path | None = None) -> Token:
    if not 0 < len(text) <= _LONGEST or not all("!" <= letter <= "~" for letter in text):
        found = f"{len(text.splitlines())} lines" if len(text.splitlines()) != 1 else "spaces or odd characters"
        raise PatchforgeError(
            f"{where} does not hold a token",
            expected="one line of printable ASCII",
            found=found,
            do="write the token alone into it",
        )
    return Token(text, file)


def _forget(name: str) -> None:
    """Takes a variable out of the environment. Unsetting alone leaves its bytes in /proc/PID/environ."""
    if sys.platform != "win32":
        import ctypes  # noqa: PLC0415 - keeps start-up light

        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_void_p
        if place := getenv(os.fsencode(name)):
            ctypes.memset(place, 0, len(os.fsencode(os.environ[name])))
    del os.environ[name]


def seen_by_children(token: Token) -> list[str]:
    """Where a program of the same user can read the token: its file, and the environment of what started this."""
    places = [f"the file {token.file}"] if token.file else []
    process = os.getppid()
    while token.text and process > 1:
        place = Path(f"/proc/{process}")
        try:
            if token.text.encode() in (place / "environ").read_bytes():
                places.append(f"the environment of process {process}")
            process = int((place / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return places


def refuse_secrets(address: str, token: Token) -> None:
    """PatchforgeError for an address with a name, a password or the token in it, and for a token over plain HTTP.

    ``git@host`` is not a secret: that is how SSH names its user. Plain HTTP is for this machine alone.
    """
    if token.text and token.text in unquote(address):
        raise PatchforgeError("the remote's address holds the token", do="leave it out; git gets it in another way")
    if looks_like_address(address):
        check_address(address)
