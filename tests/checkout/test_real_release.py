"""A user's life with real releases: real git and upstream's own files, through the command line alone.

The user edits files, stages one, keeps packs and models in the folder, patches it, and then updates in one of the ways
that people and their programs do. Each time ``status`` names the way on, and that way ends well.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from patchforge.cli import main
from patchforge.project import load_project, release_index
from tests.checkout.test_real_life import git
from tests.support import ROOT

UPSTREAM = os.environ.get("PATCHFORGE_UPSTREAM", "")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not UPSTREAM, reason="not set: PATCHFORGE_UPSTREAM"),
]
OLD, NEW = "v0.32.0", "v0.33.0"
OWN = {"custom_nodes/mine/__init__.py": b"NODE_CLASS_MAPPINGS = {}\n", "models/mine.txt": b"mine\n"}
TOP, END = b"# mine at the top\n", b"\n# mine at the end\n"
EDITED, STAGED = "main.py", "comfy/model_management.py"  #: both are patched
Move = Callable[[Path], None]


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results are kept from one test to the next; records are as a user has them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PATCHFORGE_CACHE", "PATCHFORGE_STATE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user clones: both releases, one after the other, by their tags and on a branch.

    Their files are upstream's, as far as the clone has them; in place of the history there is one commit for each.
    """
    place = tmp_path_factory.mktemp("origin")
    git(place, "init", "--quiet", "--bare", "--initial-branch", "master")
    known = Path(UPSTREAM).expanduser().resolve()
    objects = next(folder for folder in (known / ".git" / "objects", known / "objects") if folder.is_dir())
    (place / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    commits = {str(release.version): release.commit for release in release_index(load_project())}
    above: tuple[str, ...] = ()
    for tag in (OLD, NEW):
        tree = _tree_of_what_is_there(place, commits[tag])
        commit = git(place, "commit-tree", tree, *above, "-m", tag).strip()
        git(place, "tag", tag, commit)
        above = ("-p", commit)
    git(place, "update-ref", "refs/heads/master", NEW)
    return place


def _tree_of_what_is_there(place: Path, commit: str) -> str:
    git(place, "read-tree", commit)
    listed = [line.split("\t") for line in git(place, "ls-files", "--stage").splitlines()]
    blobs = "".join(f"{about.split()[1]}\n" for about, _ in listed)
    ask = ["git", "-C", str(place), "cat-file", "--batch-check"]
    answers = subprocess.run(ask, input=blobs, capture_output=True, text=True, check=True).stdout.splitlines()
    gone = [path for (_, path), line in zip(listed, answers, strict=True) if line.endswith("missing")]
    assert len(gone) < 50
    if gone:
        git(place, "rm", "--quiet", "--cached", "--", *gone)
    return git(place, "write-tree").strip()


def clone(origin: Path, folder: Path, tag: str, *settings: str) -> Path:
    """A user's checkout on a branch, with edits, a staged one and files of their own."""
    git(folder.parent, "clone", "--quiet", "--shared", "--no-checkout", *settings, str(origin), str(folder))
    git(folder, "reset", "--quiet", "--hard", tag)
    for path in (EDITED, STAGED):
        edit(folder, path)
    git(folder, "add", STAGED)
    for path, data in OWN.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def checkout(origin: Path, tmp_path: Path) -> Path:
    return clone(origin, tmp_path / "ComfyUI", OLD)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command; its status, and what it said."""

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out + said.err

    return run


Cli = Callable[..., tuple[int, str]]


def told(cli: Cli, folder: Path) -> dict[str, Any]:
    _, text = cli("status", folder, "--json")
    document: dict[str, Any] = json.loads(text)
    return document


def put_right(cli: Cli, folder: Path) -> dict[str, Any]:
    """Does what the state says, until it says nothing more; the state in the end.

    Where an edit and ours are in one place, the message names what to do; the user then edits that file again.
    """
    for _ in range(8):
        status, text = cli("status", folder, "--json")
        document: dict[str, Any] = json.loads(text)
        if status == 0:
            return document
        program, command, named, *_ = shlex.split(document["do"].replace(";", " "))
        assert (program, named) == ("patchforge", str(folder))
        before = files(folder)
        status, said = cli(command, folder)
        if status:
            assert files(folder) == before
            follow(folder, said)
    raise AssertionError(document)


def follow(folder: Path, said: str) -> None:
    """Does what a refusal names: the release's own file, and the edit once more."""
    program, option, place, *command, path = shlex.split(said.partition("run ")[2].partition(", and run")[0])
    assert (program, option, place) == ("git", "-C", str(folder))
    assert command == ["checkout", "HEAD", "--"], said
    git(folder, *command, path)
    edit(folder, path)


def edit(folder: Path, path: str) -> None:
    data = (folder / path).read_bytes()
    (folder / path).write_bytes({EDITED: TOP + data, STAGED: data + END}.get(path, data))


def files(folder: Path) -> dict[str, bytes]:
    modules = (path for path in folder.rglob("*.py") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in modules}


def differing(folder: Path) -> dict[str, str]:
    """Lines that files of the commit have more and less, by path; line ends do not count."""
    text = git(folder, "diff", "HEAD", "--unified=0", "--ignore-space-at-eol", "--no-color")
    differences: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("+++ b/"):
            path = line.removeprefix("+++ b/")
        elif line[:1] in "+-" and not line.startswith("---"):
            differences[path] = f"{differences.get(path, '')}{line}\n"
    return differences


MINE = {EDITED: f"+{TOP.decode()}", STAGED: f"+\n+{END.decode().strip()}\n"}


def as_at_first(folder: Path, tag: str, edits: dict[str, str]) -> None:
    """The release's files with these edits, the user's own files, and nothing of ours."""
    assert git(folder, "rev-parse", "HEAD") == git(folder, "rev-parse", f"{tag}^{{commit}}")
    assert differing(folder) == edits
    assert {path: (folder / path).read_bytes() for path in OWN} == OWN
    assert not [path for path in folder.rglob("*patchforge*") if ".git" not in path.parts]


# --- without an update


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("settings", [(), ("--config", "core.autocrlf=true")], ids=["plain", "crlf"])
def test_there_and_back(origin: Path, tmp_path: Path, cli: Cli, version: str, settings: tuple[str, ...]) -> None:
    folder = clone(origin, tmp_path / "ComfyUI", version, *settings)
    assert (b"\r\n" in (folder / "nodes.py").read_bytes()) == bool(settings)
    before = {path: path.read_bytes() for path in folder.rglob("*.py")}
    index = git(folder, "diff", "--cached")
    assert cli("apply", folder, "--in-place")[0] == 0
    assert told(cli, folder)["state"] == "patched"
    assert cli("apply", folder, "--in-place")[0] == 2
    assert git(folder, "diff", "--cached") == index
    assert cli("revert", folder)[0] == 0
    assert {path: path.read_bytes() for path in folder.rglob("*.py")} == before
    as_at_first(folder, version, MINE)


def test_a_worktree(checkout: Path, tmp_path: Path, cli: Cli) -> None:
    tree = tmp_path / "tree"
    git(checkout, "worktree", "add", "--quiet", "--detach", str(tree), NEW)
    assert cli("apply", tree, "--in-place")[0] == 0
    assert told(cli, checkout)["state"] == "not patched"
    git(tree, "clean", "-fdxq")
    assert told(cli, tree)["state"] == "module lost"
    put_right(cli, tree)
    assert cli("revert", tree)[0] == 0
    assert git(tree, "status", "--porcelain") == ""


def test_two_at_once(checkout: Path, cli: Cli) -> None:
    assert cli("apply", checkout, "--in-place")[0] == 0
    git(checkout, "checkout", "--quiet", "HEAD", "--", EDITED)
    start = [sys.executable, "-m", "patchforge"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen([*start, name, str(checkout)], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in ("repair", "update", "revert")
    ]
    said = [run.communicate()[1] for run in runs]
    assert not [text for text in said if "Traceback" in text]
    assert {run.returncode for run in runs} <= {0, 2, 75}, said
    if put_right(cli, checkout)["state"] != "not patched":
        assert cli("revert", checkout)[0] == 0
    as_at_first(checkout, OLD, {STAGED: MINE[STAGED]})


# --- updates


def portable(folder: Path) -> None:
    """The portable build's update.py: stash, a branch to fall back on, master, pull, the newest tag."""
    git(folder, "stash", "--quiet")
    git(folder, "branch", "backup_branch")
    git(folder, "checkout", "--quiet", "master")
    git(folder, "pull", "--quiet", "--ff-only")
    git(folder, "checkout", "--quiet", NEW)


def manager(folder: Path) -> None:
    """ComfyUI-Manager: stash, fetch, check out the tag."""
    git(folder, "stash", "--quiet")
    git(folder, "fetch", "--quiet", "--tags")
    git(folder, "checkout", "--quiet", NEW)


def pulled(folder: Path) -> None:
    git(folder, "reset", "--quiet")  # staged edits come back unstaged
    git(folder, "pull", "--quiet", "--rebase", "--autostash", "origin", "master")


def forced(folder: Path) -> None:
    git(folder, "checkout", "--quiet", "--force", NEW)


def cleaned(folder: Path) -> None:
    git(folder, "checkout", "--quiet", "--force", NEW)
    git(folder, "clean", "-fdxq", "--exclude", "custom_nodes", "--exclude", "models")  # the journal goes, too


def unpacked_over(folder: Path) -> None:
    data = subprocess.run(["git", "-C", str(folder), "archive", NEW], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")
    git(folder, "update-ref", "--no-deref", "HEAD", f"{NEW}^{{commit}}")
    git(folder, "read-tree", NEW)


def stashed_and_back(folder: Path) -> None:
    """The hooks come along with the edits, on top of the new release, and some of them are in conflict with it."""
    manager(folder)
    git(folder, "stash", "pop", "--quiet", fails=True)
    assert b"<<<<<<<" in (folder / EDITED).read_bytes()


#: What people do → which of their edits are in the files afterwards.
UPDATES: dict[Move, dict[str, str]] = {
    portable: {},
    manager: {},
    pulled: MINE,
    forced: {},
    cleaned: {},
    unpacked_over: {},
    stashed_and_back: MINE,
}


@pytest.mark.parametrize("move", UPDATES, ids=lambda move: move.__name__)
def test_an_update_over_the_patches(checkout: Path, cli: Cli, move: Move) -> None:
    assert cli("apply", checkout, "--in-place")[0] == 0
    move(checkout)
    document = put_right(cli, checkout)
    if move is cleaned:
        assert document["state"] == "not patched"
        assert cli("apply", checkout, "--in-place")[0] == 0
        document = told(cli, checkout)
    assert document["state"] in ("patched", "edited since")
    assert document["release"] == NEW
    assert (checkout / "comfy/patchforge_xpu/__init__.py").is_file()
    assert cli("revert", checkout)[0] == 0
    as_at_first(checkout, NEW, UPDATES[move])


@pytest.mark.parametrize("move", UPDATES, ids=lambda move: move.__name__)
def test_a_revert_after_an_update(checkout: Path, cli: Cli, move: Move) -> None:
    """No file of the old release comes back."""
    assert cli("apply", checkout, "--in-place")[0] == 0
    move(checkout)
    while told(cli, checkout)["state"] != "not patched":
        status, said = cli("revert", checkout)
        if status:
            follow(checkout, said)
    as_at_first(checkout, NEW, UPDATES[move])


def test_a_downgrade(origin: Path, tmp_path: Path, cli: Cli) -> None:
    folder = clone(origin, tmp_path / "ComfyUI", NEW)
    assert cli("apply", folder, "--in-place")[0] == 0
    git(folder, "checkout", "--quiet", "--force", OLD)
    assert told(cli, folder)["state"] == "updated since"
    assert put_right(cli, folder)["release"] == OLD
    assert cli("revert", folder)[0] == 0
    as_at_first(folder, OLD, {})


def test_what_the_updater_stashed_comes_back_later(checkout: Path, cli: Cli) -> None:
    """The new release is patched already when the stash, with the old hooks in it, is taken back."""
    assert cli("apply", checkout, "--in-place")[0] == 0
    manager(checkout)
    put_right(cli, checkout)
    assert cli("revert", checkout)[0] == 0
    git(checkout, "stash", "pop", "--quiet", fails=True)
    assert put_right(cli, checkout)["state"] in ("patched", "edited since")
    assert cli("revert", checkout)[0] == 0
    as_at_first(checkout, NEW, MINE)


def test_an_edit_of_what_is_ours_stops_and_names_the_way_on(checkout: Path, cli: Cli) -> None:
    assert cli("apply", checkout, "--in-place")[0] == 0
    place = checkout / EDITED
    hook = next(line for line in place.read_bytes().splitlines() if b"patchforge_xpu." in line)
    place.write_bytes(place.read_bytes().replace(hook, hook + b"  # mine, in a hook"))
    edited = place.read_bytes()
    for command in ("revert", "update"):
        status, said = cli(command, checkout)
        assert status == 1
        assert EDITED in said
        assert place.read_bytes() == edited
    follow(checkout, said)
    put_right(cli, checkout)
    assert cli("revert", checkout)[0] == 0
    as_at_first(checkout, OLD, MINE)
