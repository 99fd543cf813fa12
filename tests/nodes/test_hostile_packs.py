# ruff: noqa: E501 - hostile files are shown as they are
"""Packs that want to do harm: to take time, to run their own code, to stop the rest of a pack, to write where they may not."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from patchforge import effort
from patchforge.commands.packs import apply as nodes
from patchforge.engine.files import look_at
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.nodes import pack as pack_module
from patchforge.nodes.convert import Converted, convert
from patchforge.nodes.manifest import PackReport
from patchforge.nodes.pack import Pack, PackProblem, read_pack
from patchforge.nodes.patched import PatchedPack
from patchforge.nodes.report import markdown, sarif, summary
from patchforge.nodes.requirements import Need, needs
from patchforge.pattern import Options
from patchforge.proof.packs.equivalence import NotProved
from patchforge.proof.packs.pairing import prove
from patchforge.rules import transforms
from patchforge.vocabulary import DecidedSite, Decision
from tests.nodes.hostile import BOMBS, ESCAPES, SOURCES, START

SLOWEST = 10  #: seconds of work for one file
GOOD = "import torch\nNODE_CLASS_MAPPINGS = {}\n\ndef move(x):\n    return x.cuda()\n"


@contextmanager
def soon() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SLOWEST


def packed(files: dict[str, str | bytes]) -> Pack:
    data = {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
    return Pack("hostile", Path("hostile"), dict(sorted(data.items())))


def beside_good(source: str | bytes) -> Converted:
    """A hostile file beside a good one, converted; the good one always is."""
    with soon():
        done = convert(packed({"__init__.py": source, "good.py": GOOD}), Options())
        _ = PatchedPack(done).proved
    assert "good.py" in {change.path for change in done.changes}
    return done


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def options(**values: object) -> argparse.Namespace:
    defaults: dict[str, object] = {
        "in_place": False,
        "out": None,
        "comfy_devices": False,
        "idiom": None,
        "enable": [],
        "dry_run": False,
    }
    return argparse.Namespace(**{"action": "apply", "json": False, "figures": False, **defaults, **values})


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def no_remarks() -> Iterator[None]:
    """Python's remarks on a stranger's code reach nobody."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always", SyntaxWarning)
        warnings.simplefilter("always", DeprecationWarning)
        yield
    assert not [remark for remark in remarks if "<unknown>" in remark.filename or "<pack>" in remark.filename]


# --- time


@pytest.mark.parametrize("name", SOURCES)
def test_no_source_takes_long_or_stops_its_pack(name: str) -> None:
    done = beside_good(START + SOURCES[name])
    paths = {*(site.path for site in (*done.sites, *done.skipped)), *(problem.path for problem in done.problems)}
    assert "__init__.py" in paths, "a file that names CUDA is in the report"


@pytest.mark.parametrize("name", ["chained conditions", "elif for a device", "a long line", "many assignments"])
def test_no_release_takes_long(name: str) -> None:
    source = SOURCES.get(name, f"x = [{'torch.cuda.is_available(), ' * 5000}]\n")
    with soon():
        look_at("comfy/model_management.py", (START + source).encode(), transforms(), {})


@pytest.mark.parametrize(
    "transform",
    [
        transform
        for transform in transforms()
        if transform.id in ("visible-devices", "ipex-repair", "sam3-prefetch", "gpu-flags", "startup")
    ],
    ids=lambda transform: transform.id,
)
def test_many_places_of_a_transform_in_one_function_do_not_take_long(transform: Any) -> None:
    example = next(example for example in transform.examples if example.after)
    lines = "".join(f"    {line}\n" for line in example.before.splitlines())
    with soon():
        record = look_at(
            example.path or transform.files[0].replace("*", "x"),
            ("def f():\n" + lines * 200).encode(),
            transforms(),
            {},
        )
    assert not record.unreadable


