"""Pins of the Python packages that belong to ComfyUI's releases, each at the version that these name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from packaging.requirements import Requirement

from patchforge.errors import PatchforgeError
from patchforge.pins import requirements
from patchforge.pins.pin_files import Versions, WheelPin
from patchforge.pins.tracked import Companions
from patchforge.pins.wheels import LASTING_HOSTS, Wheel, Wheels, requires


def pins(
    releases: Mapping[str, Sequence[str]],
    companions: Companions,
    wheels: Wheels,
    hosts: Sequence[str] = LASTING_HOSTS,
) -> dict[str, Versions]:
    """By name and version. ``releases``: the requirements of each. PatchforgeError when an index lacks one."""
    versions_of: dict[str, Versions] = {}
    todo = deque(_wanted((text for named in releases.values() for text in named), companions))
    while todo:
        requirement = todo.popleft()
        wheel = wheels.best(requirement)
        if wheel is None:
            raise _absent(requirement)
        versions = versions_of.setdefault(wheel.name, {})
        if str(wheel.version) not in versions:
            named = requires(wheel)
            versions[str(wheel.version)] = _pin(wheel, named, companions.python, hosts)
            todo += _wanted(named, companions)
    return versions_of


def _wanted(texts: Iterable[str], companions: Companions) -> list[Requirement]:
    holding = requirements.holding(texts, companions.python)
    return [
        requirement
        for requirement in holding
        if requirement.name not in companions.elsewhere
        and (requirements.is_exact(requirement) or requirement.name in companions.names)
    ]


def _pin(wheel: Wheel, named: Sequence[str], python: str, hosts: Sequence[str]) -> WheelPin:
    text, source = wheel.hash()
    return WheelPin(
        file=wheel.file,
        hash=text,
        hash_source=source,
        python=wheel.tag.interpreter,
        abi=wheel.tag.abi,
        platform=wheel.file.removesuffix(".whl").rpartition("-")[2],
        requires=tuple(str(requirement) for requirement in requirements.holding(named, python)),
        url=wheel.lasting_url(hosts),
    )


def _absent(requirement: Requirement) -> PatchforgeError:
    return PatchforgeError(
        f"no wheel of {requirement} is in the index",
        expected="a wheel for x86_64 Linux",
        found="none",
        do="check the index that pip is set to use (pip config list), or name the package in `elsewhere` of "
        "upstream/companions.toml",
    )
