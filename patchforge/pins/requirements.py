"""Python requirements: one spelling for each, which of a stranger's are taken, which hold on x86_64 Linux."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from patchforge import escape, faults
from patchforge.errors import Damaged, PatchforgeError

_SHOWN = 200  #: characters of a requirement that an error shows
_LINUX = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}
_COMMENT = re.compile(r"(?:^|\s)#")
_OPTION = re.compile(r"(?:^|\s)-")
#: pip takes such a name for a file in the folder that it is run in.
_ARCHIVE = re.compile(r"\.(?:whl|zip|egg|tgz|tbz|txz|tlz|tar(?:\.\w+)?)$", re.IGNORECASE)
_LONGEST_FILE, _LONGEST_LINE = 1 << 20, 1000


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that pip is not to see, and why."""

    line: str
    why: str

    def __str__(self) -> str:
        return f"{escape.line(self.line)[:200]}: {self.why}"


def parse(text: str) -> Requirement:
    """With its name normalised (PEP 503). PatchforgeError when it is none."""
    try:
        requirement = Requirement(text)
    except (ValueError, RecursionError) as error:
        raise PatchforgeError(
            f"{text[:_SHOWN]!r} is not a Python requirement",
            expected="such as av>=16.0.0 (PEP 508)",
            found=type(error).__name__ if len(text) > _SHOWN else escape.seen(str(error)),
            do="correct it, or tell its authors",
        ) from error
    requirement.name = canonicalize_name(requirement.name)
    return requirement


def read(data: bytes, where: str) -> tuple[list[str], list[Refused]]:
    """A stranger's requirements.txt: requirements as they are spelt there, sorted, each once; and what is refused.

    A line may name a package, versions, extras and markers, and nothing else. ``where`` says in errors what was read.
    """
    if len(data) > _LONGEST_FILE:
        raise Damaged(
            f"{where} is too long",
            expected=f"at most {_LONGEST_FILE} bytes",
            found=f"{len(data)} bytes",
            do="name another file",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Damaged(f"{where} is not UTF-8 text", found=faults.reason(error), do="save it as UTF-8") from None
    lines = {_COMMENT.split(line)[0].strip() for line in text.splitlines()} - {""}
    taken, refused = set[str](), list[Refused]()
    for line in sorted(lines):
        if why := _why_refused(line):
            refused.append(Refused(line, why))
        else:
            taken.add(str(Requirement(line)))
    return sorted(taken), refused


def of_stranger(data: bytes, where: str) -> list[str]:
    """The requirements that :func:`read` takes; Damaged, naming the lines, when it refuses any."""
    taken, refused = read(data, where)
    if refused:
        raise Damaged(
            f"{where} asks pip for more than packages by name",
            expected="names, versions, extras and markers only (PEP 508)",
            found="\n".join(map(str, refused[:8])),
            do="install what is needed yourself, after a look at it, and name that interpreter: "
            "--python PYTHON --no-venv",
        )
    return taken


def _why_refused(line: str) -> str:
    if len(line) > _LONGEST_LINE:
        return f"is longer than {_LONGEST_LINE} characters"
    if line.endswith("\\"):
        return "goes on in the next line"
    if "${" in line:
        return "names a variable of the environment"
    if _OPTION.search(line):
        return "is, or has, an option for pip"
    try:
        requirement = Requirement(line)
    except (ValueError, RecursionError):
        return "is not the name of a package with versions; addresses and paths are not taken"
    if requirement.url:
        return "names an address instead of versions"
    return "is the name of a file" if _ARCHIVE.search(requirement.name) else ""


def of_file(text: str, where: str = "requirements.txt") -> list[str]:
    """The requirements in a stranger's requirements.txt, normalised, sorted, each once. Damaged for anything else."""
    return sorted({str(parse(line)) for line in of_stranger(text.encode("utf-8", "surrogateescape"), where)})


def holding(requires: Iterable[str], python: str) -> list[Requirement]:
    """Those that hold for a Python such as ``3.13``, without any extra; their markers are left off."""
    environment = {**_LINUX, "python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    requirements_of = [parse(text) for text in requires]
    kept = [requirement for requirement in requirements_of if _holds(requirement, environment)]
    for requirement in kept:
        requirement.marker = None
    return sorted(kept, key=str)


def _holds(requirement: Requirement, environment: dict[str, str]) -> bool:
    try:
        return requirement.marker is None or requirement.marker.evaluate(environment)
    except (ValueError, LookupError, RecursionError) as error:
        raise PatchforgeError(
            f"it cannot be known whether {requirement.name} is needed",
            found=type(error).__name__,
            do="correct its marker, or tell its authors",
        ) from error


def is_exact(requirement: Requirement) -> bool:
    """Whether it names one version (``==1.2``, not ``==1.*``)."""
    return any(clause.operator == "==" and not clause.version.endswith(".*") for clause in requirement.specifier)