def test_what_is_too_intricate_goes_to_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "FILE", 4000)
    done = convert(packed({"__init__.py": START + "x.cuda()\n" * 500, "good.py": GOOD}), Options())
    assert [change.path for change in done.changes] == ["good.py"]
    assert [(problem.path, "somebody must look" in problem.reason) for problem in done.problems] == [
        ("__init__.py", True)
    ]
    assert done == convert(done.pack, Options())
    calls = "".join(f"a{number} = torch.cuda.empty_cache()\n" for number in range(2000))
    record = look_at("comfy/model_management.py", (START + calls).encode(), transforms(), {})
    assert "too intricate" in record.unreadable


def test_steps_of_all_files_grow_with_their_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with effort.at_most(100):
        effort.spend(60)
        with pytest.raises(effort.TooIntricate), effort.at_most(1000):
            effort.spend(41)
        with pytest.raises(effort.TooIntricate):
            effort.spend()
    effort.spend(10**9)
    monkeypatch.setattr(effort, "_START", 1000)
    files = dict.fromkeys((f"z{number}.py" for number in range(20)), START + SOURCES["elif for CUDA"][:9000])
    done = convert(packed({**files, "good.py": GOOD}), Options())
    assert [change.path for change in done.changes] == ["good.py"]
    assert {problem.path for problem in done.problems} == set(files)


def test_thousands_of_files(tmp_path: Path) -> None:
    pack = write(
        tmp_path, {f"a{number % 100}/b{number}.py": f"from . import b{number + 1}\n" for number in range(3000)}
    )
    write(pack, {"__init__.py": GOOD})
    with soon():
        done = convert(read_pack(pack), Options())
    assert [change.path for change in done.changes] == ["__init__.py"]


@pytest.mark.parametrize(
    "files",
    [
        {f"d{n}/a.py": "import a\nfrom x.a import b\n" for n in range(3000)},
        {f"d{n}/a.py": "".join(f"from p{m}.a import b\n" for m in range(n % 50)) for n in range(2000)},
        {f"m{n}.py": f"import m{(n + 1) % 3000}\nimport m{(n * 7) % 3000}\n" for n in range(3000)},
        {f"m{n}.py": f"from m{n + 1} import *\n" for n in range(3000)},
        {"/".join(["d"] * 300) + f"/m{n}.py": "from " + "." * 400 + " import a, b, c\n" for n in range(200)},
        {"m.py": "import " + ", ".join(f"a{n}.b" for n in range(50000)) + "\n"},
        {"m.py": "from a import (b\n" * 50000},
        {"m.yaml": "target: " + "a." * 100000 + "b\n" + "target: target\n" * 20000},
        {"m.py": "__import__('" + "a." * 200000 + "')\n"},
    ],
    ids=[
        "one name",
        "many targets",
        "a graph",
        "stars",
        "deep",
        "a long import",
        "never closed",
        "yaml",
        "a long name",
    ],
)
def test_which_files_are_reached_is_found_soon(files: dict[str, str | bytes]) -> None:
    pack = packed({**files, "__init__.py": GOOD + "import m0\nimport a\nimport m\n"})
    with soon():
        assert "__init__.py" in pack.reachable


# --- what is evaluated


@pytest.mark.parametrize(
    "place",
    ["x.to({}, 'cuda')\n", "x.to('cuda', *[{}])\n", "d = 'cuda' if torch.cuda.is_available() and {} else 'cpu'\n"],
)
@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_of_a_pack_is_run(tmp_path: Path, name: str, place: str) -> None:
    made = tmp_path / "made"
    source = START + place.format(ESCAPES[name].replace("%s", str(made)))
    done = beside_good(source)
    assert not made.exists()
    for change in done.changes:
        prove(change.path, change.before or b"", change.after)
    assert not made.exists()


@pytest.mark.parametrize("name", BOMBS)
def test_no_expression_takes_long_to_prove(name: str) -> None:
    done = beside_good(f"{START}x.to({BOMBS[name]}, 'cuda')\ny.cuda()\n")
    assert {row.decision for row in done.sites if row.line == 4} <= {Decision.CONVERTED}
    assert {row.decision for row in done.sites if row.line == 3} <= {Decision.CONVERTED, Decision.PERSON}


