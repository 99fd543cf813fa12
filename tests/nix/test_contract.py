"""What the expressions take from nixpkgs is in data/nixpkgs.json, and the pretended one behaves as is written there."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.nix import sandbox
from tests.nix.sandbox import REAL_LIB, Miniature, Nix, contract, library
from tests.nix.taken import Taken, printed, taken
from tests.support import ROOT

TEMPLATES = ROOT / "templates" / "nix"
DATA = ROOT / "generated" / "nix" / "data"
FILE = re.compile(r"(pkgs|lib|nixos|modules)/[\w./-]+\.(nix|sh|py)|flake\.nix")


def of_folder(nix: Nix, folder: Path) -> Taken:
    files = sorted(folder.rglob("*.nix"))
    done = nix.run("nix-instantiate", "--parse", *map(str, files))
    assert (done.returncode, done.stderr) == (0, "")
    return taken(printed(done.stdout, files, folder))


def required() -> set[str]:
    """Python packages that data asks nixpkgs for: requirements that no pinned wheel meets."""
    torch, comfyui, nodes, python, names = (
        json.loads((DATA / f"{name}.json").read_bytes()) for name in ("torch", "comfyui", "nodes", "python", "names")
    )
    wheels = [wheel for lock in torch["locks"].values() for wheel in lock["wheels"]]
    pinned = [version for versions in python.values() for version in versions.values()]
    needing = [*comfyui["releases"].values(), *nodes.values()]
    texts = [text for each in needing for text in each["requirements"]]
    texts += [text for each in [*wheels, *pinned] for text in each["requires"]]
    names_of = {re.split(r"[^a-z0-9-]", text)[0] for text in texts}
    names_of -= python.keys() | {wheel["name"] for wheel in wheels}
    return {str(names.get(name, name)) for name in names_of}


def own() -> set[str]:
    """What this project itself depends on, and the suites that are left out."""
    import tomllib

    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [
        *project["dependencies"],
        *project["optional-dependencies"]["arbiter"],
        *project["optional-dependencies"]["bot"],
        *project["optional-dependencies"]["operate"],
        *project["optional-dependencies"]["test"],
        # What is not for every Python, and what this project packages itself.
        *(text for text in project["optional-dependencies"]["benchmark"] if ";" not in text and "flip" not in text),
    ]
    suites: dict[str, Any] = json.loads((TEMPLATES / "data/suites.json").read_bytes())
    return {re.split(r"[^A-Za-z0-9-]", text)[0].lower() for text in texts} | suites.keys()


def test_every_name_that_is_taken_is_in_the_contract_and_no_other(nix: Nix) -> None:
    used, listed = of_folder(nix, TEMPLATES), contract()
    pythons = {f"python{each.replace('.', '')}" for each in json.loads((DATA / "torch.json").read_bytes())["pythons"]}
    assert used.packages | pythons == listed["packages"].keys()
    assert used.lib == listed["lib"].keys()
    # python-ipex is MordragT/nixos' own set.
    assert (used.python - {"ipex"}) | required() | own() | listed["distributions"].keys() == listed["python"].keys()


def test_a_new_name_would_be_seen(nix: Nix, tmp_path: Path) -> None:
    """In each way in which one can be taken."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "modules").mkdir()
    (tmp_path / "packages/a.nix").write_text(
        "{ lib, newly-asked, given ? null, data }: [ lib.newlyUsed (ps: ps.newly-imported) (lib.licenses.newest) ]"
    )
    (tmp_path / "modules/b.nix").write_text(
        "{ lib, pkgs, ... }: let inherit (lib) mkNewly types; in { a = types.newlyTyped; inherit (pkgs) inherited;"
        ' b = "${pkgs.selected}/bin"; c = pkgs.or-else or null; d = lib.getExe pkgs.python3; }'
    )
    used = of_folder(nix, tmp_path)
    assert used.packages == {"newly-asked", "inherited", "selected", "or-else", "python3", "lib"} - {"lib"}
    assert used.python == {"newly-imported"}
    assert {"newlyUsed", "licenses.newest", "mkNewly", "types.newlyTyped", "getExe"} <= used.lib


def test_each_name_has_its_file() -> None:
    listed = contract()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", listed["read"])
    plain = [path for kind in ("packages", "python", "lib") for path in listed[kind].values()]
    described = [each["file"] for kind in ("behaviours", "options", "home") for each in listed[kind].values()]
    assert [path for path in [*plain, *described] if not FILE.fullmatch(path)] == []
    assert len(plain) > 200


def test_lib_has_what_is_listed(mini: Miniature) -> None:
    """The small one of the tests, or the real one where it is at hand."""
    lib = REAL_LIB or str(mini.nixpkgs / "lib")
    names = [name for name in contract()["lib"] if name != "nixosSystem"]  # of nixpkgs' flake
    expression = (
        f"let lib = import {lib}; has = name: lib.hasAttrByPath (lib.splitString ''.'' name) lib;"
        f" in builtins.filter (name: !(has name)) (builtins.fromJSON {json.dumps(json.dumps(names))})"
    )
    assert mini.nix.evaluate(expression) == []


