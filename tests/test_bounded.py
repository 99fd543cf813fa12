"""Nothing is read without a bound: the readers, and a look for reads that do not go through them."""

from __future__ import annotations

import ast
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import bounded
from patchforge.errors import Damaged
from patchforge.trial.server import log
from patchforge.trial.server.log import ServerLog
from tests.support import ROOT

#: Reads that need no bound: file, function, and whose bytes they are.
ALLOWED = {
    ("arbiter/proxy.py", ""): "bounded by the server's client_max_size",
    ("atomic.py", "_same"): "ours, of the size that was written",
    ("atomic.py", "_holds"): "ours, of the size that was written",
    ("bot/token.py", "seen_by_children"): "the system's, which bounds an environment",
    ("engine/cache.py", "get"): "the cache's, which only this user can write to",
    ("git/objects.py", "_end"): "of a git that has said all",
    ("git/objects.py", "piped"): "of a git that was killed",
    ("nix/generate.py", "_templates"): "patchforge's own",
    ("patches.py", "_files"): "a folder of ours, made of bytes that were read",
    ("pins/wheels.py", "readinto"): "bounded by the answer's limits",
    ("pipeline.py", "runtime_changes"): "patchforge's own",
    ("processes.py", "text"): "what was read up to a bound",
    ("proof/packs/helpers.py", "helpers"): "patchforge's own",
    ("resources.py", "_unpack"): "patchforge's own",
    ("resources.py", "sources"): "patchforge's own",
    ("trial/comparison/gpu_probe.py", "__call__"): "our own; a process of its own",
    ("trial/comparison/gpu_probe.py", "set_up"): "a file that was read before; a process of its own",
    ("trial/pack_runner.py", "_models"): "patchforge's own",
    ("trial/runner.py", "_own_digest"): "patchforge's own",
    ("trial/server/devices.py", "emulator_digest"): "patchforge's own",
    ("trial/server/pack/observer.py", "busy"): "the system's; a process of its own",
    ("trial/server/supervisor.py", "__init__"): "a line of our own script",
    ("trial/server/supervisor.py", "_children"): "the system's",
    ("web.py", "whole"): "bounded by the answer's limits",
}
_WHOLE = frozenset(["read_bytes", "read_text", "readlines", "communicate", "extractall", "getmembers", "copyfileobj"])
_UNPACKING = frozenset(["zlib", "gzip", "bz2", "lzma"])
_OUTPUTS = frozenset(["stdout", "stderr"])


def unbounded(node: ast.AST) -> bool:
    """Whether a node reads as much as there is."""
    if isinstance(node, ast.For | ast.comprehension):
        return any(isinstance(part, ast.Attribute) and part.attr in _OUTPUTS for part in _parts(node.iter))
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if node.func.attr in {"read", "readline"}:
        return not node.args and not node.keywords
    if node.func.attr in {"load", "decompress"}:
        return owner in _UNPACKING | {"json", "tomllib"} and not (len(node.args) > 1)
    if owner == "documents":
        return False
    captures = any(keyword.arg == "capture_output" for keyword in node.keywords)
    return node.func.attr in _WHOLE or (captures and owner != "processes")


def _parts(node: ast.expr) -> list[ast.expr]:
    return node.values if isinstance(node, ast.BoolOp) else [node]


def reads(tree: ast.AST, function: str = "") -> Iterator[str]:
    """The function of each read without a bound."""
    for child in ast.iter_child_nodes(tree):
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        if unbounded(child):
            yield inside
        yield from reads(child, inside)


def test_nothing_is_read_without_a_bound() -> None:
    calls: set[tuple[str, str]] = set()
    for path in sorted((ROOT / "patchforge").rglob("*.py")):
        name = path.relative_to(ROOT / "patchforge").as_posix()
        calls |= {(name, function) for function in reads(ast.parse(path.read_bytes()))}
    assert calls - ALLOWED.keys() == set()
    assert ALLOWED.keys() - calls == set()


@pytest.mark.parametrize(
    "code",
    [
        "path.read_bytes()",
        "path.read_text('utf-8')",
        "stream.read()",
        "stream.readline()",
        "json.load(stream)",
        "zlib.decompress(data)",
        "process.communicate()",
        "subprocess.run(command, capture_output=True)",
        "for line in process.stdout or (): print(line)",
        "any(line for line in process.stderr)",
    ],
)
def test_such_reads_are_seen(code: str) -> None:
    assert list(reads(ast.parse(code)))


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert bounded.file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(Damaged, match="too large"):
        bounded.file(tmp_path / "file", 4)
    assert bounded.head(tmp_path / "file", 3) == "123"
    with pytest.raises(IsADirectoryError):
        bounded.file(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(Damaged, match="not a file"):
            bounded.file(path)
        assert bounded.head(path) == ""
    assert bounded.head(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("most", "since", "expected"),
    [(99, 0, "one\ntwo\nthree\n"), (99, 4, "two\nthree\n"), (9, 0, "three\n"), (3, 0, ""), (99, 99, "")],
)
def test_the_end_of_a_file(most: int, since: int, expected: str, tmp_path: Path) -> None:
    """Where it is cut, half a line is left out: half of a secret would not be masked."""
    (tmp_path / "file").write_bytes(b"one\ntwo\nthree\n")
    assert bounded.tail(tmp_path / "file", most, since) == expected


def test_a_pipe() -> None:
    assert bounded.whole(io.BytesIO(b"12345"), "it", 5) == b"12345"
    with pytest.raises(Damaged, match="it printed too much"):
        bounded.whole(io.BytesIO(b"12345"), "it", 4)


def test_a_line_without_an_end_comes_in_pieces() -> None:
    assert list(bounded.lines(io.StringIO("ab\nabcdef\n"), 4)) == ["ab\n", "abcd", "ef\n"]
    assert list(bounded.lines(io.BytesIO(b"abcde"), 4)) == [b"abcd", b"e"]


def test_a_log_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST", 100)
    printed = ServerLog(tmp_path / "log")
    assert (printed.end(), printed.lines()) == (0, ())
    printed.path.write_text("begin\n" + "\x1b[31mline\x1b[0m\n" * 1000)
    assert printed.lines() == ("line",) * 7
    begin = printed.end()
    with printed.path.open("a") as file:
        file.write("later\r\rlast\n")
    assert printed.lines(begin) == ("later", "last")