@pytest.mark.parametrize(
    "text",
    [
        "def _patchforge_evil(a=1):\n    return a\n\n",
        "def _patchforge_device(index=None):\n    return 'cuda'\n\n",
        "@evil\ndef _patchforge_xpu() -> bool:\n    return True\n\n",
    ],
)
def test_what_only_has_the_name_of_ours_is_not_ours(text: str) -> None:
    with pytest.raises(NotProved):
        prove("a.py", b"x = 1\n", f"{text}x = 1\n".encode())


def test_what_is_not_proved_is_for_a_person_and_the_rest_of_the_file_is_converted() -> None:
    many = ", ".join(f"a{n} or b{n}" for n in range(40))
    done = beside_good(f"{START}x.to(f({many}), 'cuda')\ny.cuda()\n")
    assert [(row.line, row.decision) for row in done.sites if row.path == "__init__.py"] == [
        (3, Decision.PERSON),
        (4, Decision.CONVERTED),
    ]
    assert "not proved" in next(row.reason for row in done.sites if row.line == 3)


def test_a_difference_behind_an_error_or_too_many_operations_is_not_overlooked() -> None:
    for early in (BOMBS["a comprehension"], "'x' * 99999999999", "f(" + "a.b." * 300 + "c)", "isinstance(x, T)"):
        with pytest.raises(CheckFailed):
            prove("a.py", f"f({early}, 'cuda')\n".encode(), f"f({early}, 'xpu')\n".encode())


# --- files that cannot be read


@pytest.mark.parametrize(
    "data",
    [
        b"# coding: rot13\nx.cuda()\n",
        b"# coding: nonsense\nx.cuda()\n",
        b"# coding: utf-16\nx.cuda()\n",
        b"# coding: hex\nx.cuda()\n",
        b"# coding: zlib_codec\nx.cuda()\n",
        b"# coding: punycode\nx.cuda()\n" + b"a" * 300000,
        b"# coding: idna\nx.cuda()\n" + b"a" * 300000,
        b"# coding: undefined\nx.cuda()\n",
        b"# coding: unicode_escape\nx = '\\x41'.cuda()\n",
        b"# coding: ascii\nx = '\xc3\xa9'.cuda()\n",
        b"\xef\xbb\xbf# coding: latin-1\nx.cuda()\n",
        b"\xff\xfe" + "x.cuda()\n".encode("utf-16-le") + b"cuda",
        b"\x00\x00\xfe\xff" + b"cuda",
        b"x.cuda()\n\x00",
        b"\x00" * 1000 + b"cuda",
        b"x.cuda()\rx.cuda()\r",
        b"x.cuda(\n",
        b"x.cuda()\n\x1a",
        b"\xff\xfe\xff cuda",
        b"x = 'cuda\n",
        b"print 'cuda'\n",
        b"\x0c" * 5000 + b"if x.cuda(:",
    ],
)
def test_what_cannot_be_read_is_said(data: bytes) -> None:
    done = beside_good(data)
    assert [problem.path for problem in done.problems] == ["__init__.py"]
    assert all(problem.reason for problem in done.problems)


@pytest.mark.parametrize(
    "data",
    [
        b"# coding: latin-1\nx = '\xe9'\ny.cuda()\n",
        b"\xef\xbb\xbfx.cuda()\n",
        "# coding: cp1252\nx = '€'; y.cuda()\n".encode("cp1252"),
        b"x.cuda()\r\n",
        b"x.cuda()",
        b"# coding: shift_jis\nx = '\x83\x5c'\ny.cuda()\n",
    ],
)
def test_what_can_be_read_keeps_its_bytes(data: bytes) -> None:
    done = beside_good(data)
    assert not done.problems
    (change,) = (change for change in done.changes if change.path == "__init__.py")
    assert len(set(data.split(b"\n")) - set(change.after.split(b"\n"))) == 1


# --- names

