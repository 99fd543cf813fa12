"""SHA-256 digests in the four spellings that Nix files use, and the digests that are never a source's."""

from __future__ import annotations

import base64
import binascii
import re

from patchforge.errors import CheckFailed, PatchforgeError

_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"  #: Nix's own alphabet, without e, o, t and u
_SIZE = 32
_SPELLINGS = "sha256-<base64>, sha256:<hex or Nix base32>, 64 hex digits, or 52 digits of Nix base32"

#: Digests that a tool prints when it saw nothing, an error page, or was told to pretend (facts: nix-and-bots, 3.4).
_NONSENSE = {
    "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=": "lib.fakeHash, a place-holder",
    "sha256-//////////////////////////////////////////8=": "a place-holder of ones",
    "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=": "the hash of no bytes at all",
    "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo=": "the hash of an empty folder",
    "sha256-d6xi4mKdjkX2JFicDIv5niSzpyI0m/Hnm8GGAIU04kY=": "the hash of an empty file",
    "sha256-NOALhZKmrUZYUaRqZ0ZOB2EC/VEGymyzOi8VAJ0w1ZA=": "the hash of an empty program",
    "sha256-bvGbQSJcU2nxwQTUXY2F76mwV7U7FLS5uTnddN7MUyE=": "git's empty tree",
    "sha256-1VWM1BnI1GvclYBky5f5Y9HqeThmQUwCWQbsFQM1Eu0=": "the hash of the page '404: Not Found'",
}


def sri(digest: bytes) -> str:
    """``sha256-<base64>`` of 32 bytes. CheckFailed for a digest that is never a source's."""
    text = "sha256-" + base64.b64encode(digest).decode()
    if text in _NONSENSE:
        raise CheckFailed(
            f"{text} cannot be the hash of a source",
            expected="the hash of files with content",
            found=_NONSENSE[text],
            do="find out why the source was empty or was never read; nothing is pinned to this hash",
        )
    return text


def trusted(text: str) -> str:
    """A hash in any of the four spellings, as SRI. PatchforgeError when malformed, CheckFailed when it is nonsense."""
    digest = _digest(text.strip())
    if digest is None or len(digest) != _SIZE:
        raise PatchforgeError(
            f"{text!r} is not a SHA-256 hash",
            expected=_SPELLINGS,
            found=f"{len(text)} characters",
            do="copy the whole of it",
        )
    return sri(digest)


def _digest(text: str) -> bytes | None:
    if text.startswith("sha256-"):
        return _base64(text.removeprefix("sha256-"))
    bare = text.removeprefix("sha256:")
    if re.fullmatch("[0-9a-fA-F]{64}", bare):
        return bytes.fromhex(bare)
    return _base32(bare) if re.fullmatch(f"[{_BASE32}]{{52}}", bare) else None


def _base64(text: str) -> bytes | None:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return digest if base64.b64encode(digest).decode() == text else None


def _base32(text: str) -> bytes | None:
    """Nix's base 32: the last character holds the lowest five bits, and bytes are little-endian."""
    number = 0
    for character in text:
        number = number << 5 | _BASE32.index(character)
    return number.to_bytes(_SIZE, "little") if number < 1 << 8 * _SIZE else None
