"""``doctor --upstream``: scratch upstreams that are shallow, partial, damaged, moved, renamed or gone."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from patchforge.commands import doctor
from patchforge.doctor import upstream
from patchforge.doctor.facts import FactState
from patchforge.errors import Exit, PatchforgeError
from patchforge.git.clone import CachedClone
from patchforge.project import Project
from tests.bot.world import bare, git, put

VERSIONS = ("v0.1.0", "v0.2.0", "v0.3.0")
PRESENT, FORMER = "https://github.com/Comfy-Org/ComfyUI", "https://github.com/comfyanonymous/ComfyUI"


@pytest.fixture(autouse=True)
def only_our_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PATCHFORGE_UPSTREAM", raising=False)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """Three releases; the tag of the second is annotated."""
    place = bare(tmp_path / "remote.git")
    for version in VERSIONS:
        put(place, {"main.py": version.encode(), f"{version}.py": b"1\n"})
        git(place, "tag", version, *(["-a", "-m", "x"] if version == VERSIONS[1] else []))
    git(place, "config", "uploadpack.allowFilter", "true")
    return place


@pytest.fixture
def project(tmp_path: Path, remote: Path) -> Project:
    rows = [f"{version}\t{git(remote, 'rev-parse', version + '^{commit}')}\t2026-01-01\n" for version in VERSIONS]
    index = tmp_path / "demo.tsv"
    index.write_text("version\tcommit\tdate\n" + "".join(rows))
    return Project("demo", "Demo", PRESENT, index, "v{version}", "version.py", (FORMER,))


def clone(remote: Path, *options: str) -> Path:
    folder = remote.parent / "clone.git"
    git(remote.parent, "clone", "--quiet", "--bare", *options, remote.as_uri(), str(folder))
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def judged(where: Path | str, project: Project) -> list[tuple[str, FactState, str, str]]:
    """What is found; nothing below the test's folder may change over it."""
    folder = project.index.parent
    before = snapshot(folder)
    findings = upstream.findings(project, *upstream.examine(str(where), project))
    shown = [(finding.subject, finding.state, finding.text, finding.do) for finding in findings]
    assert snapshot(folder) == before
    return shown


def bad(rows: list[tuple[str, FactState, str, str]]) -> list[tuple[str, FactState, str, str]]:
    return [row for row in rows if row[1] not in (FactState.OK, FactState.NOT_APPLICABLE)]


def only(rows: list[tuple[str, FactState, str, str]]) -> tuple[str, FactState, str, str]:
    assert len(bad(rows)) == 1, rows
    return bad(rows)[0]


def test_a_whole_clone(remote: Path, project: Project) -> None:
    rows = judged(clone(remote), project)
    assert [row[:2] for row in rows] == [("clone", FactState.OK), ("tags", FactState.OK)]
    assert "3 of 3 releases" in rows[1][2]


def test_a_shallow_clone(remote: Path, project: Project) -> None:
    place = clone(remote, "--depth=1")
    rows = bad(judged(place, project))
    assert rows[0][:2] == ("clone", FactState.WRONG)
    assert "is shallow; it lacks v0.1.0, v0.2.0" in rows[0][2]
    assert rows[0][3] == f"git -C {place} fetch --unshallow --tags"
    git(place, "fetch", "--quiet", "--unshallow", "--tags")
    assert bad(judged(place, project)) == []


def test_a_shallow_clone_that_has_every_release(remote: Path, project: Project) -> None:
    put(remote, {"main.py": b"later\n"})
    place = clone(remote, "--depth=2", "--no-single-branch")
    git(place, "fetch", "--quiet", "--depth=1", "origin", "tag", "v0.1.0", "tag", "v0.2.0")
    assert only(judged(place, project))[:2] == ("clone", FactState.WARNING)


def test_a_partial_clone(remote: Path, project: Project) -> None:
    subject, state, text, do = only(judged(clone(remote, "--filter=blob:none"), project))
    assert (subject, state) == ("clone", FactState.WRONG)
    assert "partial; 4 of the releases' files and folders are not there" in text
    assert f"git clone --mirror {PRESENT}" in do