NAMES = [
    b"new\nline.py",
    b"tab\there.py",
    b"return\rhere.py",
    b"\x1b[31mred.py",
    b"bell\x07.py",
    b"delete\x7f.py",
    b"back\\slash.py",
    b'quote".py',
    b"it's.py",
    b"\xff\xfe.py",
    b"latin-\xe9.py",
    b"half-\xed\xa0\x80.py",
    b" space before.py",
    b"space.py .py",
    b"two  spaces.py",
    b"...py",
    b"..py",
    b"-x.py",
    b"--help.py",
    b"::error::x.py",
    b"::error file=a,line=1::x.py",
    b"##[error]x.py",
    b"a|b.py",
    b"<script>alert(1)<.py",
    b"[link](http:).py",
    b"![x](y).py",
    b"`code`.py",
    b"*bold* _it_.py",
    b"@someone #1.py",
    b"&amp;.py",
    b"$(touch x).py",
    b"%2e%2e%2f.py",
    b"%s%d.py",
    b"{name}.py",
    b"a:b.py",
    b"C:.py",
    b"~.py",
    b"CON.py",
    b"aux.PY.py",
    b"colour.py;rm -rf.py",
    b"x?y=z#w.py",
    "\u202egpj.py".encode(),
    "\u200bnothing.py".encode(),
    "\u2028line.py".encode(),
    "\x85next.py".encode(),
    "\u00a0.py".encode(),
    "‥.py".encode(),
    "e\u0301.py".encode(),
    "\u00e9.py".encode(),
    "名前.py".encode(),
    "😀.py".encode(),
    b"n" * 252 + b".py",
    b"GOOD.py",
    b"git~1.py",
    b".git.py",
    b"dev null.py",
]


