"""The token for GitHub: where it comes from, and that it goes nowhere else."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

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
        """``text`` without the token in any of the spellings it is sent in."""
        if self.text:
            for secret in (self.basic.removeprefix("basic "), quote(self.text, safe=""), self.text):
                text = text.replace(secret, "***")
        return text


def find_token(file: str | None = None) -> Token:
    """From ``file``, GH_TOKEN, GITHUB_TOKEN or systemd's credentials folder; an empty token when there is none."""
    if file:
        return Token(_read(Path(file)))
    for name in _VARIABLES:
        if text := os.environ.get(name, "").strip():
            return Token(text)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / _CREDENTIAL if folder else None
    return Token(_read(path)) if path and path.is_file() else Token()


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchforgeError(f"the token file {path} cannot be read", found=type(error).__name__) from None
    if not text or "\n" in text:
        raise PatchforgeError(f"{path} holds no token", expected="one line", found=f"{len(text.splitlines())} lines")
    return text
