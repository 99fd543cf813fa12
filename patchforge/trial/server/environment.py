"""An interpreter for a release: everything its requirements name, beside the torch that is to be tested.

A prepared environment is a virtual environment in the cache folder that sees the base interpreter's packages through a
``.pth`` file. torch and what is built for one torch are never installed or upgraded; a constraints file pins torch.

The requirements are a stranger's. pip sees names and versions only, asks the index that the user set, and takes wheels,
which run no code while they are installed, unless building is allowed. What is installed runs when the release does.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from patchforge import bounded, caches, documents, interpreters, processes
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.pins import requirements as door

Tell = Callable[[str], None]

COMPANIONS = ("comfyui-frontend-package", "comfyui-workflow-templates", "comfyui-embedded-docs")
TORCH_COMPANIONS = ("torchvision", "torchaudio")
_MARKER = "patchforge-environment.json"
_LEFT_ALONE = re.compile(r"(pytorch-)?triton(-.+)?|torch|torchvision|torchaudio|intel-extension-for-pytorch")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TO_BLAME = (
    re.compile(r"No matching distribution found for (.+)"),
    re.compile(r"Cannot install (?!-r )(.+?) because"),
    re.compile(r"^ +(\S+ \S+) depends on "),
    re.compile(r"Failed building wheel for (\S+)"),
    re.compile(r"Invalid requirement: (.+)"),
    re.compile(r"Failed to build '?([^\s']+)"),
)
_LAST_LINES = 15
_OWN_PIP = importlib.util.find_spec("pip") is not None
_LOOK = """
import importlib.metadata, importlib.util, json, os, sys
names = {}
for found in importlib.metadata.distributions():
    if found.metadata["Name"]:
        names.setdefault(found.metadata["Name"], found.version)
