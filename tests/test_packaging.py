"""The lock fits pyproject.toml, and a wheel has everything that an installed patchforge needs."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from patchforge.project import root

PROJECT = tomllib.loads((root() / "pyproject.toml").read_text("utf-8"))
LOCKS = sorted(root().glob("requirements*.lock"))
TORCH = ("requirements-torch.lock", "requirements-torch-needs.lock")
#: extra → the locks that must have it; an extra that pins everything itself needs none
EXTRAS = {
    "proof": (
        "requirements.lock",
        "requirements-torch.lock",
        "requirements-torch-needs.lock",
        "requirements-proof.lock",
    ),
    "dev": ("requirements.lock",),
    "torch": ("requirements.lock", *TORCH),
    "bench": ("requirements.lock", "requirements-bench.lock"),
}
PARTS = ("patchforge", "transforms", "templates", "upstream", "pyproject.toml", "README.md", "LICENSE")
Run = Callable[..., subprocess.CompletedProcess[str]]
MINIATURE = root() / "tests" / "miniatures" / "v0.33.0"


def pins(*names: str) -> dict[str, Version]:
    """Canonical name → version."""
    found: dict[str, Version] = {}
    for name in names:
        for line in (root() / name).read_text("utf-8").splitlines():
            if line and not line.startswith(("#", "    --hash=")):
                requirement, _, number = line.removesuffix(" \\").partition("==")
                found[canonicalize_name(requirement)] = Version(number)
    return found


def unsatisfied(requirements: list[str], locked: dict[str, Version]) -> list[str]:
    """The requirements that no pin satisfies."""
    wanted = [Requirement(text) for text in requirements]
    return [
        str(one)
        for one in wanted
        if (number := locked.get(canonicalize_name(one.name))) is None or number not in one.specifier
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_exact_sorted_unique_pins(lock: Path) -> None:
    groups = [group.splitlines() for group in lock.read_text("utf-8").split("\n\n")]
    names = []
    for group in groups:
        entries = [line for line in group if not line.startswith(("#", "    --hash="))]
        assert all(re.fullmatch(r"[\w.-]+==[\d.]+( \\)?", line) for line in entries)
        ordered = [canonicalize_name(line.partition("==")[0]) for line in entries]
        assert ordered == sorted(ordered)
        names += ordered
    assert len(names) == len(set(names))


def test_what_runs_and_builds_is_locked() -> None:
    locked = pins("requirements.lock")
    assert unsatisfied(PROJECT["project"]["dependencies"], locked) == []
    assert unsatisfied(PROJECT["build-system"]["requires"], locked) == []


@pytest.mark.parametrize("extra", sorted(PROJECT["project"]["optional-dependencies"]))
def test_every_extra_is_locked(extra: str) -> None:
    requirements = PROJECT["project"]["optional-dependencies"][extra]
    if extra in EXTRAS:
        assert unsatisfied(requirements, pins(*EXTRAS[extra])) == []
    else:
        assert all(re.search(r"==[\d.]+$", text) for text in requirements), "neither locked nor exact"


def test_locks_agree_with_one_another() -> None:
    known: dict[str, Version] = {}
    for lock in LOCKS:
        for name, number in pins(lock.name).items():
            assert known.setdefault(name, number) == number, name


def built_with() -> list[str]:
    """How pip is to build: with the setuptools that is here if it is the pinned one, else with one that pip fetches."""
    pinned = pins("requirements.lock")["setuptools"]
    here = importlib.util.find_spec("setuptools") and Version(version("setuptools")) == pinned
    return ["--no-build-isolation"] if here else []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy so that nothing is left in the working tree."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (root() / part).is_dir():
            shutil.copytree(root() / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root() / part, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", *built_with(), "--wheel-dir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("patchforge-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the wheel's patchforge, as unpacked by pip, from a folder that has nothing of ours."""
    site, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "PATCHFORGE_CACHE": str(work / "cache"), "NO_COLOR": "1"}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)

    where = run("-c", "import patchforge; print(patchforge.__file__)").stdout.strip()
    assert Path(where).is_relative_to(site)
    return run


def test_the_wheel_has_code_templates_and_upstream_data(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(root()).as_posix()
        for top in ("patchforge", "transforms", "templates", "upstream")
        for path in (root() / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == expected


def test_the_wheel_has_the_licence_and_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "patchforge = patchforge.cli:main" in archive.read(entry).decode()


def test_an_installed_patchforge_explains(installed: Run) -> None:
    assert "apply" in installed("-m", "patchforge", "--help").stdout
    explained = installed("-m", "patchforge", "explain", "T01")
    assert explained.returncode == 0, explained.stderr
    assert "## T01" in explained.stdout


def test_an_installed_patchforge_converts(installed: Run, tmp_path: Path) -> None:
    done = installed("-m", "patchforge", "apply", "--from", MINIATURE, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"series", "manifest.json", "REPORT.md", "0001-device-support.patch"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
