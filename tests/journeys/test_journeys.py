"""The first hour, each way that people take: from an empty home to a patched ComfyUI and back, as it is printed.

A transcript that is wrong is mended by hand: read the new text aloud first.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from patchforge.cli import main
from tests.checkout.places import NEW, OLD, fill
from tests.journeys.transcript import HERE, Run, played
from tests.support import miniature
from tests.systems.test_without_posix import run as run_without_posix
from tests.test_packaging import wheel as wheel  # noqa: PLC0414 - a fixture


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which everything is typed."""
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    return place


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Run:
    """Patchforge in this process."""

    def run(words: Sequence[str]) -> tuple[int, str]:
        status = main(words)
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def same(name: str, home: Path, run: Run) -> None:
    kept, made = played(name, home, run)
    assert made == kept, "\n".join(["", *made])


def content(folder: Path) -> Mapping[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


def repository(folder: Path, *releases: str) -> Path:
    """A clone of ComfyUI with these releases as commits and tags, on the first of them."""
    person = {f"GIT_{role}_{key}": "a@b" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00:00Z")
    env = {**os.environ, **person, **dates, "GIT_CONFIG_GLOBAL": os.devnull}

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(folder), *words], env=env, check=True, capture_output=True)

    folder.mkdir()
    git("init", "--quiet", "--initial-branch", "master")
    for release in releases:
        for path in content(folder):
            (folder / path).unlink()
        fill(folder, miniature(release))
        git("add", "--all")
        git("commit", "--quiet", "--message", release)
        git("tag", release)
    git("checkout", "--quiet", releases[0])
    return folder


def tarball(file: Path, files: Mapping[str, bytes], top: str) -> None:
    """As GitHub makes one."""
    with tarfile.open(file, "w:gz") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def zipped(file: Path, files: Mapping[str, bytes], top: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in files.items():
            archive.writestr(f"{top}/{path}", data)


def test_a_clone_on_linux(home: Path, here: Run) -> None:
    repository(home / "ComfyUI", NEW)
    before = content(home / "ComfyUI")
    same("linux-clone", home, here)
    assert content(home / "ComfyUI") == before


def test_an_update_of_comfyui_over_a_patched_tree(home: Path, here: Run) -> None:
    repository(home / "ComfyUI", OLD, NEW)
    fill(home / "new", miniature(NEW))
    same("update", home, here)
    assert content(home / "ComfyUI").items() >= miniature(NEW).items()


def test_a_tarball(home: Path, here: Run) -> None:
    tarball(home / "ComfyUI-0.33.0.tar.gz", miniature(NEW), "ComfyUI-0.33.0")
    same("tarball", home, here)


def test_a_zip(home: Path, here: Run) -> None:
    zipped(home / "ComfyUI-0.33.0.zip", miniature(NEW), "ComfyUI-0.33.0")
    same("zip", home, here)


def test_a_folder(home: Path, here: Run) -> None:
    fill(home / "My ComfyUI", miniature(NEW))
    before = content(home / "My ComfyUI")
    same("folder", home, here)
    assert content(home / "My ComfyUI") == before


def test_the_portable_build_on_windows(home: Path) -> None:
    """Simulated: Python without POSIX, no git and no GNU patch."""
    fill(home / "ComfyUI", miniature(NEW))
    fill(home, {"python_embeded/python.exe": b"", "run_cpu.bat": b"", "run_intel_gpu.bat": b""})
    before = content(home / "ComfyUI")

    def run(words: Sequence[str]) -> tuple[int, str]:
        ((status, out, err),) = run_without_posix([words], home)
        return status, out + err

    same("windows-portable", home, run)
    assert content(home / "ComfyUI") == before


def test_a_wheel_in_a_fresh_environment(home: Path, wheel: Path) -> None:
    """Without an index: what patchforge requires is taken from where these tests have it."""
    fill(home / "ComfyUI", miniature(NEW))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    python = home / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    (site,) = (home / "venv/lib").glob("python*/site-packages")
    (site / "at-hand.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    env = {"PATH": f"{python.parent}:{os.defpath}", "HOME": str(home)}

    def run(words: Sequence[str]) -> tuple[int, str]:
        command = [str(python.parent / "patchforge"), *words]
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    same("linux-wheel", home, run)


def test_every_transcript_is_played() -> None:
    played_here = Path(__file__).read_text("utf-8")
    assert all(f'same("{transcript.stem}"' in played_here for transcript in HERE.glob("*.txt"))