@pytest.mark.parametrize("folder", ["", "in/"], ids=["file", "in a folder of such a name"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:40])
def test_a_name_is_no_trouble_to_other_files(
    tmp_path: Path, name: bytes, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = write(tmp_path / "pack", {"good.py": GOOD})
    write(pack, {os.fsdecode(name) + ("/a.py" if folder else ""): GOOD})
    before = everything(tmp_path)
    status = nodes.run(options(packs=[str(pack)], out=str(tmp_path / "out")))
    said = capsys.readouterr().out
    assert set(everything(tmp_path)) - set(before) == {f"out/{name}" for name in OUTPUTS} | {"out"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    changed = [file["path"] for entry in manifest["patches"] for file in entry["files"]]
    listed = [problem["path"] for problem in manifest["problems"]]
    assert "good.py" in changed
    assert len(changed) + len(listed) == 2
    assert status == int(bool(listed))
    assert well_formed((tmp_path / "out" / "REPORT.md").read_text("utf-8"))
    assert all(character.isprintable() or character in "\n\u00a0" for character in said)
    assert not [line for line in said.splitlines() if line.lstrip().startswith(("::", "##["))]
    assert addresses_of(pack) == sorted(["good.py", *(path for path in (*changed, *listed) if path != "good.py")])


OUTPUTS = ("0001-xpu.patch", "series", "manifest.json", "REPORT.md", "SHA256SUMS")


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        os.fsencode(path.relative_to(folder)).decode("latin-1"): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def addresses_of(pack: Path) -> list[str]:
    """The files that a report for code hosts and the list of problems name, as they are read back."""
    done = convert(read_pack(pack), Options())
    document = sarif([summary(done, [])])
    places = [result["locations"][0]["physicalLocation"] for run in document["runs"] for result in run["results"]]
    for place in places:
        address = urlsplit(place["artifactLocation"]["uri"])
        assert (address.scheme, address.netloc, address.query, address.fragment) == ("", "", "", "")
        assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", address.path)
    return sorted(
        [*(unquote(place["artifactLocation"]["uri"]) for place in places), *(problem.path for problem in done.problems)]
    )


def well_formed(text: str) -> bool:
    """Whether Markdown holds no HTML and no control characters, and its tables are tables."""
    plain = re.sub(r"(`+) ?.*? ?\1", "", text)
    tables = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    heads = {len(re.findall(r"\|", line)) for line in text.splitlines() if line.startswith("|---")}
    visible = all(character.isprintable() or character in "\n\u200b\u00a0" for character in text)
    return not re.search(r"(?<!\\)<", plain) and visible and set(tables) <= heads


def test_names_that_differ_in_case_alone_are_two_files(tmp_path: Path) -> None:
    pack = write(tmp_path, {"A.py": GOOD, "a.py": GOOD, "B/x.py": GOOD, "b/x.py": GOOD})
    patched = PatchedPack(convert(read_pack(pack), Options())).checked()
    assert [change.path for change in patched.converted.changes] == ["A.py", "B/x.py", "a.py", "b/x.py"]


@pytest.mark.parametrize(
    "name",
    ["<b>pack", "a|b", "::error::x", "x\ny", "\x1b[31m", "--- a", "\u202ekcap", "p`p", "\u2028x", "'", "@@ -1 +1 @@"],
)
def test_the_name_of_a_pack_reaches_no_medium_as_it_is(tmp_path: Path, name: str) -> None:
    patched = PatchedPack(convert(read_pack(write(tmp_path / name, {"a.py": GOOD})), Options())).checked()
    files = patched.files()
    assert well_formed(files["REPORT.md"].decode())
    assert json.loads(files["manifest.json"])["pack"] == name
    head = files["0001-xpu.patch"].decode().split("diff --git")[0]
    assert all(character.isprintable() for character in head.replace("\n", ""))
    assert all(
        line.startswith(("Description: ", "Origin:", "Author:", "Forwarded:", "X-Not"))
        for line in head.split("\n")
        if line
    )


def test_paths_that_are_too_long_or_too_deep_are_left(tmp_path: Path) -> None:
    pack = write(tmp_path / "pack", {"good.py": GOOD, "/".join(["d" * 100] * 12) + "/a.py": GOOD})
    at = pack
    (pack / "deep").mkdir()
    handle = os.open(pack / "deep", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(os.open("a.py", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)
    done = convert(read_pack(at), Options())
    subprocess.run(["rm", "-rf", pack / "deep"], check=True)  # deeper than pytest's own cleaning goes
    assert [change.path for change in done.changes] == ["good.py"]
    assert len(done.problems) == 2


# --- kinds of files


def _socket(pack: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(pack)
        server.bind("odd.py")
        os.chdir(here)


def _sparse(pack: Path) -> None:
    with (pack / "odd.py").open("wb") as stream:
        stream.truncate(1 << 30)


def _loop(pack: Path) -> None:
    (pack / "odd.py").symlink_to("odd2.py")
    (pack / "odd2.py").symlink_to("odd.py")


KINDS: dict[str, Callable[[Path], object]] = {
    "a link out of it": lambda pack: (pack / "odd.py").symlink_to(pack.parent / "outside.py"),
    "a link to /etc": lambda pack: (pack / "odd").symlink_to("/etc"),
    "a link to nothing": lambda pack: (pack / "odd.py").symlink_to("nothing.py"),
    "a link to itself": lambda pack: (pack / "odd.py").symlink_to("odd.py"),
    "a loop of links": _loop,
    "a link to a device": lambda pack: (pack / "odd.py").symlink_to("/dev/zero"),
    "a link above": lambda pack: (pack / "odd").symlink_to(".."),
    "a pipe": lambda pack: os.mkfifo(pack / "odd.py"),
    "a socket": _socket,
    "a gigabyte of nothing": _sparse,
    "a pipe for requirements": lambda pack: os.mkfifo(pack / "requirements.txt"),
    "a folder that is called a file": lambda pack: write(pack / "odd.py", {"x.py": b"\xff cuda"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_only_regular_files_of_the_pack_are_opened(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = write(tmp_path / "pack", {"good.py": GOOD})
    write(tmp_path, {"outside.py": GOOD})
    KINDS[name](pack)
    with soon():
        assert nodes.run(options(packs=[str(pack)], out=str(tmp_path / "out"))) == 1
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert [file["path"] for file in manifest["patches"][0]["files"]] == ["good.py"]
    assert manifest["problems"]
    assert (tmp_path / "outside.py").read_text() == GOOD
    capsys.readouterr()


INSIDE: dict[str, Callable[[Path], object]] = {
    "a link to a file": lambda pack: (pack / "odd.py").symlink_to("good.py"),
    "a link to a folder": lambda pack: (pack / "odd").symlink_to("."),
    "a file called .git": lambda pack: write(pack, {".git": "gitdir: /etc\n"}),
    "a repository in it": lambda pack: write(
        pack, {"sub/.git/hooks/x.py": GOOD, "sub/.git/config": "[core]\nfsmonitor = touch made\n"}
    ),
    "our journal": lambda pack: write(pack, {".patchforge/manifest.json": "{}", ".patchforge/a.py": GOOD}),
    "a journal deeper": lambda pack: write(pack, {"sub/.patchforge/a.py": GOOD}),
    "what Python compiled": lambda pack: write(pack, {"__pycache__/a.py": GOOD}),
    "a large table of no interest": lambda pack: write(pack, {"data.yaml": b"a: 1\n" * 1_000_000}),
}


@pytest.mark.parametrize("name", INSIDE)
def test_what_is_of_no_interest_is_neither_read_nor_copied(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = write(tmp_path / "pack", {"good.py": GOOD})
    INSIDE[name](pack)
    before = everything(pack)
    assert nodes.run(options(packs=[str(pack)], out=str(tmp_path / "out"))) == 0
    assert everything(pack) == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(OUTPUTS)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert [file["path"] for file in manifest["patches"][0]["files"]] == ["good.py"]
    assert not (tmp_path / "made").exists()
    capsys.readouterr()


def test_what_cannot_be_opened_or_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = write(tmp_path, {"good.py": GOOD, "secret.py": GOOD, "gone.py": GOOD, "sub/a.py": GOOD})
    content, scandir = pack_module._content, os.scandir

    def refused(path: str) -> bytes | None:
        if path.endswith("secret.py"):
            raise PermissionError(13, "Permission denied", path)
        if path.endswith("gone.py"):
            Path(path).unlink()
        return content(path)

    def hidden(path: str) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(pack_module, "_content", refused)
    monkeypatch.setattr(os, "scandir", hidden)
    read = read_pack(pack)
    assert sorted(read.files) == ["good.py"]
    assert [problem.path for problem in read.problems] == ["gone.py", "secret.py", "sub"]
    assert all("cannot be" in problem.reason for problem in read.problems)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = write(tmp_path, {"good.py": GOOD, "odd.py": GOOD})
    lstat = os.lstat

    def then_a_pipe(path: str) -> os.stat_result:
        status = lstat(path)
        if str(path).endswith("odd.py"):
            Path(path).unlink()
            os.mkfifo(path)
        return status

    monkeypatch.setattr(os, "lstat", then_a_pipe)
    read = read_pack(pack)
    monkeypatch.undo()
    assert sorted(read.files) == ["good.py"]
    assert [problem.path for problem in read.problems] == ["odd.py"]


@pytest.mark.parametrize(("bound", "value"), [("_ALL", 300), ("_MOST_ENTRIES", 3)])
def test_a_pack_that_is_too_large_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    pack = write(tmp_path, {f"a{number}.py": GOOD for number in range(9)})
    monkeypatch.setattr(pack_module, bound, value)
    read = read_pack(pack)
    assert 0 < len(read.files) < 9
    assert all(str(value) in problem.reason for problem in read.problems)
    assert read.problems


def test_what_is_no_pack_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comfyui = write(tmp_path / "ComfyUI", {"main.py": "", "nodes.py": "", "comfy/model_management.py": ""})
    with pytest.raises(PatchforgeError, match="ComfyUI"):
        read_pack(comfyui)
    with pytest.raises(PatchforgeError, match="is not a pack"):
        read_pack(Path("/"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(PatchforgeError, match=r"is not a pack|is a folder around ComfyUI"):
        read_pack(tmp_path)


def test_a_patch_that_does_not_stand_its_check_stops_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    done = convert(packed({"bad.py": GOOD, "good.py": GOOD}), Options())

    def refuse(self: PatchedPack, context: int = 0) -> None:
        if any(change.path == "bad.py" for change in self.converted.changes):
            raise CheckFailed("GNU patch refuses the patch")

    monkeypatch.setattr(PatchedPack, "check", refuse)
    kept = PatchedPack(done, "a" * 40).checked()
    assert [change.path for change in kept.converted.changes] == ["good.py"]
    assert [problem.path for problem in kept.converted.problems] == ["bad.py"]
    assert kept.commit == "a" * 40


# --- requirements


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requirements.txt", "torch" + " " * 1_000_000 + "x\n"),
        ("requirements.txt", "a" + " " * 1900 + "x\n" + ("b" + " " * 1900 + "\n") * 500),
        ("requirements.txt", "torch[" * 100_000 + "\n"),
        ("requirements.txt", "torch\n" * 20_000),
        ("requirements.txt", "a" * 1_900_000),
        ("requirements.txt", "--extra-index-url " + "cu" * 500_000 + "\n"),
        ("requirements.txt", "--extra-index-url http://x/cu121\x1b[31m\n"),
        ("requirements.txt", "torch\x00\x07 @ git+https://x\n"),
        ("requirements.txt", "-r requirements.txt\n-r ../../../etc/passwd\n" * 1000),
        ("requirements-<b>|.txt", "torch | <script>\n"),
        ("requirements.txt", b"\xff\xfe" + "torch\n".encode("utf-16-le")),
        ("requirements.txt", "flash-attn-" * 100_000 + "\n"),
        ("requirements.txt", "nvidia-" + "-" * 1900 + "!\n"),
        ("pyproject.toml", "dependencies = [" + "'" * 1_000_000 + "]\n"),
        ("pyproject.toml", "dependencies = [" + '"torch", ' * 100_000 + "]\n"),
        ("pyproject.toml", "[" * 100_000),
        ("pyproject.toml", "dependencies = [\n" * 50_000),
        ("pyproject.toml", "a." * 100_000 + "b = 1\n"),
        ("pyproject.toml", "dependencies=['torch']\n" * 20_000),
        ("pyproject.toml", "dependencies = ['" + " " * 1_000_000 + "']\n"),
        ("setup.cfg", "[options]\ninstall_requires =\n" + "  torch\n" * 100_000),
    ],
)
def test_requirements_are_read_soon(name: str, text: str | bytes) -> None:
    pack = packed({"__init__.py": GOOD, name: text})
    with soon():
        listed = needs(pack)
        report = summary(convert(pack, Options()), listed[:50])
        assert well_formed(markdown(report))
        sarif([report])
    assert all(len(need.package) < 3000 for need in listed)


@pytest.mark.parametrize(
    "name",
    [
        "chained calls",
        "more chained calls",
        "too many parentheses",
        "an escape that is none",
        "a number of many digits",
    ],
)
def test_imports_of_what_cannot_be_read_stop_nothing(name: str) -> None:
    with soon():
        needs(packed({"__init__.py": START + SOURCES[name] + "import cupy\n", "b.py": "import cupy\n"}))


# --- media


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "a | b",
        "`a` ``b``",
        "a\nb",
        "\x1b]0;title\x07",
        "[a](javascript:alert(1))",
        "@someone",
        "</td></table>",
        "&lt;",
        "\u202e",
        "\udcff",
        "\\",
        "| --- |",
        "<!-- ",
    ],
)
def test_a_report_shows_what_a_pack_says_and_no_more(text: str) -> None:
    site = DecidedSite(f"{text}.py", 1, text, "k", text, "", text, Decision.PERSON)
    report = PackReport(
        pack=text,
        figures={"converted": 0, "left": 0, "person": 1},
        skipped={text: 1},
        by_rule={"none": {"person": 1}},
        sites=(site, replace(site, decision=Decision.LEFT)),
        needs=(Need(path=text, line=1, package=text, advice="take it out", blocks=False),),
        problems=(PackProblem(text, 0, text),),
    )
    shown = markdown(report)
    shown.encode()
    assert well_formed(shown)
    document = json.loads(json.dumps(sarif([report])))
    for result in document["runs"][0]["results"]:
        said = result["message"]["text"]
        assert all(char.isprintable() for char in said)
        assert not re.search(r"(?<!\\)\[", said)
        assert urlsplit(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]).scheme == ""
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1