folders = [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages") and os.path.isdir(p)]
torch = importlib.util.find_spec("torch") is not None
print(json.dumps({"python": sys.version, "packages": names, "folders": folders, "torch": torch}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter and what it sees: version by normalised name.

    ``left_alone`` are those of torch and its kin, which came with the interpreter. ``left_out`` are requirements of the
    release that were not installed on purpose.
    """

    python: Path
    packages: Mapping[str, str] = field(repr=False)
    left_alone: Mapping[str, str]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Base:
    python: Path
    version: str
    packages: Mapping[str, str]
    folders: tuple[str, ...]

    @property
    def left_alone(self) -> dict[str, str]:
        return {name: version for name, version in self.packages.items() if _LEFT_ALONE.fullmatch(name)}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What an environment is made of; the same plan gives the same folder."""

    base: _Base
    wanted: tuple[str, ...]  #: lines for pip
    left_out: tuple[str, ...]
    companions: tuple[str, ...]
    building: bool

    @property
    def key(self) -> str:
        base = [str(self.base.python), self.base.version, self.base.left_alone]
        parts = [2, base, self.wanted, bool(self.left_out), self.companions, self.building]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def existing(python: Path) -> Environment:
    """An interpreter as it is. PatchforgeError if it does not run, NotChecked if it has no torch."""
    base = _examine(python)
    return Environment(base.python, base.packages, base.left_alone)


def prepare(
    requirements: bytes,
    base: Path,
    cache: Path,
    *,
    tell: Tell,
    timeout: float,
    lean: bool = False,
    torch_companions: bool = False,
    building: bool = False,
) -> Environment:
    """The environment of a release's ``requirements.txt`` beside the torch of the interpreter ``base``.

    It is made in ``cache`` once, in ``timeout`` seconds at most, and found there again. ``lean`` leaves out the pure
    data that a test does not read (:data:`COMPANIONS`). ``torch_companions`` installs torchvision and torchaudio
    where base has none, without what they need and without torchaudio's libraries: enough to import them, not to use
    them, in a process of the emulated XPU with the option ``torchvision=schemas`` (also for ``--cpu``).
    ``building``: pip may build what has no wheel, which runs its code. PatchforgeError names a requirement that is
    refused, NotChecked one that cannot be installed.
    """
    import filelock  # noqa: PLC0415 - keeps start-up light

    seen = _examine(base)
    lines = door.of_stranger(requirements, "requirements.txt")
    wanted, left_out = _wanted(lines, lean=lean)
    missing = [name for name in TORCH_COMPANIONS if name in map(_name, lines) and name not in seen.packages]
    if missing and not torch_companions:
        raise NotChecked(
            f"{base} has no {' and no '.join(missing)}",
            expected=f"what the release requires, built for torch {seen.packages['torch']}",
            do=f"install {' and '.join(missing)} there, from where its torch came from",
        )
    plan = _Plan(seen, wanted, left_out, tuple(missing), building)
    folder = cache / "environments" / plan.key
    caches.within(cache, "environments")
    caches.entry(folder)
    deadline = time.monotonic() + timeout
    try:
        with filelock.FileLock(caches.file(folder.with_suffix(".lock")), timeout=timeout):
            if not (folder / _MARKER).is_file():
                _make(folder, plan, _Pip(folder, tell, deadline, timeout, building))
            packages = documents.read_json(folder / _MARKER, dict[str, str], do=f"remove {folder}; it is made again")
    except filelock.Timeout:
        raise NotChecked(
            f"another process is preparing {folder}", expected=f"an end within {timeout:g} s", do="wait, or end it"
        ) from None
    return Environment(_python(folder), packages, seen.left_alone, left_out)


def _examine(python: Path) -> _Base:
    """What an interpreter has; it is not resolved, since a virtual environment's is a link."""
    interpreters.need(python, torch=True)
    python = python.absolute()
    ran = processes.run([python, "-c", _LOOK], capture_output=True, text=True, timeout=60, check=True, cwd="/")
    told = json.loads(ran.stdout.splitlines()[-1])
    packages: dict[str, str] = {canonicalize_name(name): version for name, version in sorted(told["packages"].items())}
    if not told["torch"] or "torch" not in packages:
        raise NotChecked(
            f"{python} has no torch", expected="the torch that is to be tested", do="install it, or name another"
        )
    return _Base(python, told["python"], packages, tuple(told["folders"]))


def _name(line: str) -> str:
    name = _NAME.match(line)
    return canonicalize_name(name[0]) if name else ""


def _wanted(lines: Sequence[str], *, lean: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What pip is to install, and what is left out."""
    kept = [line for line in lines if not _LEFT_ALONE.fullmatch(_name(line))]
    left_out = tuple(line for line in kept if lean and _name(line) in COMPANIONS)
    return tuple(line for line in kept if line not in left_out), left_out


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


@dataclass
class _Pip:
    """Runs what makes an environment, tells of progress, and keeps to the time limit."""

    folder: Path
    tell: Tell
    deadline: float
    timeout: float
    building: bool

    def make_folder(self, base: Path) -> None:
        self._run([base, "-m", "venv", *(["--without-pip"] if _OWN_PIP else []), self.folder])

    def install(self, *arguments: str) -> None:
        """With the pip that patchforge has, if it has one: to install another takes longer than most requirements.

        pip alone gets the addresses of the user's index. No code of a package runs in it, unless it builds.
        """
        python = str(_python(self.folder))
        pip = [sys.executable, "-m", "pip", "--python", python] if _OWN_PIP else [python, "-m", "pip"]
        wheels = [] if self.building else ["--only-binary", ":all:"]
        options = ["--no-input", "--disable-pip-version-check", "--no-warn-conflicts", *wheels]
        self._run([*pip, "install", *options, *arguments], self._variables())

    def _variables(self) -> dict[str, str]:
        variables = processes.environment(allow=processes.PIP, passwords=True)
        hidden = processes.environment(allow=processes.PIP)
        if self.building and variables != hidden:
            raise PatchforgeError(
                "code that pip builds could read a password",
                expected="no password in the addresses of the index and the proxy while packages are built",
                found=", ".join(sorted(variables.keys() - hidden.keys())),
                do="leave --allow-building out, or make wheels of what has none",
            )
        return variables

    def _run(self, command: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> None:
        """Runs a command to its end; NotChecked with its last lines if it fails or takes too long."""
        last: deque[str] = deque(maxlen=_LAST_LINES)
        blamed = ""
        with _running(command, self.deadline, self.folder.parent, variables) as (process, expired):
            for line in bounded.lines(process.stdout) if process.stdout else ():
                last.append(line.rstrip())
                blamed = blamed or next((m[1].strip() for pattern in _TO_BLAME if (m := pattern.search(line))), "")
                if line.startswith(("Collecting ", "Building wheel", "Installing collected")):
                    self.tell(line.partition(" (from ")[0].strip()[:100])
        if expired.is_set():
            raise NotChecked(
                "preparing the environment took too long",
                expected=f"an end within {self.timeout:g} s",
                found="\n".join(last),
                do="allow more time, or look at the network",
            )
        if process.returncode:
            raise NotChecked(
                f"cannot install {blamed}" if blamed else f"{' '.join(map(str, command[:4]))} failed",
                expected="every requirement of the release",
                found="\n".join(last),
                do="make a wheel of it available to pip, name an interpreter that has it, "
                "or let pip build it, which runs its code: --allow-building",
            )


@contextlib.contextmanager
def _running(
    command: Sequence[str | Path], deadline: float, cwd: Path, variables: Mapping[str, str] | None
) -> Iterator[tuple[processes.Popen[str], threading.Event]]:
    """A process group of its own, killed at the deadline (the event is set then) and when the block is left.

    It runs in ``cwd``, so that no module of another folder is taken for pip.
    """
    expired = threading.Event()
    process = processes.start(
        command,
        cwd=cwd,
        stdout=processes.PIPE,
        stderr=processes.STDOUT,
        text=True,
        errors="replace",
        env=variables,
        start_new_session=True,
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def expire() -> None:
        expired.set()
        kill()

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), expire)
    timer.start()
    try:
        yield process, expired
        process.wait()
    finally:
        timer.cancel()
        kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _make(folder: Path, plan: _Plan, pip: _Pip) -> None:
    """Makes the environment in its place, as it cannot be moved; a marker, written last, says that it is whole."""
    shutil.rmtree(folder, ignore_errors=True)
    alone = plan.base.left_alone
    pip.tell(f"preparing an environment beside torch {alone['torch']}")
    if plan.wanted or plan.companions:
        pip.tell(_says(plan))
    pip.make_folder(plan.base.python)
    (site,) = folder.glob("lib/python*/site-packages")
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in plan.base.folders)
    (site / "patchforge-base.pth").write_text(lines)
    if plan.companions:
        pip.install("--no-deps", *plan.companions)
        for library in (site / "torchaudio").rglob("*.so"):
            library.unlink()
    constraints, requirements = folder / "constraints.txt", folder / "requirements.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(alone.items())))
    requirements.write_text("".join(f"{line}\n" for line in plan.wanted))
    pip.install("--constraint", str(constraints), "--requirement", str(requirements))
    if plan.left_out:
        _stand_in(site)
    packages = _examine(_python(folder)).packages
    if changed := [name for name, version in alone.items() if packages.get(name) != version]:
        raise NotChecked(f"pip changed {', '.join(changed)}", expected=str(alone), do="report it")
    fresh = folder / f"{_MARKER}.new"
    fresh.write_text(json.dumps(packages, indent=1))
    fresh.replace(folder / _MARKER)


def _says(plan: _Plan) -> str:
    count = len(plan.wanted) + len(plan.companions)
    if plan.building:
        return f"installing {count} requirements with what they need: building them RUNS THEIR CODE, now"
    return f"installing {count} requirements with what they need, wheels only: their code runs when the release does"


def _stand_in(site: Path) -> None:
    """A front end of one empty page: releases from v0.3.19 on do not start where the package cannot be imported."""
    static = site / "comfyui_frontend_package" / "static"
    static.mkdir(parents=True)
    (static.parent / "__init__.py").touch()
    (static / "index.html").write_text("<!doctype html><title>no front end</title>\n")
