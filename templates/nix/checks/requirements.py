"""Whether this Python satisfies a requirements.txt and further requirements; else status 1, and what is missing."""

# ruff: noqa: INP001 - a script
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement


def lines(path: str) -> list[str]:
    stripped = (line.partition(" #")[0].strip() for line in Path(path).read_text("utf-8").splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def problem(text: str) -> str | None:
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{text}: not installed"
    return None if requirement.specifier.contains(installed, prereleases=True) else f"{text}: found {installed}"


problems = sorted({complaint for text in [*lines(sys.argv[1]), *sys.argv[2:]] if (complaint := problem(text))})
if problems:
    print(f"{len(problems)} Python requirement(s) are not met:", *problems, sep="\n  ", file=sys.stderr)
    raise SystemExit(1)
print("all Python requirements are met")
