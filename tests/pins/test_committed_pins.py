"""What is committed in ``upstream/pins`` fits together and fits what is declared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

from patchforge.hashes import refuse_shared, trusted
from patchforge.pins import pin_files, requirements
from patchforge.pins.claims import source_claims, wheel_claims
from patchforge.pins.torch import abi_of
from patchforge.pins.tracked import load_companions, load_nodes, load_repository, load_torch
from patchforge.pins.wheels import LASTING_HOSTS
from patchforge.project import load_project, release_index
from tests.support import ROOT

UPSTREAM = ROOT / "upstream"
PINS = UPSTREAM / "pins"
KINDS = pin_files.kinds(PINS)


def every_pin(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object that has a revision or a file."""
    if isinstance(value, dict):
        if "rev" in value or "file" in value:
            yield path, value
        for key, inner in value.items():
            yield from every_pin(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from every_pin(inner, f"{path}/{inner['name'] if isinstance(inner, dict) else ''}")


FILES = {kind: json.loads((PINS / f"{kind}.json").read_bytes()) for kind in KINDS}
ALL = [(f"{kind}{path}", pin) for kind, document in FILES.items() for path, pin in every_pin(document)]


def test_every_kind_is_there() -> None:
    assert {"comfyui", "mordragt-nixos", "nodes", "ollama", "python"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_as_they_are_written(kind: str) -> None:
    assert (PINS / f"{kind}.json").read_bytes() == pin_files.render(kind, pin_files.load(kind, PINS))


@pytest.mark.parametrize("pin", [pin for _, pin in ALL], ids=[name for name, _ in ALL])
def test_a_pin_has_a_hash_that_can_be_one_and_says_whose_it_is(pin: dict[str, Any]) -> None:
    if "missing" in pin:
        assert "hash" not in pin
        return
    assert trusted(pin["hash"]) == pin["hash"]
    assert pin["hash_source"] in {"computed", "published", "index"}
    assert ("published_by" in pin) == (pin["hash_source"] == "published")
    if "rev" in pin:
        assert re.fullmatch("[0-9a-f]{40}", pin["rev"])
        assert pin["hash_source"] != "index"
    if "url" in pin:
        assert urlsplit(pin["url"]).hostname in LASTING_HOSTS
        assert urlsplit(pin["url"]).path.rpartition("/")[2].replace("%2B", "+") == pin["file"]


def test_no_two_sources_have_one_hash() -> None:
    refuse_shared({(pin.get("rev") or pin["file"], pin["hash"]) for _, pin in ALL if "hash" in pin})


def test_releases_are_the_index_and_cover_what_is_generated() -> None:
    pins = pin_files.load("comfyui", PINS)
    commits = {str(release.version): release.commit for release in release_index(load_project())}
    generated = {path.parent.name for path in (ROOT / "generated/comfyui").glob("*/manifest.json")}
    assert generated <= pins.keys()
    assert {version: pin.rev for version, pin in pins.items()} == {version: commits[version] for version in pins}


def test_published_hashes_are_those_in_the_lists() -> None:
    claims = source_claims(UPSTREAM)
    published = [pin for _, pin in ALL if pin.get("hash_source") == "published" and "rev" in pin]
    assert [claims[pin["rev"]].hash for pin in published] == [pin["hash"] for pin in published]
    wheels = {claim.file: claim.hash for claim in wheel_claims(UPSTREAM)}
    locked = [pin for _, pin in ALL if pin.get("hash_source") == "published" and "file" in pin]
    assert [wheels[pin["file"]] for pin in locked] == [pin["hash"] for pin in locked]


def exact(texts: Sequence[str]) -> set[tuple[str, str]]:
    companions = load_companions(UPSTREAM)
    named = [
        requirement
        for requirement in requirements.holding(texts, companions.python)
        if requirement.name not in companions.elsewhere
    ]
    return {
        (requirement.name, next(iter(requirement.specifier)).version)
        for requirement in named
        if requirements.is_exact(requirement)
    }


def test_python_pins_are_what_releases_and_pins_name() -> None:
    pins = pin_files.load("python", PINS)
    have = {(name, version) for name, versions in pins.items() for version in versions}
    wanted = [exact(pin.requirements) for pin in pin_files.load("comfyui", PINS).values()]
    wanted += [exact(pin.requires) for versions in pins.values() for pin in versions.values()]
    loose = {each for each in have if each[0] in load_companions(UPSTREAM).names}
    assert have == set().union(*wanted, loose)
    assert {name for name, _ in loose} == set(load_companions(UPSTREAM).names)


def test_node_packs_are_those_declared() -> None:
    pins, declared = pin_files.load("nodes", PINS), load_nodes(UPSTREAM)
    assert sorted(pins) == [repository.name for repository in declared]
    for repository in declared:
        pin = pins[repository.name]
        assert (pin.owner, pin.repo) == repository.owner_and_repo
        assert (pin.group, pin.submodules, pin.license) == (repository.group, repository.submodules, repository.license)
    assert {repository.group for repository in declared} == {
        "controlnet-aux",
        "upscaling",
        "animation",
        "samplers",
        "ollama",
    }


@pytest.mark.parametrize("name", ["ollama", "mordragt-nixos"])
def test_single_repositories_are_those_declared(name: str) -> None:
    repository, pin = load_repository(UPSTREAM / f"{name}.toml"), pin_files.load_one(name, PINS)
    assert pin
    assert (pin.owner, pin.repo, pin.license) == (*repository.owner_and_repo, repository.license)
    assert pin.version == repository.version


def test_the_default_torch_is_locked_completely() -> None:
    torch = load_torch(UPSTREAM)
    locks = [pin_files.load_lock(f"{torch.default}-{abi_of(python)}", PINS) for python in torch.pythons]
    assert any(lock and lock.complete for lock in locks)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("torch/")])
def test_a_lock_is_closed_and_agrees_with_itself(kind: str) -> None:
    torch, lock = load_torch(UPSTREAM), pin_files.load_lock(kind.removeprefix("torch/"), PINS)
    assert lock
    wheels = {wheel.name: wheel for wheel in lock.wheels}
    assert kind == f"torch/{lock.torch}-{lock.abi}"
    assert lock.complete == (not lock.missing)
    missing = {requirements.parse(text.partition(" for ")[0]).name for text in lock.missing}
    roots = {"torch", *torch.versions[lock.torch]}
    assert roots <= wheels.keys() | missing
    for wheel in wheels.values():
        for text in wheel.requires:
            needed = requirements.parse(text)
            if needed.name not in {*torch.elsewhere, *missing}:
                assert needed.specifier.contains(wheels[needed.name].version, prereleases=True), text
    assert all(lock.abi in wheel.file or "-none-" in wheel.file for wheel in wheels.values())