def test_a_file_that_is_missing(remote: Path, project: Project) -> None:
    oid = git(remote, "rev-parse", "v0.2.0:v0.2.0.py")
    shutil.rmtree(remote / "objects" / oid[:2])
    assert "partial; 1 of the releases' files" in only(judged(remote, project))[2]


@pytest.mark.parametrize("harm", ["commit", "content", "pack", "tag"])
def test_a_damaged_clone(remote: Path, project: Project, harm: str) -> None:
    oid = git(remote, "rev-parse", "v0.2.0^{commit}" if harm == "commit" else "v0.2.0:main.py")
    loose = remote / "objects" / oid[:2] / oid[2:]
    if harm == "commit":
        loose.unlink()
    elif harm == "content":
        loose.chmod(0o644)
        loose.write_bytes(loose.read_bytes()[:-4])
    elif harm == "tag":
        (remote / "refs" / "tags" / "v0.3.0").write_text("no commit\n")
    else:
        git(remote, "repack", "-adq")
        pack = next(remote.glob("objects/pack/*.pack"))
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:-60])
    rows = [row for row in judged(remote, project) if "is damaged" in row[2]]
    assert [row[:2] for row in rows] == [("clone", FactState.WRONG)]
    assert "git clone --mirror" in rows[0][3]


def test_a_folder_that_is_no_clone(tmp_path: Path, project: Project) -> None:
    (tmp_path / "plain").mkdir()
    assert "not a git repository" in only(judged(tmp_path / "plain", project))[2]
    assert "no such folder" in only(judged(tmp_path / "nowhere", project))[2]


def test_a_moved_tag_names_both_commits(remote: Path, project: Project) -> None:
    before, after = git(remote, "rev-parse", "v0.3.0"), git(remote, "rev-parse", "v0.1.0")
    git(remote, "tag", "--force", "v0.3.0", after)
    for where in (remote, remote.as_uri()):
        subject, state, text, do = only(judged(where, project))
        assert (subject, state) == ("tags", FactState.WRONG)
        assert f"v0.3.0 was {before} and is {after}" in text
        assert "demo.tsv says otherwise" in do


def test_another_repository(tmp_path: Path, project: Project) -> None:
    other = bare(tmp_path / "other.git")
    put(other, {"x": b"x"})
    git(other, "tag", "1.0")
    assert [row[0] for row in bad(judged(other, project))] == ["clone", "tags"]
    assert "is it another repository? Demo is at" in only(judged(other.as_uri(), project))[3]


def test_a_clone_without_tags(remote: Path, project: Project) -> None:
    place = clone(remote, "--no-tags")
    assert only(judged(place, project))[1:] == (
        FactState.WARNING,
        f"{place} has no tags, so new releases cannot be seen in it",
        f"git -C {place} fetch --tags",
    )


def test_a_clone_that_is_behind(remote: Path, project: Project, tmp_path: Path) -> None:
    place = clone(remote)
    put(remote, {"main.py": b"4\n"})
    commit = git(remote, "rev-parse", "main")
    project.index.write_text(project.index.read_text() + f"v0.4.0\t{commit}\t2026-01-02\n")
    assert only(judged(place, project))[1:] == (
        FactState.WARNING,
        f"{place} lacks v0.4.0",
        f"git -C {place} fetch --tags",
    )


@pytest.mark.parametrize("url", [FORMER, FORMER + ".git", FORMER.lower() + "/"])
def test_a_clone_with_the_former_address(remote: Path, project: Project, url: str) -> None:
    place = clone(remote)
    git(place, "remote", "set-url", "origin", url)
    assert only(judged(place, project))[1:] == (
        FactState.WARNING,
        f"{place}: remote origin has a former address",
        f"git -C {place} remote set-url origin {PRESENT}",
    )
    git(place, "remote", "set-url", "origin", PRESENT + ".git")
    assert bad(judged(place, project)) == []


