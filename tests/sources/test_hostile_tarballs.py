"""Tarballs that were made to do harm: the right tree comes of them or one sentence, soon, and nothing is written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from patchforge.cli import main
from patchforge.errors import Damaged, Exit, PatchforgeError
from patchforge.hashes import of_tarball
from patchforge.sources import TarTree, tarball
from tests.support import ROOT

SECONDS = 10
GOOD = {"main.py": b"x = 1\n", "comfy/a.py": b"y = 2\n"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def header(
    name: bytes | str, size: int | bytes = 0, kind: bytes = b"0", *, link: bytes = b"", magic: bytes = b"ustar\x0000"
) -> bytes:
    """A raw header; ``size`` as bytes is taken as it is."""
    name = name.encode() if isinstance(name, str) else name
    digits = b"%011o\0" % size if isinstance(size, int) else size
    block = name[:100].ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + digits.ljust(12, b"\0") + b"0" * 11 + b"\0"
    block += b" " * 8 + kind + link[:100].ljust(100, b"\0") + magic
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def entry(name: bytes | str, data: bytes = b"", kind: bytes = b"0", link: bytes = b"") -> bytes:
    return header(name, len(data), kind, link=link) + padded(data)


def pax(kind: bytes = b"x", **records: bytes | str) -> bytes:
    """An extended header; of keys ``__`` stands for a dot."""
    data = b""
    for key, value in records.items():
        text = (
            b" "
            + key.replace("__", ".").encode()
            + b"="
            + (value.encode() if isinstance(value, str) else value)
            + b"\n"
        )
        size = len(text) + 1
        while len(str(size)) + len(text) != size:
            size += 1
        data += str(size).encode() + text
    return entry("pax_header", data, kind)


def long_name(name: bytes) -> bytes:
    return entry("././@LongLink", name + b"\0", b"L")


END = bytes(1024)
PLAIN = b"".join(entry(f"top/{path}", data) for path, data in GOOD.items())


def beside(odd: bytes) -> bytes:
    """A whole tarball with something odd between two good files."""
    first, second = (entry(f"top/{path}", data) for path, data in GOOD.items())
    return first + odd + second + END


def many(count: int) -> bytes:
    return b"".join(entry(f"top/{number}.py") for number in range(count))


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("top/main.py", b"x = 1\n")
    return out.getvalue()


def nested() -> bytes:
    return beside(entry("top/inner.tar.gz", gzip.compress(PLAIN + END)))


#: Names that no tree has: the entry is set aside, and the rest is the tree.
ODD_NAMES: dict[str, bytes] = {
    "newline": b"top/a\nb.py",
    "carriage return": b"top/a\rb.py",
    "escape": b"top/\x1b[31mred.py",
    "bell": b"top/\x07.py",
    "delete": b"top/\x7f.py",
    "C1": "top/\x9b31m.py".encode(),
    "line separator": "top/\u2028::error::x.py".encode(),
    "workflow command": b"top/\n::error::x.py",
    "tab": b"top/a\tb.py",
    "backslash": b"top/a\\b.py",
    "git": b"top/.git/config",
    "git, capitals": b"top/.GIT/hooks/post-checkout",
    "git, below": b"top/comfy/.git/config",
    "git, a file": b"top/.git",
    "latin-1": b"top/\xe9.py",
    "half a character": b"top/\xf0\x9f\x90.py",
    "a surrogate": b"top/\xed\xa0\x80.py",
}
#: The same for what GNU and pax write of names that do not fit.
ODD_HEADERS: dict[str, bytes] = {
    "pax, newline": pax(path="top/a\nb.py") + entry("top/x.py", b"z"),
    "pax, not UTF-8": pax(path=b"top/\xff.py") + entry("top/x.py", b"z"),
    "pax, a long component": pax(path="top/" + "n" * 300) + entry("top/x.py", b"z"),
    "pax, a long path": pax(path="top/" + "/".join(["n" * 200] * 21)) + entry("top/x.py", b"z"),
    "pax, 10⁴ folders deep": pax(path="top/" + "d/" * 10_000 + "x.py") + entry("top/x.py", b"z"),
    "GNU, a long component": long_name(b"top/" + b"n" * 300) + entry("top/x.py", b"z"),
    "GNU, 10⁴ folders deep": long_name(b"top/" + b"d/" * 10_000 + b"x.py") + entry("top/x.py", b"z"),
    "a soft link outside": entry("top/link", kind=b"2", link=b"/etc/passwd"),
    "a soft link up": entry("top/link", kind=b"2", link=b"../../../etc/passwd"),
    "a soft link to itself": entry("top/link", kind=b"2", link=b"link"),
    "a hard link outside": entry("top/link", kind=b"1", link=b"/etc/passwd"),
    "a hard link inside": entry("top/link", kind=b"1", link=b"top/main.py"),
    "a hard link with content": header("top/link", 0, b"1", link=b"top/main.py"),
    "a character device": entry("top/null", kind=b"3"),
    "a block device": entry("top/disk", kind=b"4"),
    "a FIFO": entry("top/pipe", kind=b"6"),
    "pax link path outside": pax(linkpath="/etc/" + "x" * 200) + entry("top/link", kind=b"2"),
}
#: The tree is there as it should be.
HARMLESS: dict[str, bytes] = {
    "a folder": beside(entry("top/empty/", kind=b"5")),
    "a folder .git": beside(entry("top/.git/", kind=b"5")),
    "an unknown pax key": pax(b"g", evil="\x1b[2J") + PLAIN + END,
    "a pax name": beside(pax(mtime="1e309", uname="\n::error::", gid="-1")),
    "old GNU format": b"".join(
        header(f"top/{path}", len(data), magic=b"ustar  \0") + padded(data) for path, data in GOOD.items()
    )
    + END,
    "padding of 1 MB": PLAIN + bytes(1 << 20),
    "two global headers": pax(b"g", comment="a") + pax(b"g", comment="b") + PLAIN + END,
    "a pax comment that is not a commit": pax(b"g", comment="\n::error::" + COMMIT) + PLAIN + END,
    "a pax comment in capitals": pax(b"g", comment=COMMIT.upper()) + PLAIN + END,
    "a pax comment too long": pax(b"g", comment=COMMIT + "0") + PLAIN + END,
    "a pax comment with a line end": pax(b"g", comment=COMMIT + "\n") + PLAIN + END,
    "concatenated gzip": gzip.compress(PLAIN) + gzip.compress(END),
    "gzip of nothing in between": gzip.compress(PLAIN) + gzip.compress(b"") + gzip.compress(END),
    "gzip, padded with zeros": gzip.compress(PLAIN + END) + bytes(1000),
    "bzip2": bz2.compress(PLAIN + END),
    "xz": lzma.compress(PLAIN + END),
    "xz in two streams": lzma.compress(PLAIN) + lzma.compress(END),
}
#: Python's versions differ in what they make of these; it is the right tree or a sentence.
EITHER: dict[str, Callable[[], bytes]] = {
    "pax, a record's length that lies": lambda: (
        PLAIN + entry("p", b"99 path=x\n", b"x") + entry("top/z.py", b"x") + END
    ),
    "pax, a record of no length": lambda: PLAIN + entry("p", b"0 path=x\n", b"x") + entry("top/z.py", b"x") + END,
    "pax, not a record": lambda: PLAIN + entry("p", b"\xff\xfe\n\n", b"x") + entry("top/z.py", b"x") + END,
}
ZEROS = 160 << 20
#: One sentence, status 65.
REFUSED: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x1f",
    "gzip's first bytes": lambda: b"\x1f\x8b",
    "text": lambda: b"not a tarball\n" * 100,
    "UTF-16": lambda: "not a tarball".encode("utf-16"),
    "a page": lambda: b"<!DOCTYPE html><title>404</title>" * 50,
    "noise": lambda: bytes(range(1, 256)) * 40,
    "a ZIP": zipped,
    "an encrypted ZIP": lambda: b"PK\x03\x04\x14\0\x01\0" + bytes(600),
    "a 7z": lambda: b"7z\xbc\xaf\x27\x1c" + bytes(600),
    "a RAR": lambda: b"Rar!\x1a\x07\x01\0" + bytes(600),
    "zstd": lambda: b"\x28\xb5\x2f\xfd" + bytes(600),
    "gzip of text": lambda: gzip.compress(b"text" * 500),
    "gzip of gzip": lambda: gzip.compress(gzip.compress(PLAIN + END)),
    "gzip of nothing": lambda: gzip.compress(b""),
    "absolute": lambda: beside(entry("/etc/passwd", b"x")),
    "absolute, twice": lambda: beside(entry("//etc/passwd", b"x")),
    "up": lambda: beside(entry("../x.py", b"x")),
    "up from inside": lambda: beside(entry("top/../../x.py", b"x")),
    "up at the end": lambda: beside(entry("top/..", b"x")),
    "up, a folder": lambda: beside(entry("top/../../x/", kind=b"5")),
    "up, a link": lambda: beside(entry("../link", kind=b"2", link=b"x")),
    "up with backslashes": lambda: beside(entry("top\\..\\..\\x", b"x")),
    "a drive": lambda: beside(entry("C:\\x.py", b"x")),
    "a drive with slashes": lambda: beside(entry("C:/x.py", b"x")),
    "a share": lambda: beside(entry("\\\\host\\share\\x.py", b"x")),
    "pax, absolute": lambda: beside(pax(path="/etc/passwd") + entry("top/x.py", b"x")),
    "pax, up": lambda: beside(pax(path="top/../../x") + entry("top/x.py", b"x")),
    "pax for all, up": lambda: pax(b"g", path="../x") + PLAIN + END,
    "GNU, up": lambda: beside(long_name(b"../" + b"x" * 120) + entry("top/x.py", b"x")),
    "a file twice": lambda: beside(entry("top/main.py", b"evil")),
    "a file twice, another way": lambda: beside(entry("./top//main.py", b"evil")),
    "a file and a folder": lambda: beside(entry("top/main.py/", kind=b"5")),
    "a file and a file below it": lambda: beside(entry("top/main.py/x.py", b"x")),
    "a folder and a file": lambda: beside(entry("top/comfy", b"x")),
    "a link and a file below it": lambda: beside(entry("top/d", kind=b"2", link=b"/tmp") + entry("top/d/x.py", b"x")),
    "a link in place of a folder": lambda: beside(entry("top/comfy", kind=b"2", link=b"/etc")),
    "a pipe and a file below it": lambda: beside(entry("top/p", kind=b"6") + entry("top/p/x.py", b"x")),
    "capitals": lambda: beside(entry("top/MAIN.py", b"evil")),
    "capitals in a folder": lambda: beside(entry("top/Comfy/A.py", b"evil")),
    "capitals beyond ASCII": lambda: beside(entry("top/stra\u00dfe.py", b"1") + entry("top/STRASSE.py", b"2")),
    "composed and not": lambda: beside(entry("top/\u00e9.py", b"1") + entry("top/e\u0301.py", b"2")),
    "what HFS+ does not see": lambda: beside(entry("top/ma\u200cin.py", b"evil")),
    "a contiguous file in place of another": lambda: beside(entry("top/main.py", b"evil", b"7")),
    "a size that lies, too large": lambda: PLAIN + header("top/z.py", 4096) + b"short",
    "a size that lies, beyond the end": lambda: PLAIN + header("top/z.py", 1 << 20) + padded(b"x") + END,
    "a size that lies, too small": lambda: PLAIN + header("top/z.py", 3) + bytes([1]) * 1024 + END,
    "a huge size": lambda: PLAIN + header("top/z.py", (1 << 33) - 1) + END,
    "a size in base 256": lambda: PLAIN + header("top/z.py", b"\x80" + b"\0" * 4 + b"\x7f" + b"\xff" * 6) + END,
    "a negative size": lambda: PLAIN + header("top/z.py", b"\xff" * 12) + END,
    "a negative size of -512": lambda: PLAIN + header("top/z.py", b"\xff" * 10 + b"\xfe\0") + END,
    "a size that is not a number": lambda: PLAIN + header("top/z.py", b"99999999999") + END,
    "pax, a negative size": lambda: PLAIN + pax(size="-512") + entry("top/z.py", b"x") + END,
    "pax, a huge size": lambda: PLAIN + pax(size="9" * 18) + entry("top/z.py", b"x") + END,
    "pax, a size of 5000 digits": lambda: PLAIN + pax(size="9" * 5000) + entry("top/z.py", b"x" * 600) + END,
    "pax, a size that is not a number": lambda: PLAIN + pax(size="many") + entry("top/z.py", b"x" * 600) + END,
    "pax of 100 MB": lambda: PLAIN + header("p", 100 << 20, b"x") + bytes(1 << 20),
    "pax, 10⁵ spaces": lambda: PLAIN + entry("p", b"9" * 100_000, b"x") + entry("top/z.py", b"x") + END,
    "a header of a header": lambda: PLAIN + pax(path="top/z.py") * 5000 + entry("top/z.py", b"x") + END,
    "a long name of a long name": lambda: PLAIN + long_name(b"x" * 200) * 5000 + entry("top/z.py", b"x") + END,
    "a long name of 1 GB": lambda: PLAIN + header("././@LongLink", 1 << 30, b"L") + bytes(1 << 20),
    "pax and no file": lambda: PLAIN + pax(path="top/z.py") + END,
    "sparse, GNU": lambda: PLAIN + header("top/z.py", 512, b"S", magic=b"ustar  \0") + bytes(512) + END,
    "sparse 0.0": lambda: (
        PLAIN + pax(GNU__sparse__size="9999999", GNU__sparse__offset="1") + entry("top/z", b"x") + END
    ),
    "sparse 0.1": lambda: PLAIN + pax(GNU__sparse__map="0,1", GNU__sparse__size="1") + entry("top/z.py", b"x") + END,
    "sparse 1.0": lambda: (
        PLAIN
        + pax(GNU__sparse__major="1", GNU__sparse__minor="0")
        + entry("top/z", b"999999999\n" + b"0\n" * 9999)
        + END
    ),
    "cut in the first header": lambda: PLAIN[:300],
    "cut in a file": lambda: PLAIN[:515],
    "cut between entries": lambda: PLAIN,
    "cut before the first entry's end": lambda: PLAIN[:1024],
    "a wrong checksum in the second header": lambda: PLAIN[:1024] + b"X" + PLAIN[1025:] + END,
    "something after the end": lambda: PLAIN + END + entry("top/hidden.py", b"evil") + END,
    "two tarballs in one": lambda: (PLAIN + END) * 2,
    "concatenated gzip, each a tarball": lambda: gzip.compress(PLAIN + END) * 2,
    "gzip, cut": lambda: gzip.compress(PLAIN + END)[:-9],
    "gzip, cut in its checksum": lambda: gzip.compress(PLAIN + END)[:-3],
    "gzip, a wrong checksum": lambda: gzip.compress(PLAIN + END)[:-8] + b"\0\0\0\0" + gzip.compress(PLAIN + END)[-4:],
    "gzip, a wrong length": lambda: gzip.compress(PLAIN + END)[:-4] + b"\1\0\0\0",
    "gzip, followed by text": lambda: gzip.compress(PLAIN + END) + b"text",
    "gzip, a damaged middle": lambda: (data := gzip.compress(PLAIN + END))[:60] + b"\xff" * 9 + data[69:],
    "bzip2, cut": lambda: bz2.compress(PLAIN + END)[:-9],
    "bzip2, damaged": lambda: (data := bz2.compress(PLAIN + END))[:40] + b"\xff" * 9 + data[49:],
    "xz, cut": lambda: lzma.compress(PLAIN + END)[:-9],
    "xz, damaged": lambda: (data := lzma.compress(PLAIN + END))[:40] + b"\xff" * 9 + data[49:],
    "xz, a dictionary of 1.5 GB": lambda: lzma.compress(
        PLAIN + END, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 << 20}]
    ),
    "too many files": lambda: gzip.compress(many(20_001) + END, 1),
}
BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(header("top/z", ZEROS) + bytes(ZEROS) + END, 1),
    "gzip, of what is set aside": lambda: gzip.compress(header("top/\n", ZEROS) + bytes(ZEROS) + END, 1),
    "gzip, after the end": lambda: gzip.compress(PLAIN + END + bytes(ZEROS), 1),
    "bzip2": lambda: bz2.compress(header("top/z", ZEROS) + bytes(ZEROS) + END, 1),
    "xz": lambda: lzma.compress(header("top/z", ZEROS) + bytes(ZEROS) + END, preset=0),
}


def tree_of(path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files and what was set aside."""
    tree = TarTree(path)
    return {name: tree.read(name) for name in tree.entries()}, {
        skipped.path: skipped.reason for skipped in tree.skipped
    }