@pytest.mark.skipif(not REAL_LIB, reason="PATCHFORGE_NIXPKGS_LIB is not set")
def test_each_name_of_lib_is_in_its_file(nix: Nix) -> None:
    """Of nixpkgs' own: files that only use a name prove nothing."""
    places = {name: file for name, file in contract()["lib"].items() if file.startswith("lib/") and name != "types"}
    pairs = json.dumps(json.dumps([[name.split(".")[-1], file] for name, file in places.items()]))
    expression = (
        f"let lib = import {REAL_LIB}; has = pair: builtins.hasAttr (builtins.elemAt pair 0)"
        f" (import ({REAL_LIB}/.. + ''/${{builtins.elemAt pair 1}}'') {{ inherit lib; }});"
        f" in builtins.filter (pair: !(has pair)) (builtins.fromJSON {pairs})"
    )
    assert len(places) > 100
    assert nix.evaluate(expression) == []


def test_options_that_modules_set_are_those_of_the_contract(mini: Miniature) -> None:
    """Name by name, with their types. Modules cannot set any other: the tests declare these alone."""
    expression = (
        f"let lib = import {mini.nixpkgs}/lib;"
        f" inherit (lib.evalModules {{ modules = [ {sandbox.HERE}/stubs.nix ]; }}) options;"
        " in map (option: { inherit (option) name type; }) (lib.optionAttrSetToDocList options)"
    )
    declared = {each["name"]: each["type"] for each in mini.nix.evaluate(expression)}
    declared = {name: kind for name, kind in declared.items() if "_module" not in name.split(".")}
    listed = contract()
    assert declared == {name: each["type"] for kind in ("options", "home") for name, each in listed[kind].items()}


def test_the_mock_has_no_package_beside_the_contract(mini: Miniature) -> None:
    """And what it lacks, an expression cannot take."""
    assert mini.nix.refused(f"(import {mini.nixpkgs} {{ }}).ffmpeg") != ""
    names = set(mini.nix.evaluate(f"builtins.attrNames (import {mini.nixpkgs} {{ }})"))
    ours = {name.partition(".")[0] for name in contract()["packages"]} | {"lib", "pkgs", "system"}
    versions = {name for name in names if re.fullmatch(r"python3\d+", name)}
    assert names - ours - versions == set()


# Behaviours: for each of the contract, an expression and what comes of it; None: it builds.


def package(build: str, **attributes: str) -> str:
    given = " ".join(f"{name} = {value};" for name, value in attributes.items())
    install = f"installPhase = ''mkdir -p $out/lib; {build}'';"
    return f"p.stdenv.mkDerivation {{ pname = ''x''; version = ''1''; dontUnpack = true; {given} {install} }}"


def elf(path: str, *needs: str, **about: object) -> str:
    text = json.dumps(json.dumps(library(*needs, **about)))
    return f"mkdir -p $(dirname {path}); cp ${{p.writeText ''elf'' (builtins.fromJSON {text})}} {path}; "


