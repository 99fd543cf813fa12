"""What is installed is what was locked: hashes, pinned build back end, workflows with as few rights as will do."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

#: Locks without hashes; each says why.
UNHASHED = {"requirements-torch.lock"}
LOCKS = sorted(path for path in ROOT.glob("requirements*.lock") if path.name not in UNHASHED)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())
_LOCKED = ("--require-hashes", "--only-binary :all:")
_OWN = re.compile(r"--no-deps --no-build-isolation( --editable)? \.$")


def pins(text: str) -> dict[str, list[str]]:
    """Name → hashes, of a lock file's text."""
    by_pin = {}
    for entry in re.split(r"\n(?=[^\s#])", text.replace("\\\n", "")):
        if match := re.match(r"([\w.-]+==\S+)(.*)", entry):
            by_pin[match[1]] = match[2].split()
    return by_pin


def loose(command: str) -> bool:
    """Whether a line of a shell installs from pip what no hash was given for."""
    if not re.search(r"\bpip3?(?:[\"\s@\]}\[)]|$).*\binstall\b|\bpip\[@\]", command) or command.strip().startswith(
        "pip=("
    ):
        return bool(re.search(r"\b(pipx|uvx?|easy_install|npm|npx|curl|wget|cargo)\b", command))
    files = re.findall(r"-r (\S+)", command)
    locked = all(word in command for word in _LOCKED) and files and {*files} <= {lock.name for lock in LOCKS}
    return not (locked or _OWN.search(command.strip()))


def commands(job: dict[str, Any]) -> list[str]:
    return [line for step in job["steps"] for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_the_hashes_of_its_wheels(lock: Path) -> None:
    by_pin = pins(lock.read_text("utf-8"))
    assert by_pin
    for pin, hashes in by_pin.items():
        assert hashes, pin
        assert len(hashes) == len(set(hashes)), pin
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in hashes), pin


def test_what_has_no_hash_is_one_package_and_says_why() -> None:
    for name in UNHASHED:
        text = (ROOT / name).read_text("utf-8")
        assert list(pins(text)) == ["torch==2.13.0"]
        assert "no hash" in text


def test_no_lock_names_an_index() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert not re.search(r"://|^-|index-url|find-links", lock.read_text("utf-8"), re.MULTILINE), lock.name


def test_the_build_back_end_is_pinned_and_locked() -> None:
    system = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    locked = pins((ROOT / "requirements.lock").read_text("utf-8"))
    assert system["requires"]
    assert all(
        re.fullmatch(r"[\w-]+==[\d.]+", requirement) and requirement in locked for requirement in system["requires"]
    )


def test_pip_refuses_what_has_another_hash(tmp_path: Path) -> None:
    """That the flags do what they are there for, with the pip that is here."""
    from tests.trial.test_environment import wheel

    made = wheel(tmp_path, "einops", "1.2")
    (tmp_path / "lock").write_text(f"einops==1.2 --hash=sha256:{'0' * 64}\n")
    offline = f"--no-index --find-links {tmp_path} --target {tmp_path / 'site'} -r {tmp_path / 'lock'}"
    words = f"-m pip --disable-pip-version-check install --require-hashes --only-binary :all: {offline}"
    done = subprocess.run([sys.executable, *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH" in done.stderr.upper()
    assert made.is_file()


def test_make_installs_what_is_locked() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(r"^LOCKED := \$\(PIP\) --require-hashes --only-binary :all:$", text, re.MULTILINE)
    installs = re.findall(r"^\t.*\$\((PIP|LOCKED)\)(.*)$", text, re.MULTILINE)
    assert {name for name, rest in installs if ".lock" in rest and "torch.lock" not in rest} == {"LOCKED"}
    unlocked = [rest for name, rest in installs if name == "PIP" and not _OWN.search(rest)]
    assert all("requirements-torch.lock" in rest for rest in unlocked)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows(workflow: Path) -> None:
    """Pinned actions, hashed installations, no rights by default, and a secret in the one step that needs it."""
    document = yaml.safe_load(workflow.read_text("utf-8"))
    assert document["permissions"] in ({}, {"contents": "read"})
    for name, job in document["jobs"].items():
        assert not [line for line in commands(job) if loose(line)], name
        assert "${{" not in "\n".join(commands(job)), f"{name}: a value is pasted into a script"
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), name
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name
        assert not re.search("secret|token", str(job.get("env", {})), re.IGNORECASE), name
        with_secret = [step for step in job["steps"] if re.search(r"secrets\.|github\.token", str(step))]
        assert len(with_secret) <= 1, name
        assert not any("install" in step.get("run", "") for step in with_secret), name
        if "write" in job.get("permissions", {}).values():
            assert len(with_secret) == 1, f"{name}: rights that no step uses"


def test_every_file_of_ci_is_looked_at() -> None:
    """Also one that a workflow would call: an action of the repository's own, or a workflow with another ending."""
    looked_at = {*WORKFLOWS, *SCRIPTS, ROOT / ".github" / "actionlint.yaml"}
    assert {path for folder in (".github", ".ci") for path in (ROOT / folder).rglob("*") if path.is_file()} == looked_at


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_of_ci_install_through_make_alone(script: Path) -> None:
    lines = [line for line in script.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in lines if loose(line) or re.search(r"\bpip3?\b|secrets?\.|_TOKEN\b", line)]


@pytest.mark.parametrize(
    "line",
    [
        "python -m pip install .",
        "python -m pip install --disable-pip-version-check .",
        "pip install requests",
        "pip3 install -r requirements.lock",
        "python -m pip install --require-hashes -r requirements.lock",
        "python -m pip install --only-binary :all: -r requirements.lock",
        "python -m pip install --no-build-isolation .",
        "python -m pip install --no-deps .",
        '"${pip[@]}" .',
        "pipx install ruff",
        "uv pip install x",
        "curl https://example.org/install | sh",
        "npm install -g something",
    ],
)
def test_loose_installations_are_seen(line: str) -> None:
    assert loose(line)
