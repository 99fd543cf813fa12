"""The lock of PyTorch for XPU: every wheel that one torch version needs on one Python, Intel's runtime among them.

torch names the versions of Intel's wheels exactly, so that no solver is needed: requirements are taken in the order in
which they are met, and one that contradicts an earlier choice is an error.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.pins import requirements
from patchforge.pins.claims import WheelClaim
from patchforge.pins.pin_files import LockedWheel, TorchLock
from patchforge.pins.tracked import TrackedTorch
from patchforge.pins.wheels import LASTING_HOSTS, Wheel, Wheels, requires


def abi_of(python: str) -> str:
    """``cp313`` for 3.13. PatchforgeError when it is not a version of Python."""
    if not re.fullmatch(r"3\.\d+", python):
        raise PatchforgeError(
            f"{python!r} is not a version of Python", expected="such as 3.13", do="name one with two numbers"
        )
    return "cp" + python.replace(".", "")


def lock(
    version: str,
    python: str,
    torch: TrackedTorch,
    wheels: Wheels,
    *,
    claims: Iterable[WheelClaim] = (),
    hosts: Sequence[str] = LASTING_HOSTS,
) -> TorchLock:
    """``wheels`` comes first; of what it lacks, ``claims`` give the hash. What neither has is in ``missing``.

    PatchforgeError when nothing is known of this torch, CheckFailed for contradictions.
    """
    known = [claim for claim in claims if claim.torch == version and claim.abi in {abi_of(python), "any"}]
    roots = _roots(version, torch)
    names = [requirements.parse(f"{_name(claim)}=={_version(claim)}") for claim in known]
    made = _Lock(torch, python, wheels, {claim.file: claim for claim in known}, hosts)
    made.take([*roots, *(named for named in names if named.name not in {root.name for root in roots})])
    if "torch" not in made.locked:
        raise _unknown(version, python)
    return TorchLock(
        torch=version,
        abi=abi_of(python),
        complete=not made.missing,
        missing=tuple(sorted(made.missing)),
        unread=tuple(sorted(made.unread)),
        wheels=tuple(made.locked[name] for name in sorted(made.locked)),
    )


def _roots(version: str, torch: TrackedTorch) -> list[Requirement]:
    named = torch.versions.get(version)
    if named is None:
        raise PatchforgeError(
            f"what belongs to torch {version} is not declared",
            expected=f'[versions."{version}"] with torchvision and torchaudio in upstream/torch.toml',
            found="declared: " + (", ".join(sorted(torch.versions)) or "none"),
            do="add it; PyTorch's release notes say which versions belong together",
        )
    return [requirements.parse(f"{name}=={each}+{torch.local}") for name, each in {"torch": version, **named}.items()]


@dataclass(slots=True)
class _Lock:
    torch: TrackedTorch
    python: str
    wheels: Wheels
    claims: dict[str, WheelClaim]  #: by file
    hosts: Sequence[str]
    locked: dict[str, LockedWheel] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)

    def take(self, wanted: Iterable[Requirement]) -> None:
        todo = deque(wanted)
        while todo:
            requirement = todo.popleft()
            if requirement.name in self.locked:
                _require_agreement(requirement, self.locked[requirement.name])
            elif wheel := self.wheels.best(requirement):
                todo += self._lock(wheel)
            elif claim := self._claim(requirement):
                self._trust(claim)
            else:
                self.missing.add(f"{requirement} for {abi_of(self.python)}")

    def _lock(self, wheel: Wheel) -> list[Requirement]:
        """Locks a wheel of an index; what it needs besides."""
        text, source = wheel.hash()
        claim = self.claims.get(wheel.file)
        if claim and claim.hash != text:
            raise CheckFailed(
                f"the hash of {wheel.file} is not the published one",
                expected=f"{claim.hash}, says {claim.published_by}",
                found=f"{text}, says the index",
                do="find out which is right; nothing is locked",
            )
        needed = requirements.holding(requires(wheel), self.python)
        self.locked[wheel.name] = LockedWheel(
            name=wheel.name,
            version=str(wheel.version),
            file=wheel.file,
            hash=text,
            hash_source=source,
            requires=tuple(map(str, needed)),
            url=wheel.lasting_url(self.hosts),
        )
        return [requirement for requirement in needed if requirement.name not in self.torch.elsewhere]

    def _claim(self, wanted: Requirement) -> WheelClaim | None:
        fitting = (claim for claim in self.claims.values() if _name(claim) == wanted.name)
        return next((claim for claim in fitting if wanted.specifier.contains(_version(claim), prereleases=True)), None)

    def _trust(self, claim: WheelClaim) -> None:
        """Locks a wheel that is out of reach, by what someone published; what it requires stays unknown."""
        name, version = _name(claim), _version(claim)
        index = self.torch.indexes[0 if version.local else -1]
        self.locked[name] = LockedWheel(
            name=name,
            version=str(version),
            file=claim.file,
            hash=claim.hash,
            hash_source="published",
            published_by=claim.published_by,
            requires=(),
            url=f"{index}/{claim.file.replace('+', '%2B')}",
        )
        self.unread.add(name)


def _name(claim: WheelClaim) -> str:
    return parse_wheel_filename(claim.file)[0]


def _version(claim: WheelClaim) -> Version:
    return parse_wheel_filename(claim.file)[1]


def _require_agreement(wanted: Requirement, locked: LockedWheel) -> None:
    if not wanted.specifier.contains(locked.version, prereleases=True):
        raise CheckFailed(
            f"two wheels of this torch need different versions of {wanted.name}",
            expected=str(wanted),
            found=locked.version,
            do="check that torch, torchvision and torchaudio in upstream/torch.toml belong together",
        )


def _unknown(version: str, python: str) -> PatchforgeError:
    return PatchforgeError(
        f"nothing is known of torch {version} for Python {python}",
        expected="a wheel in an index, or a published hash in upstream/torch.hashes.tsv",
        found="neither",
        do=f"patchforge lock-torch {version} --python {python} --online",
    )
