"""The token for GitHub: where it comes from, and that it goes nowhere else."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from patchforge.errors import PatchforgeError

_VARIABLES = ("GH_TOKEN", "GITHUB_TOKEN")
_CREDENTIAL = "github-token"  #: the name in systemd's LoadCredential=


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A secret. Only ``text`` shows it."""

    text: str = ""

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
            return [self.hidden_in(one) for one in value]
        if isinstance(value, dict):
            return {self.hidden(key): self.hidden_in(one) for key, one in value.items()}
        return value


@cache
def _pattern(secret: str) -> re.Pattern[str]:
    """The token with each character as itself, quoted or escaped, or all of it in base 64 (however embedded) or 16."""
    data = secret.encode()
    plain = "".join(map(_character, secret))
    return re.compile("|".join([plain, data.hex(), *_base64(data)]), re.IGNORECASE)


def _character(one: str) -> str:
    """For addresses, JSON, Python, shells and HTML."""
    code = ord(one)
    few = "{0,8}"  # bounded, so that a long run of signs is not gone through once for each of them
    slash = r"(?:\\{1,8})"
    spelt = [f"%(?:25){few}{code:02x}", f"{slash}u0{few}{code:x}", f"{slash}x{code:02x}"]
    spelt += [f"&#0{few}{code};", f"&#x0{few}{code:x};"]
    named = [re.escape(html.escape(one))] if html.escape(one) != one else []
    return f"(?:{'|'.join([*spelt, *named])}|{slash}?{re.escape(one)})"


def _base64(data: bytes) -> Iterator[str]:
    """What base 64 has of ``data`` wherever it stands in what is encoded: first and last letters depend on the rest."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        core = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        letters = {"+": "(?:[+-]|%2b)", "/": "(?:[/_]|%2f|\\\\/)"}
        yield "".join(letters.get(one, one) for one in core)


def find_token(file: str | None = None) -> Token:
    """From ``file``, GH_TOKEN, GITHUB_TOKEN or systemd's credentials folder; an empty token when there is none."""
    if file:
        return _sendable(_read(Path(file)), file)
    for name in _VARIABLES:
        if text := os.environ.get(name, "").strip():
            return _sendable(text, name)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / _CREDENTIAL if folder else None
    return _sendable(_read(path), str(path)) if path and path.is_file() else Token()


def _sendable(text: str, where: str) -> Token:
    """PatchforgeError for what no header can hold."""
    if not re.fullmatch(r"[\x21-\x7e]{1,1024}", text):
        raise PatchforgeError(f"{where} holds no token", expected="ASCII characters without a space, 1024 at most")
    return Token(text)


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchforgeError(f"the token file {path} cannot be read", found=type(error).__name__) from None
    if not text or "\n" in text:
        raise PatchforgeError(f"{path} holds no token", expected="one line", found=f"{len(text.splitlines())} lines")
    return text
