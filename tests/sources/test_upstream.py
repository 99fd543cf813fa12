from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from patchforge import progress
from patchforge.errors import PatchforgeError
from patchforge.git import clone as clone_module
from patchforge.git.clone import CachedClone, is_url
from patchforge.project import Project, release_index
from patchforge.sources import open_upstream
from patchforge.sources.upstream import Upstream, nearest
from patchforge.vocabulary import Release, Version
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHERE = os.environ.get("PATCHFORGE_UPSTREAM")  # as it was before the tests set their own
VERSIONS = ("v0.1.0", "v0.2.0", "v0.3.0")


@pytest.fixture(autouse=True)
def only_our_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")  # no network, whatever a test does
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PATCHFORGE_UPSTREAM", raising=False)


class Remote:
    """A tiny upstream: three releases, then commits without a release."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = path.as_uri()
        path.mkdir()
        self.git("init", "-q", "-b", "master")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", self.path, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            path = self.path / name.replace("__", ".")
            path.write_text(text) if text else path.unlink()
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a change")
        return self.git("rev-parse", "HEAD")

    def release(self, version: str) -> str:
        return self.commit(comfyui_version__py=f'__version__ = "{version.removeprefix("v")}"\n', main__py=version)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


@pytest.fixture
def commits(remote: Remote) -> dict[str, str]:
    made = {version: remote.release(version) for version in VERSIONS}
    remote.git("tag", VERSIONS[0], made[VERSIONS[0]])
    remote.git("tag", "-a", "-m", "note", VERSIONS[1], made[VERSIONS[1]])
    remote.git("tag", "latest", made[VERSIONS[2]])
    return made


@pytest.fixture
def project(tmp_path: Path, commits: dict[str, str]) -> Project:
    return index(tmp_path, commits)


def index(folder: Path, commits: dict[str, str]) -> Project:
    path = folder / "demo.tsv"
    path.write_text("version\tcommit\tdate\n" + "".join(f"{v}\t{c}\t2026-01-01\n" for v, c in commits.items()))
    return Project("demo", "Demo", "https://example.invalid/demo", path, "v{version}", "comfyui_version.py")


@pytest.fixture
def upstream(remote: Remote, project: Project) -> Iterator[Upstream]:
    with open_upstream(str(remote.path), project=project) as opened:
        yield opened


def released(version: str, commit: str, *, indexed: bool = True) -> Release:
    return Release(Version.parse(version), commit, indexed=indexed)


# resolving


@pytest.mark.parametrize("version", VERSIONS)  # light tag, annotated tag, no tag
def test_versions_resolve_by_tag_and_index(upstream: Upstream, commits: dict[str, str], version: str) -> None:
    assert upstream.resolve(version) == released(version, commits[version])
    assert upstream.resolve(version.removeprefix("v")) == released(version, commits[version])
    assert upstream.tree(upstream.resolve(version)).read("main.py") == version.encode()


@pytest.mark.parametrize("annotated", [True, False])
def test_new_tag_resolves_and_is_said_to_be_new(upstream: Upstream, remote: Remote, annotated: bool) -> None:
    commit = remote.release("v0.4.0")
    remote.git("tag", *(["-a", "-m", "note"] if annotated else []), "v0.4.0")
    new = released("v0.4.0", commit, indexed=False)
    assert upstream.resolve("v0.4.0") == new
    assert upstream.resolve(commit[:9]) == new
    assert upstream.releases()[-1] == new


def test_releases_are_index_and_new_tags_in_order(upstream: Upstream, remote: Remote, commits: dict[str, str]) -> None:
    remote.git("tag", "v0.2.10", commits["v0.2.0"])
    assert [str(release.version) for release in upstream.releases()] == ["v0.1.0", "v0.2.0", "v0.2.10", "v0.3.0"]


@pytest.mark.parametrize("by_commit", [False, True])
def test_disagreement_names_both_commits(
    upstream: Upstream, remote: Remote, commits: dict[str, str], by_commit: bool
) -> None:
    moved = remote.commit(main__py="moved")
    remote.git("tag", "-f", "v0.2.0", moved)
    with pytest.raises(PatchforgeError, match=r"disagree about v0\.2\.0") as caught:
        upstream.resolve(commits["v0.2.0"] if by_commit else "v0.2.0")
    assert commits["v0.2.0"] in str(caught.value)
    assert moved in str(caught.value)


def test_indexed_commit_that_the_clone_lacks(tmp_path: Path, remote: Remote, commits: dict[str, str]) -> None:
    project = index(tmp_path, commits | {"v0.9.0": "9" * 40})
    with open_upstream(str(remote.path), project=project) as upstream:
        with pytest.raises(PatchforgeError, match=r"lacks the commit of v0\.9\.0") as caught:
            upstream.resolve("v0.9.0")
        with pytest.raises(PatchforgeError, match="lacks the commit"):
            upstream.tree(released("v0.9.0", "9" * 40))
    assert "9" * 40 in str(caught.value)
    assert "fetch --tags" in str(caught.value)


def test_shallow_clone_says_how_to_complete_it(tmp_path: Path, remote: Remote, project: Project) -> None:
    subprocess.run(["git", "clone", "-q", "--depth=1", remote.url, tmp_path / "shallow"], check=True)
    with (
        open_upstream(str(tmp_path / "shallow"), project=project) as upstream,
        pytest.raises(PatchforgeError, match="--unshallow"),
    ):
        upstream.resolve("v0.1.0")


@pytest.mark.parametrize("name", ["v0.3.1", "0.30", "v9.9.9", "0.2"])
def test_unknown_version_lists_the_nearest(upstream: Upstream, name: str) -> None:
    with pytest.raises(PatchforgeError, match="no release, commit or ref called") as caught:
        upstream.resolve(name)
    assert "v0.3.0" in caught.value.expected


@pytest.mark.parametrize("name", ["mster", "deadbeef", "", "two\nlines", "HEAD:main.py", "--all", "v0.3"])
def test_unknown_names_are_refused(upstream: Upstream, name: str) -> None:
    with pytest.raises(PatchforgeError, match="no release, commit or ref called"):
        upstream.resolve(name)


def test_what_is_far_away_is_not_suggested() -> None:
    versions = [f"v0.{number}.{patch}" for number in range(34) for patch in range(3)]
    assert nearest("v9.9.9", versions, versions) == ["v0.33.2", "v0.33.1", "v0.33.0"]


@pytest.mark.parametrize(
    "name", ["/home/ann/ComfyUI", "~/ComfyUI", "./ComfyUI", "../ComfyUI", "ComfyUI/", r"C:\ComfyUI", "C:/ComfyUI", "."]
)
def test_a_path_is_told_from_a_release(upstream: Upstream, name: str) -> None:
    with pytest.raises(PatchforgeError, match="is a path") as caught:
        upstream.resolve(name)
    assert "apply DIR --in-place" in caught.value.do
    assert "--from" in caught.value.do


@pytest.mark.parametrize("name", ["ComfyUI", "ComfyUI-0.32.0.tar.gz"])
def test_a_file_that_is_there_is_told_from_a_release(
    upstream: Upstream, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PatchforgeError, match="no release, commit or ref called") as caught:
        upstream.resolve(name)
    assert "--in-place" in caught.value.do


def test_misspelt_ref_is_suggested(upstream: Upstream) -> None:
    with pytest.raises(PatchforgeError, match="master"):
        upstream.resolve("mster")


@pytest.mark.parametrize(
    ("name", "versions", "first"),
    [
        ("v0.3.48", ["v0.3.4", "v0.3.47", "v0.4.48"], "v0.3.47"),
        ("0.3.47-rc1", ["v0.3.4", "v0.3.47", "v0.4.48"], "v0.3.47"),
        ("v1", ["v0.9.0", "v1.0.0", "v2.0.0"], "v1.0.0"),
        ("v9.9.9", ["v0.9.1", "v0.9.2", "v0.32.0", "v0.33.0"], "v0.33.0"),
        ("v0.3.99", ["v0.3.9", "v0.3.75", "v0.3.76", "v0.4.0", "v0.9.9"], "v0.3.76"),
        ("v0.0.0", ["v0.3.9", "v0.1.0", "v0.2.0"], "v0.1.0"),
        ("something", ["v0.1.0", "v0.2.0", "v0.3.0", "v0.4.0"], "v0.2.0"),
    ],
)
def test_nearest(name: str, versions: list[str], first: str) -> None:
    assert nearest(name, versions)[0] == first


def test_commit_of_a_release_is_that_release(upstream: Upstream, commits: dict[str, str]) -> None:
    for name in (commits["v0.3.0"], commits["v0.3.0"][:7], "latest"):
        assert upstream.resolve(name) == released("v0.3.0", commits["v0.3.0"])


def test_other_commit_bears_the_version_it_states(upstream: Upstream, remote: Remote) -> None:
    commit = remote.commit(comfyui_version__py='__version__ = "0.3.5"')
    for name in (commit, commit[:10], "master", "HEAD"):
        assert upstream.resolve(name) == released("v0.3.5", commit, indexed=False)


def test_commit_that_states_nothing_bears_that_of_its_newest_release(upstream: Upstream, remote: Remote) -> None:
    commit = remote.commit(comfyui_version__py="")
    assert upstream.resolve(commit) == released("v0.3.0", commit, indexed=False)


def test_commit_whose_version_file_is_missing_still_resolves(upstream: Upstream, remote: Remote) -> None:
    commit = remote.commit(comfyui_version__py='__version__ = "0.3.5"')
    blob = remote.git("rev-parse", "HEAD:comfyui_version.py")
    (remote.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    assert upstream.resolve(commit) == released("v0.3.0", commit, indexed=False)


def test_commit_before_every_release(remote: Remote, tmp_path: Path) -> None:
    first = remote.commit(main__py="0")
    project = index(tmp_path, {"v0.1.0": remote.release("v0.1.0")})
    with open_upstream(str(remote.path), project=project) as upstream:
        assert upstream.resolve(first) == released("v0.0.0", first, indexed=False)


def test_commits_that_touch_paths_oldest_first(upstream: Upstream, remote: Remote, commits: dict[str, str]) -> None:
    first = remote.commit(other__py="1")
    two = remote.commit(main__py="2")
    three = remote.commit(main__py="3")
    remote.commit(**{"main*__py": "4"})
    assert upstream.commits("v0.3.0", "master", ["main.py"]) == [two, three]
    assert upstream.commits("v0.3.0", three, ["main.py", "other.py"]) == [first, two, three]
    assert upstream.commits("v0.1.0", "v0.3.0", ["comfyui_version.py"]) == [commits["v0.2.0"], commits["v0.3.0"]]
    assert upstream.commits("v0.3.0", "master", ["main*"]) == []
    assert len(upstream.commits("v0.3.0", "master")) == 4


def test_broken_history_says_so(upstream: Upstream, remote: Remote) -> None:
    middle, last = remote.commit(main__py="2"), remote.commit(main__py="3")
    (remote.path / ".git" / "objects" / middle[:2] / middle[2:]).unlink()
    with pytest.raises(PatchforgeError, match="git rev-list failed"):
        upstream.commits("v0.1.0", last)


# where it is


def test_upstream_from_the_environment(remote: Remote, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHFORGE_UPSTREAM", str(remote.path))
    with open_upstream(project=project) as upstream:
        assert upstream.origin == str(remote.path)


def test_bare_clone_and_its_path(tmp_path: Path, remote: Remote, project: Project, commits: dict[str, str]) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", remote.url, tmp_path / "bare.git"], check=True)
    with open_upstream(str(tmp_path / "bare.git"), project=project) as upstream:
        assert upstream.resolve("v0.2.0") == released("v0.2.0", commits["v0.2.0"])
        assert upstream.fetch() is False


@pytest.mark.parametrize(
    ("where", "url"),
    [
        ("https://github.com/Comfy-Org/ComfyUI", True),
        ("file:///srv/comfy.git", True),
        ("git@github.com:Comfy-Org/ComfyUI.git", True),
        ("/srv/comfy.git", False),
        ("../comfy", False),
        ("ext::sh -c true", False),
        ("C:\\comfy", False),
    ],
)
def test_address_or_path(where: str, *, url: bool) -> None:
    assert is_url(where) is url


# the cached clone


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "clones").glob("*.git*"))


def test_remote_is_cloned_once_and_read_without_it(
    tmp_path: Path, remote: Remote, project: Project, commits: dict[str, str]
) -> None:
    with open_upstream(remote.url, project=project) as upstream:
        assert upstream.resolve("v0.2.0") == released("v0.2.0", commits["v0.2.0"])
    (name,) = cached(tmp_path)
    assert name.startswith("remote-")
    shutil.move(remote.path, tmp_path / "gone")
    with open_upstream(remote.url, project=project) as upstream:
        assert upstream.origin == remote.url
        assert upstream.tree(upstream.resolve("v0.1.0")).read("main.py") == b"v0.1.0"


def test_what_the_clone_lacks_is_fetched(
    tmp_path: Path, remote: Remote, project: Project, commits: dict[str, str]
) -> None:
    open_upstream(remote.url, project=project).close()
    commit = remote.release("v0.4.0")
    remote.git("tag", "v0.4.0")
    with open_upstream(remote.url, project=project) as upstream:
        assert upstream.resolve("v0.4.0") == released("v0.4.0", commit, indexed=False)
    newer = remote.release("v0.5.0")
    with open_upstream(remote.url, project=project) as upstream:
        assert upstream.resolve("master").commit == newer
    remote.release("v0.6.0")
    with open_upstream(
        remote.url, project=index(tmp_path, commits | {"v0.6.0": remote.git("rev-parse", "HEAD")})
    ) as up:
        assert up.resolve("v0.6.0").indexed


def test_fetch_on_demand_lists_new_tags_and_sees_moved_ones(remote: Remote, project: Project) -> None:
    open_upstream(remote.url, project=project).close()
    remote.git("tag", "v0.4.0", remote.release("v0.4.0"))
    remote.git("tag", "-f", "v0.1.0")
    with open_upstream(remote.url, project=project, fetch=True) as upstream:
        assert str(upstream.releases()[-1].version) == "v0.4.0"
        with pytest.raises(PatchforgeError, match="disagree"):
            upstream.resolve("v0.1.0")


def test_renamed_branches_do_not_block_a_fetch(remote: Remote, project: Project) -> None:
    remote.git("branch", "topic")
    open_upstream(remote.url, project=project).close()
    remote.git("branch", "-D", "topic")
    remote.git("branch", "topic/one")
    with open_upstream(remote.url, project=project, fetch=True) as upstream:
        assert upstream.resolve("topic/one")


def test_unreachable_remote_leaves_nothing_behind(tmp_path: Path, project: Project) -> None:
    with pytest.raises(PatchforgeError, match=r"git clone of file:///.* failed"):
        open_upstream((tmp_path / "nothing").as_uri(), project=project)
    assert cached(tmp_path) == []


def test_cache_that_cannot_be_written_says_so(tmp_path: Path, remote: Remote, project: Project) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(PatchforgeError, match="PATCHFORGE_CACHE"):
        open_upstream(remote.url, project=project)


def test_password_is_not_shown() -> None:
    assert CachedClone.of("https://someone:secret@example.invalid/x").origin == "https://*****:*****@example.invalid/x"


def test_what_git_says_of_its_progress_is_a_step(
    remote: Remote, project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[str, ...]] = []
    monkeypatch.setattr(progress, "step", lambda *said: steps.append(said))
    open_upstream(remote.url, project=project).close()
    assert steps[0][0].startswith(f"git clone of {remote.url}")
    assert any("objects" in detail for _, *details in steps for detail in details)
    assert steps[-1] == ("",)
    assert capfd.readouterr() == ("", "")


def test_hook_environment_does_not_mislead_clone_and_fetch(
    tmp_path: Path, remote: Remote, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Remote(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    open_upstream(remote.url, project=project).close()
    with open_upstream(remote.url, project=project, fetch=True) as upstream:
        assert upstream.resolve("v0.1.0")
    assert other.git("for-each-ref") == ""


OPEN = "import sys; from patchforge.git.clone import CachedClone; print(CachedClone.of(sys.argv[1]).ensure())"


def another_run(url: str, **environment: str) -> subprocess.Popen[str]:
    settings = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen([sys.executable, "-c", OPEN, url], stdout=subprocess.PIPE, text=True, env=settings)


def test_runs_at_the_same_time_make_one_clone(tmp_path: Path, remote: Remote, project: Project) -> None:
    runs = [another_run(remote.url) for _ in range(4)]
    said = sorted(run.communicate(timeout=60)[0].strip() for run in runs)
    assert said == ["False", "False", "False", "True"]
    assert [run.returncode for run in runs] == [0] * 4
    assert len(cached(tmp_path)) == 1


def test_killed_clone_is_cleared_away(tmp_path: Path, remote: Remote, project: Project) -> None:
    pid = tmp_path / "pid"
    slow = tmp_path / "slow" / "git"
    slow.parent.mkdir()
    real = shutil.which("git")
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = clone ] || exec {real} "$@"\n'
        f'for last; do :; done\nmkdir "$last"\ntouch "$last/half"\necho $$ > {pid}\nexec sleep 30\n'
    )
    slow.chmod(0o755)
    run = another_run(remote.url, PATH=f"{slow.parent}:{os.environ['PATH']}")
    deadline = time.monotonic() + 20
    while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.kill()
    run.communicate()
    try:
        (half,) = cached(tmp_path)
        assert ".partial-" in half
        with open_upstream(remote.url, project=project) as upstream:
            assert upstream.resolve("v0.1.0")
        assert [name.endswith(".git") for name in cached(tmp_path)] == [True]
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.mark.parametrize("lock", ["packed-refs.lock", "refs/heads/master.lock"])
def test_old_locks_of_a_killed_fetch_are_removed(remote: Remote, project: Project, lock: str) -> None:
    open_upstream(remote.url, project=project).close()
    left = CachedClone.of(remote.url).path / lock
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    os.utime(left, (time.time() - 60,) * 2)
    commit = remote.release("v0.4.0")
    with open_upstream(remote.url, project=project, fetch=True) as upstream:
        assert upstream.resolve("master").commit == commit


def test_young_lock_is_waited_for(remote: Remote, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clone_module, "STALE_LOCK", 0.5)
    open_upstream(remote.url, project=project).close()
    (CachedClone.of(remote.url).path / "packed-refs.lock").touch()
    began = time.monotonic()
    open_upstream(remote.url, project=project, fetch=True).close()
    assert time.monotonic() - began >= 0.4


def test_objects_half_received_are_removed_when_old(remote: Remote, project: Project) -> None:
    open_upstream(remote.url, project=project).close()
    objects = CachedClone.of(remote.url).path / "objects"
    old, young = objects / "pack" / "tmp_pack_old", objects / "pack" / "tmp_pack_young"
    folder = objects / "incoming-old"
    folder.mkdir()
    for path in (old, young):
        path.touch()
    for path in (old, folder):
        os.utime(path, (time.time() - 7200,) * 2)
    open_upstream(remote.url, project=project, fetch=True).close()
    assert (old.exists(), folder.exists(), young.exists()) == (False, False, True)


@pytest.mark.upstream
@pytest.mark.skipif(not WHERE, reason="PATCHFORGE_UPSTREAM names no clone")
def test_every_indexed_release_resolves_and_lists() -> None:
    with open_upstream(WHERE) as upstream:
        for release in release_index(upstream.project):
            assert upstream.resolve(str(release.version)) == release
            assert "main.py" in upstream.tree(release).entries()