NEEDS = elf("$out/lib/liba.so", "libb.so")
RIGHT, DEEP = package(elf("$out/lib/libb.so")), package(elf("$out/lib/deep/libb.so"))
HOOK = {"nativeBuildInputs": "[ p.autoPatchelfHook ]", "dontStrip": "true"}
NO = "could not satisfy dependency libb.so"
PYTHON = "p.python3.pkgs.buildPythonPackage { pname = ''x''; version = ''1''; dontUnpack = true; src = ''''; %s }"
WITH_MINE = "p.python3.override { packageOverrides = _: prev: { mine = prev.numpy; }; }"
WITH_XPU = "p.python3.override { packageOverrides = _: prev: { torch = prev.torch // { xpuSupport = true; }; }; }"
PROBES: dict[str, list[tuple[str, str | None]]] = {
    "autoPatchelf: searches lib of inputs, not below": [
        (package(NEEDS, **HOOK, buildInputs=f"[ ({RIGHT}) ]"), None),
        (package(NEEDS, **HOOK, buildInputs=f"[ ({DEEP}) ]"), NO),
    ],
    "autoPatchelf: only inputs for the host are searched": [
        (package(NEEDS, dontStrip="true", nativeBuildInputs=f"[ p.autoPatchelfHook ({RIGHT}) ]"), NO),
    ],
    "autoPatchelf: searches all of what is installed": [
        (package(NEEDS + elf("$out/share/deep/libb.so"), **HOOK), None),
    ],
    "autoPatchelf: addAutoPatchelfSearchPath looks below": [
        (package(NEEDS, **HOOK, preFixup=f"''addAutoPatchelfSearchPath ${{{DEEP}}}''"), None),
    ],
    "autoPatchelf: ignores by a list of patterns": [
        (package(NEEDS, **HOOK, autoPatchelfIgnoreMissingDeps="[ ''libb.so*'' ]"), None),
        (package(NEEDS, **HOOK, autoPatchelfIgnoreMissingDeps="[ ''libc*'' ]"), NO),
    ],
    "autoPatchelf: true is deprecated": [
        (package(NEEDS, **HOOK, autoPatchelfIgnoreMissingDeps="true"), "is deprecated")
    ],
    "strip: unless dontStrip": [
        (package(elf("$out/lib/liba.so", fragile=True)), "not properly aligned"),
        (package(elf("$out/lib/liba.so", fragile=True), dontStrip="true"), None),
    ],
    "patchelf: unless dontPatchELF": [
        (package(elf("$out/lib/liba.so", terms=True, runpath=["$ORIGIN"]), dontStrip="true"), "forbids to modify"),
        (package(elf("$out/lib/liba.so", terms=True, runpath=["/x"]), dontStrip="true", dontPatchELF="true"), None),
    ],
    "makeWrapper: wrapProgram is there with its hook": [
        (package("mkdir $out/bin; touch $out/bin/x; wrapProgram $out/bin/x"), "wrapProgram: command not found"),
    ],
    "python: only modules are in the set": [
        (
            "(p.python3.override { packageOverrides = _: _: { mine = p.zlib; }; }).pkgs.mine",
            "should use `buildPythonPackage` or `toPythonModule`",
        ),
        (
            "(p.python3.override { packageOverrides = final: _: { mine = final.toPythonModule p.zlib; }; }).pkgs.mine",
            None,
        ),
    ],
    "python: override replaces packageOverrides": [
        (f"(({WITH_MINE}).override {{ packageOverrides = _: _: {{ }}; }}).pkgs.mine", "attribute 'mine' missing"),
        ("(p.python3.override { mine = 1; }).pkgs.numpy", "unexpected argument"),
    ],
    "python: requirements of a wheel are not checked": [
        (PYTHON % "format = ''wheel''; dontCheckRuntimeDeps = true;", "does nothing"),
    ],
    "python: suites run when a dependency is built again": [
        ("p.python3.pkgs.torchsde", None),
        (f"({WITH_XPU}).pkgs.torchsde", "FAILED torchsde"),
    ],
}


#: What evaluation complains of already.
EVALUATED = {
    "should use `buildPythonPackage` or `toPythonModule`",
    "attribute 'mine' missing",
    "unexpected argument",
    "does nothing",
}


def test_every_behaviour_has_a_probe() -> None:
    assert PROBES.keys() | {"systemd: lists are joined, and nothing else"} == contract()["behaviours"].keys()


def test_the_mock_allows_what_the_contract_allows(mini: Miniature) -> None:
    """At once: each build costs more time in starting Nix than in building."""
    listed = " ".join(
        f"({expression})" for probes in PROBES.values() for expression, complaint in probes if not complaint
    )
    assert mini.nix.build(f"let p = import {mini.nixpkgs} {{ }}; in [ {listed} ]")


def test_the_mock_refuses_what_the_contract_refuses(mini: Miniature) -> None:
    """Builds at once, and what is refused before one by one."""
    refused = {expression: complaint for probes in PROBES.values() for expression, complaint in probes if complaint}
    builds = {expression: complaint for expression, complaint in refused.items() if complaint not in EVALUATED}
    start = f"let p = import {mini.nixpkgs} {{ }}; in"
    done = mini.nix.run(
        "nix-build", "--no-out-link", "--keep-going", "--expr", f"{start} [ {' '.join(map('({})'.format, builds))} ]"
    )
    assert done.returncode != 0
    assert {text: done.stderr.count(text) for text in builds.values()} == Counter(builds.values())
    failed = set(re.findall(r"builder for '(\S+)' failed", done.stderr))
    assert len(failed) == len(builds)
    for expression, complaint in refused.items():
        if complaint in EVALUATED:
            assert complaint in mini.nix.refused(f"{start} ({expression}).drvPath")


def merged(mini: Miniature, *values: str) -> str:
    modules = " ".join(f"{{ systemd.services.x.serviceConfig.X = {value}; }}" for value in values)
    return (
        f"let lib = import {mini.nixpkgs}/lib; in (lib.evalModules {{ modules = [ {sandbox.HERE}/stubs.nix {modules} ];"
        " }).config.systemd.services.x.serviceConfig.X"
    )


def test_systemd_options_merge_as_in_nixos(mini: Miniature) -> None:
    lists: Any = mini.nix.evaluate(f"[ ({merged(mini, '[ 1 ]', '[ 2 ]')}) ({merged(mini, '1', '1')}) ]")
    assert (sorted(lists[0]), lists[1]) == ([1, 2], 1)
    assert "either all lists" in mini.nix.refused(merged(mini, "[ 1 ]", "1"))
    assert "conflicting definition" in mini.nix.refused(merged(mini, "1", "2"))
    assert "is not of type" in mini.nix.refused(merged(mini, "1").replace(".X = 1", ".Type = ''often''"))
