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

from patchforge import faults
from patchforge.cli import COMMANDS, main
from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = sorted(ROOT.glob("requirements*.lock"))
TORCH = ("requirements-torch.lock", "requirements-torch-needs.lock")
#: extra → the locks that must have it; an extra that pins everything itself needs none
EXTRAS = {
    "arbiter": ("requirements.lock",),
    "bot": ("requirements.lock",),
    "test": ("requirements.lock",),
    "proof": (
        "requirements.lock",
        "requirements-torch.lock",
        "requirements-torch-needs.lock",
        "requirements-proof.lock",
    ),
    "dev": ("requirements.lock",),
    "torch": ("requirements.lock", *TORCH),
    "operate": ("requirements.lock", "requirements-torch-needs.lock"),
    "benchmark": ("requirements-benchmark.lock", "requirements-torch-needs.lock"),
    "speed": ("requirements.lock", "requirements-speed.lock"),
}
PARTS = ("patchforge", "transforms", "templates", "upstream", "pyproject.toml", "README.md", "LICENSE")
Run = Callable[..., subprocess.CompletedProcess[str]]
MINIATURE = ROOT / "tests" / "miniatures" / "v0.33.0"


def pins(*names: str) -> dict[str, Version]:
    """Canonical name → version."""
    by_name: dict[str, Version] = {}
    for name in names:
        for line in (ROOT / name).read_text("utf-8").splitlines():
            if line and not line.startswith(("#", "    --hash=")):
                requirement, _, number = line.removesuffix(" \\").partition("==")
                by_name[canonicalize_name(requirement)] = Version(number)
    return by_name


def unsatisfied(requirements: list[str], locked: dict[str, Version]) -> list[str]:
    """The requirements that no pin satisfies."""
    wanted = [Requirement(text) for text in requirements]
    return [
        str(requirement)
        for requirement in wanted
        if (number := locked.get(canonicalize_name(requirement.name))) is None or number not in requirement.specifier
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_exact_sorted_unique_pins(lock: Path) -> None:
    groups = [group.splitlines() for group in lock.read_text("utf-8").split("\n\n")]
    names = []
    for group in groups:
        entries = [line for line in group if not line.startswith(("#", "    --hash="))]
        assert all(re.fullmatch(r"[\w.-]+==[\d.!]+( \\)?", line) for line in entries)
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
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", *built_with(), "--wheel-dir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("comfyui_patchforge-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the wheel's patchforge, as unpacked by pip, from a folder that has nothing of ours."""
    site, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "PATCHFORGE_CACHE": str(work / "cache"), "NO_COLOR": "1"}

    def run(*arguments: str | Path, cwd: Path = work) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    where = run("-c", "import patchforge; print(patchforge.__file__)").stdout.strip()
    assert Path(where).is_relative_to(site)
    return run


def test_the_wheel_has_code_templates_and_upstream_data(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in inside} == {"patchforge"}
    expected = {
        (Path() if top == "patchforge" else Path("patchforge")).joinpath(path.relative_to(ROOT)).as_posix()
        for top in ("patchforge", "transforms", "templates", "upstream")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == expected


def test_the_wheel_has_the_licence_and_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "patchforge = patchforge.cli:main" in archive.read(entry).decode()


def test_every_package_is_installed() -> None:
    """The same as of the wheel, without building one."""
    rooms = {"patchforge": Path(), "transforms": Path("patchforge")}
    python = {
        above / path.parent.relative_to(ROOT) for top, above in rooms.items() for path in (ROOT / top).rglob("*.py")
    }
    listed = {Path(*name.split(".")) for name in PROJECT["tool"]["setuptools"]["packages"]}
    assert listed == python | {Path("patchforge", room) for room in ("templates", "upstream")}


def test_an_installed_patchforge_explains(installed: Run) -> None:
    assert "apply" in installed("-m", "patchforge", "--help").stdout
    explained = installed("-m", "patchforge", "explain", "free-memory")
    assert explained.returncode == 0, explained.stderr
    assert "## free-memory" in explained.stdout


def test_an_installed_patchforge_converts(installed: Run, tmp_path: Path) -> None:
    done = installed("-m", "patchforge", "apply", "--from", MINIATURE, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"series", "manifest.json", "REPORT.md", "0001-device-support.patch"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def strangers(folder: Path) -> Path:
    """A folder with files that are called as our rooms are."""
    for name in ("transforms.py", "templates/reports/release.md.j2", "upstream/comfyui.toml", "patchforge_xpu.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise SystemExit('a stranger')\n")
    return folder


#: Imports the module of every command, and fills in what each takes; prints what of it came from the working folder.
EVERY_COMMAND = """
import importlib, os, pkgutil, sys
import patchforge.commands, patchforge.cli
for module in pkgutil.walk_packages(patchforge.commands.__path__, "patchforge.commands."):
    importlib.import_module(module.name)
patchforge.cli.parser().fill_all()
files = {name: getattr(module, "__file__", "") or "" for name, module in sys.modules.items()}
print(*(name for name, file in files.items() if file.startswith(os.getcwd())))
print(sum(name.startswith("patchforge.commands.") for name in sys.modules))
"""


def imports_of_ours_alone(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, done.stderr
    theirs, commands = done.stdout.splitlines()
    return theirs == "" and int(commands) >= len(COMMANDS)


@pytest.mark.parametrize("folder", ["empty", "a stranger's"])
def test_every_command_is_found_wherever_it_is_called(folder: str, installed: Run, tmp_path: Path) -> None:
    assert imports_of_ours_alone(
        installed("-c", EVERY_COMMAND, cwd=strangers(tmp_path) if folder != "empty" else tmp_path)
    )


def test_a_folder_of_a_stranger_changes_nothing(installed: Run, tmp_path: Path) -> None:
    at = strangers(tmp_path / "work")
    done = installed("-m", "patchforge", "apply", "--from", MINIATURE, "--out", tmp_path / "out", cwd=at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed("-m", "patchforge", "status", cwd=at).returncode == 0


def test_a_package_in_a_zip_file_works(wheel: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(wheel), "PATCHFORGE_CACHE": str(tmp_path / "cache")}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "patchforge", *map(str, arguments)]
        at = strangers(tmp_path / "work")
        return subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True, check=False)

    from_zip, unpacked = tmp_path / "zip", tmp_path / "folder"
    done = run("apply", "--from", MINIATURE, "--out", from_zip)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "## free-memory" in run("explain", "free-memory").stdout
    assert run("doctor").returncode in (0, 1, 69)
    every = subprocess.run(
        [sys.executable, "-c", EVERY_COMMAND],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert imports_of_ours_alone(every)
    assert main(["apply", "--from", str(MINIATURE), "--out", str(unpacked)]) == 0
    assert {path.name: path.read_bytes() for path in from_zip.iterdir()} == {
        path.name: path.read_bytes() for path in unpacked.iterdir()
    }


def test_what_only_some_commands_need_is_named_with_its_extra() -> None:
    error = faults.told(ModuleNotFoundError("no", name="websockets"))
    assert 'pip install ".[test]"' in str(error)