def lying(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "given" / "release.tar.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def hashed(path: Path) -> None:
    """The hash is another reader; it ends in a hash or in a sentence as well."""
    with path.open("rb") as stream, suppress(Damaged):
        of_tarball(stream, str(path))


def test_the_table_is_long_enough() -> None:
    assert len(ODD_NAMES) + len(ODD_HEADERS) + len(HARMLESS) + len(REFUSED) + len(BOMBS) >= 100


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_set_aside(tmp_path: Path, name: str) -> None:
    path = lying(tmp_path, beside(entry(ODD_NAMES[name], b"z")))
    files, skipped = tree_of(path)
    assert files == GOOD
    ((shown, reason),) = skipped.items()
    assert shown.isprintable()
    assert reason
    hashed(path)


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_odd_entries_are_set_aside(tmp_path: Path, name: str) -> None:
    path = lying(tmp_path, beside(ODD_HEADERS[name]))
    files, skipped = tree_of(path)
    assert files == GOOD
    assert len(skipped) == 1
    hashed(path)


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_ones_give_the_right_tree(tmp_path: Path, name: str) -> None:
    path = lying(tmp_path, HARMLESS[name])
    assert tree_of(path) == (GOOD, {})
    assert TarTree(path).commit == ""
    hashed(path)


def test_the_commit_is_taken_from_git_archive_alone(tmp_path: Path) -> None:
    assert TarTree(lying(tmp_path, pax(b"g", comment=COMMIT) + PLAIN + END)).commit == COMMIT


@pytest.mark.parametrize("name", REFUSED)
def test_damage_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = lying(tmp_path, REFUSED[name]())
    begun = time.monotonic()
    with pytest.raises(PatchforgeError) as caught:
        TarTree(path).entries()
    hashed(path)
    assert caught.value.status is Exit.DATA
    assert caught.value.found
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("name", EITHER)
def test_a_right_tree_or_one_sentence(tmp_path: Path, name: str) -> None:
    path = lying(tmp_path, EITHER[name]())
    hashed(path)
    with suppress(Damaged):
        files, skipped = tree_of(path)
        assert GOOD.items() <= files.items()
        assert len(files) + len(skipped) == len(GOOD) + 1


_BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from contextlib import suppress
from pathlib import Path
from patchforge.errors import PatchforgeError
from patchforge.sources import TarTree
from patchforge.hashes import of_tarball
path = Path(sys.argv[1])
try:
    TarTree(path).entries()
    print("taken")
except PatchforgeError as error:
    print(int(error.status))
try:
    with path.open("rb") as stream:
        of_tarball(stream, "it")
    print("taken")
except PatchforgeError as error:
    print(int(error.status))
"""


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_soon_and_in_little_memory(tmp_path: Path, name: str) -> None:
    path = lying(tmp_path, BOMBS[name]())
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _BOUNDED, str(path)], capture_output=True, text=True, cwd=ROOT, env=_env(), check=True
    )
    assert done.stdout.split() == ["65", "65"]
    assert time.monotonic() - begun < 2 * SECONDS


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_what_lies_in_a_release_stays_packed(tmp_path: Path) -> None:
    files, skipped = tree_of(lying(tmp_path, nested()))
    assert files.keys() == {*GOOD, "inner.tar.gz"}
    assert not skipped


def test_several_top_folders_stay(tmp_path: Path) -> None:
    files, _ = tree_of(lying(tmp_path, entry("a/x.py", b"1") + entry("b/y.py", b"2") + END))
    assert files == {"a/x.py": b"1", "b/y.py": b"2"}


def test_an_odd_entry_does_not_keep_the_top_folder_on(tmp_path: Path) -> None:
    files, _ = tree_of(lying(tmp_path, beside(entry(b"oth\ner/x.py", b"z"))))
    assert files == GOOD


def test_an_empty_archive_is_no_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lying(tmp_path, END)
    assert tree_of(path) == ({}, {})
    assert main(["apply", "--from", str(path), "--out", str(tmp_path / "out")]) == Exit.USAGE
    assert "not recognised" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "below a file", "loop", "link to a pipe", "secret"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it.tar.gz"
    made: dict[str, Callable[[], Any]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "below a file": (tmp_path / "file").touch,
        "loop": lambda: path.symlink_to(path),
        "link to a pipe": lambda: path.symlink_to(tmp_path / "p"),
        "secret": lambda: os.close(os.open(path, os.O_CREAT, 0)),
    }
    os.mkfifo(tmp_path / "p")
    made[kind]()
    if kind == "below a file":
        path = tmp_path / "file" / "it.tar.gz"
    if kind == "secret" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    with pytest.raises((PatchforgeError, OSError)):
        TarTree(path).entries()


COMMANDED = ["empty", "absolute", "a file twice", "capitals", "gzip, cut", "xz, damaged"]


@pytest.mark.parametrize("name", COMMANDED)
@pytest.mark.parametrize("way", ["--out", "--to"])
def test_the_command_says_one_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, way: str
) -> None:
    path = lying(tmp_path, REFUSED[name]())
    before = sorted(tmp_path.rglob("*"))
    assert main(["apply", "--from", str(path), way, str(tmp_path / "out")]) == Exit.DATA
    said = capsys.readouterr()
    assert said.err.startswith("patchforge: ")
    assert "Traceback" not in said.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["NUL", "a line of 4 MB", "10⁵ lines", "deep", "no UTF-8", "CRLF and CR"])
def test_odd_python_files_are_only_bytes(tmp_path: Path, name: str) -> None:
    data = {
        "NUL": b"x = 1\0\n",
        "a line of 4 MB": b"x = '" + b"a" * (4 << 20) + b"'\n",
        "10⁵ lines": b"x = torch.cuda\n" * 100_000,
        "deep": b"x = " + b"(" * 10_000 + b"1" + b")" * 10_000 + b"\n",
        "no UTF-8": b"# \xff\n",
        "CRLF and CR": b"a = 1\r\nb = 2\rc = 3\n",
    }[name]
    path = lying(tmp_path, beside(entry("top/comfy/odd.py", data)))
    assert tree_of(path)[0]["comfy/odd.py"] == data


def test_members_do_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    bytes_of = tarball._bytes_of

    def counted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        kept.append(len(archive.members))  # type: ignore[attr-defined]
        return bytes_of(archive, member)

    monkeypatch.setattr(tarball, "_bytes_of", counted)
    TarTree(lying(tmp_path, many(500) + END)).entries()
    assert len(kept) == 500
    assert max(kept) < 5