def test_the_former_address_itself(remote: Path, project: Project) -> None:
    """The present one is asked instead."""
    renamed = replace(project, url=remote.as_uri(), former_urls=("https://example.invalid/old",))
    subject, state, text, do = only(judged("https://example.invalid/old.git", renamed))
    assert (subject, state, do) == ("upstream", FactState.WARNING, f"name {remote.as_uri()}")
    assert "a former address" in text


class Renamed(SimpleHTTPRequestHandler):
    """A host that sends /old.git to /remote.git."""

    def do_GET(self) -> None:
        if self.path.startswith("/old.git/"):
            self.send_response(301)
            self.send_header("Location", self.path.replace("/old.git/", "/remote.git/"))
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Renamed, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_host_that_redirects(remote: Path, project: Project) -> None:
    git(remote, "update-server-info")
    with served(remote.parent) as host:
        subject, state, text, do = only(judged(f"{host}/old.git", project))
        assert (subject, state) == ("upstream", FactState.WARNING)
        assert f"leads to {host}/remote.git" in text
        assert "into url in upstream/demo.toml" in do
        gone = only(judged(f"{host}/nobody.git", project))
    unreachable = only(judged(f"{host}/remote.git", project))
    assert "not found" in gone[2]
    assert "whether it was renamed" in gone[3]
    assert unreachable[3] == "check the network and run this again"


def test_the_clone_of_an_unreachable_upstream_is_left_alone(remote: Path, project: Project) -> None:
    url = remote.as_uri()
    cached = CachedClone.of(url)
    cached.ensure()
    assert [row[0] for row in judged(url, project)] == ["tags", "clone", "tags"]
    remote.rename(remote.with_name("elsewhere.git"))
    before = git(cached.path, "show-ref")
    wrong = only(judged(url, project))
    assert f"the clone in {cached.path} stays as it is" in wrong[2]
    with pytest.raises(PatchforgeError, match="git fetch"):
        cached.fetch()
    assert git(cached.path, "show-ref") == before
    assert ("clone", FactState.OK) in [row[:2] for row in judged(url, project)]


def test_a_fetch_from_a_damaged_upstream_keeps_the_last_good_state(remote: Path, project: Project) -> None:
    url = remote.as_uri()
    cached = CachedClone.of(url)
    cached.ensure()
    before = git(cached.path, "show-ref")
    commit = put(remote, {"main.py": b"new\n"})
    git(remote, "tag", "v0.4.0")
    oid = git(remote, "rev-parse", f"{commit}:main.py")
    (remote / "objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(PatchforgeError, match="git fetch"):
        cached.fetch()
    assert git(cached.path, "show-ref") == before
    assert bad(judged(url, project)) == []


def test_a_damaged_clone_in_the_cache_is_to_be_moved_away(remote: Path, project: Project) -> None:
    cached = CachedClone.of(remote.as_uri())
    cached.ensure()
    pack = next(cached.path.glob("objects/pack/*.pack"))
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:-60])
    rows = [row for row in judged(remote.as_uri(), project) if "is damaged" in row[2]]
    assert rows[0][3].startswith(f"move {cached.path} away")


def test_a_password_is_not_shown(project: Project) -> None:
    rows = judged("http://me:secret@127.0.0.1:1/x", project)
    assert "127.0.0.1" in str(rows)
    assert "secret" not in str(rows)


def test_the_command(
    remote: Path, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "load_project", lambda: project)
    given = argparse.Namespace(json=True, python=None, root="/nowhere", tree=None, upstream=str(remote))
    assert doctor.run(given) == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert said["facts"]["clone"]["missing"] == 0
    assert said["facts"]["remote"] is None
    monkeypatch.setenv("PATCHFORGE_UPSTREAM", str(remote))
    git(remote, "tag", "--force", "v0.3.0", "v0.1.0")
    given.json, given.upstream = False, ""
    assert doctor.run(given) == Exit.FAILED
    assert "wrong          tags:" in capsys.readouterr().out
