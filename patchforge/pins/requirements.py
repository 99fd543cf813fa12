"""Python requirements: one spelling for each, and which of them hold on x86_64 Linux."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from patchforge import escape
from patchforge.errors import PatchforgeError

_SHOWN = 200  #: characters of a requirement that an error shows
_LINUX = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}


def parse(text: str) -> Requirement:
    """With its name normalised (PEP 503). PatchforgeError when it is none."""
    try:
        found = Requirement(text)
    except (ValueError, RecursionError) as error:
        raise PatchforgeError(
            f"{text[:_SHOWN]!r} is not a Python requirement",
            expected="such as av>=16.0.0 (PEP 508)",
            found=type(error).__name__ if len(text) > _SHOWN else escape.seen(str(error)),
        ) from error
    found.name = canonicalize_name(found.name)
    return found


def of_file(text: str) -> list[str]:
    """The requirements in a requirements.txt, normalised, sorted, each once. Options are refused: they name files."""
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return sorted({str(parse(line)) for line in lines if line and not line.startswith("#")})


def holding(requires: Iterable[str], python: str) -> list[Requirement]:
    """Those that hold for a Python such as ``3.13``, without any extra; their markers are left off."""
    environment = {**_LINUX, "python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    found = [parse(text) for text in requires]
    kept = [one for one in found if _holds(one, environment)]
    for one in kept:
        one.marker = None
    return sorted(kept, key=str)


def _holds(one: Requirement, environment: dict[str, str]) -> bool:
    try:
        return one.marker is None or one.marker.evaluate(environment)
    except (ValueError, LookupError, RecursionError) as error:
        raise PatchforgeError(f"whether {one.name} is needed cannot be known", found=type(error).__name__) from error


def is_exact(requirement: Requirement) -> bool:
    """Whether it names one version (``==1.2``, not ``==1.*``)."""
    return any(one.operator == "==" and not one.version.endswith(".*") for one in requirement.specifier)
