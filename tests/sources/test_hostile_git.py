"""Clones of strangers: nothing in them is obeyed, and what they lie about is found out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from patchforge import cli
from patchforge.bot.discovery import list_tags
from patchforge.bot.mirror import Mirror
from patchforge.doctor import upstream as doctor
from patchforge.errors import Exit, PatchforgeError
from patchforge.git.borrowed import checked_out
from patchforge.git.clone import CachedClone
from patchforge.hashes import of_clone
from patchforge.pins.repositories import Clones, pin
from patchforge.pins.tracked import TrackedRepository
from patchforge.project import load_project
from patchforge.sources import GitObjects, GitTree
from tests.sources.hostile import SETTINGS, Witness, made, plain_git
from tests.support import miniature

PACK = TrackedRepository(
    "pack", "Pack", "https://github.com/a/b", "MIT", branch="main", group="x", requirements="requirements.txt"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {**miniature("v0.33.0"), ".gitattributes": b"* filter=x diff=x merge=x\n"}
    return made(tmp_path_factory.mktemp("original") / "clone", {**files, "requirements.txt": b"torch\nnumpy>=1\n"})


@pytest.fixture
def clone(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "clone", symlinks=True))


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    """It must have seen nothing at the end."""
    witness_now = Witness.at(tmp_path)
    yield witness_now
    assert witness_now.seen == ""


def read_in_every_way(clone: Path) -> dict[str, object]:
    """What our own functions make of a clone; those that commands call."""
    head = plain_git(clone, "-c", "core.fsmonitor=false", "rev-parse", "HEAD")
    answers: dict[str, object] = {"head": checked_out(clone) == head}
    with GitObjects(clone) as objects:
        answers["commit"] = objects.commit("refs/tags/v0.33.0") == head
        answers["history"] = objects.history("HEAD") == [head]
        answers["files"] = len(GitTree(objects, head).entries())
        answers["refs"] = (objects.tags(), objects.branches())
        with suppress(PatchforgeError):
            for path in GitTree(objects, head).entries():
                GitTree(objects, head).read(path)
    with suppress(PatchforgeError):
        answers["hash"] = of_clone(clone, head).files
    with suppress(PatchforgeError):
        answers["pin"] = pin(PACK, Clones({"pack": str(clone)}), {}).date
    project = load_project()
    with Mirror(project, str(clone)) as mirror:
        answers["date"] = mirror.date(head).isoformat()
    answers["clone"] = doctor.examine(str(clone), project)[1] is not None
    for where in (str(clone), clone.as_uri()):
        answers["tags"] = sorted(list_tags(where)[0]) if isinstance(list_tags(where), tuple) else None
    with suppress(PatchforgeError):
        CachedClone.of(clone.as_uri()).ensure()
        CachedClone.of(clone.as_uri()).fetch()
    return answers


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_of_a_clone_runs_anything(clone: Path, witness: Witness, name: str) -> None:
    SETTINGS[name](clone, witness)
    answers = read_in_every_way(clone)
    assert answers["tags"] == ["note", "v0.33.0"]
    assert (answers["commit"], answers["history"], answers["head"]) == (True, True, True)
    assert answers["date"] == "2026-03-04T05:06:07+01:00"
    if name != "extensions.partialClone":
        assert answers["pin"] == "2026-03-04"


def all_at_once(clone: Path, witness: Witness) -> None:
    for name, harm in SETTINGS.items():
        if name != "extensions.partialClone":
            harm(clone, witness)
    witness.trace.unlink(missing_ok=True)  # git, in the hands of the test, has obeyed some of it already


COMMANDS = {
    "apply": "apply {head} --upstream {clone} --dry-run",
    "apply, from the checkout": "apply --from {clone} --dry-run",
    "replay": "replay --upstream {clone} --since v0.33.0",
    "verify": "verify {head} --upstream {clone}",
    "explain": "explain {head} --upstream {clone}",
    "track": "track --upstream {clone} --generated {empty}",
    "prefetch": "prefetch a/b v0.33.0 --upstream {clone}",
    "prefetch of a file:// address": "prefetch a/b v0.33.0 --upstream {url}",
    "doctor": "doctor --upstream {clone}",
    "doctor of a file:// address": "doctor --upstream {url}",
    "nodes": "nodes check {clone}",
    "status": "status --generated {empty}",
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("inside", [False, True])
def test_no_command_obeys_a_clone(
    clone: Path, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, inside: bool
) -> None:
    if inside and "file://" not in name and name not in {"doctor", "track"}:
        pytest.skip("what is read does not depend on where we are")
    all_at_once(clone, witness)
    (tmp_path / "empty").mkdir()
    head = checked_out(clone)
    values = {"clone": clone, "url": clone.as_uri(), "empty": tmp_path / "empty", "head": head}
    monkeypatch.setenv("PATCHFORGE_UPSTREAM", str(clone))
    if inside:
        monkeypatch.chdir(clone)
    try:
        status: object = cli.main([word.format(**values) for word in COMMANDS[name].split()])
    except SystemExit as left:
        status = left.code
    assert status in {Exit.OK, Exit.FAILED, Exit.USAGE, Exit.DRIFTED, Exit.DATA, Exit.UNCHECKED}
    if not name.startswith(("doctor", "nodes", "replay", "verify", "explain", "track")):
        assert status == Exit.OK


@pytest.mark.parametrize(
    "variable",
    [
        ("GIT_DIR", "/nowhere"),
        ("GIT_WORK_TREE", "/nowhere"),
        ("GIT_INDEX_FILE", "/nowhere"),
        ("GIT_OBJECT_DIRECTORY", "/nowhere"),
        ("GIT_COMMON_DIR", "/nowhere"),
        ("GIT_NAMESPACE", "x"),
        ("GIT_SHALLOW_FILE", "/nowhere"),
        ("GIT_CEILING_DIRECTORIES", "/"),
        ("GIT_CONFIG_PARAMETERS", "'core.fsmonitor=W' 'diff.external=W' 'log.showSignature=true' 'gpg.program=W'"),
        ("GIT_CONFIG_COUNT", "not a number"),
        ("GIT_CONFIG_GLOBAL", "/config"),
        ("GIT_SSH_COMMAND", "W"),
        ("GIT_PROXY_COMMAND", "W"),
        ("GIT_EXTERNAL_DIFF", "W"),
        ("GIT_ASKPASS", "W"),
        ("GIT_EDITOR", "W"),
        ("GIT_PAGER", "W"),
        ("PAGER", "W"),
        ("GIT_TRACE", "T"),
        ("GIT_TRACE2_EVENT", "T"),
        ("GIT_TEMPLATE_DIR", "/nowhere"),
        ("GIT_ALTERNATE_OBJECT_DIRECTORIES", "/nowhere"),
        ("GIT_REPLACE_REF_BASE", "refs/tags/"),
        ("GIT_GRAFT_FILE", "/nowhere"),
        ("GIT_DEFAULT_HASH", "sha256"),
        ("GIT_ALLOW_PROTOCOL", "ext"),
        ("GIT_LITERAL_PATHSPECS", "0"),
        ("GIT_ICASE_PATHSPECS", "1"),
        ("GIT_EXEC_PATH", "/nowhere"),
    ],
)
def test_the_callers_variables_play_no_part(
    clone: Path, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    name, value = variable
    plain = read_in_every_way(clone)
    shutil.rmtree(os.environ["PATCHFORGE_CACHE"])
    (tmp_path / "config").write_text(f"[core]\nfsmonitor = {witness.program}\npager = {witness.program}\n")
    value = value.replace("W", str(witness.program)).replace("T", str(witness.trace))
    value = str(tmp_path / "config") if value == "/config" else value
    monkeypatch.setenv(name, value)
    assert read_in_every_way(clone) == plain
