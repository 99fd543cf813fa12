"""Spellings of a digest, and digests that are never a source's (facts: pitfalls 2 and 13)."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import hash_entries, sri, trusted
from patchforge.hashes.nar import NarFile, NarFolder, folder_items

SRI = "sha256-oyV0PeYfRoKjJ6s1NNhIKRpIFPbX58Q6IX1LgjSwxks="


def to_base32(digest: bytes) -> str:
    """The other direction, bit by bit as Nix's manual describes it."""
    digits = "0123456789abcdfghijklmnpqrsvwxyz"
    number = int.from_bytes(digest, "little")
    return "".join(digits[number >> 5 * place & 31] for place in reversed(range(52)))


@given(st.binary(min_size=32, max_size=32).filter(lambda digest: len(set(digest)) > 1))
def test_every_spelling_is_read(digest: bytes) -> None:
    text = sri(digest)
    for spelling in (text, digest.hex(), digest.hex().upper(), "sha256:" + digest.hex(), to_base32(digest)):
        assert trusted(spelling) == text
    assert trusted("sha256:" + to_base32(digest)) == text


@pytest.mark.skipif(not shutil.which("nix"), reason="nix is not installed: nothing to compare with")
def test_base32_is_that_of_nix() -> None:
    digest = hashlib.sha256(b"some").hexdigest()
    command = ["nix", "--extra-experimental-features", "nix-command", "hash", "to-base32", "--type", "sha256", digest]
    theirs = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert theirs == to_base32(bytes.fromhex(digest))
    assert trusted(theirs) == sri(bytes.fromhex(digest))


@pytest.mark.parametrize(
    "nonsense",
    [
        "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "0" * 64,
        "0" * 52,
        "sha256:" + "0" * 52,
        "f" * 64,
        hashlib.sha256(b"").hexdigest(),
        hashlib.sha256(b"tree 0\0").hexdigest(),
        hashlib.sha256(b"404: Not Found").hexdigest(),
        "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo=",
    ],
)
def test_nonsense_is_refused(nonsense: str) -> None:
    with pytest.raises(CheckFailed, match="cannot be the hash of a source"):
        trusted(nonsense)


@pytest.mark.parametrize("executable", [False, True])
def test_an_empty_file_or_folder_is_no_source(tmp_path: Path, *, executable: bool) -> None:
    with pytest.raises(CheckFailed, match="empty folder"):
        hash_entries([])
    with pytest.raises(CheckFailed, match="empty folder"):
        hash_entries([(b"", NarFolder())])
    with pytest.raises(CheckFailed, match="empty folder"):
        hash_entries(folder_items(tmp_path))
    with pytest.raises(CheckFailed, match=r"empty (file|program)"):
        hash_entries([(b"", NarFile(0, tuple, executable))])


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "sha256-",
        "sha256-abc",
        SRI.removesuffix("="),
        SRI[:-2] + "t=",  # bits beyond the digest
        SRI.replace("sha256-", "sha512-"),
        "e" * 52,
        "z" * 52,  # more than 256 bits
        "12" * 31,
        "sha256-" + "A" * 88,
    ],
)
def test_malformed_is_refused(malformed: str) -> None:
    with pytest.raises(PatchforgeError, match="is not a SHA-256 hash"):
        trusted(malformed)
