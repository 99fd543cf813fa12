"""Every command that the README and the pages under docs/ print: run here or by another test, or what it needs.

One table, in which each printed command is found once. "Run here" is as it is printed, from a home like a reader's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from patchforge.cli import main
from tests.checkout.places import PACK, fill
from tests.journeys.test_journeys import repository, tarball, zipped
from tests.support import ROOT, miniature
from tests.test_readme import _FENCE, PAGES

NETWORK = (
    "the network: GitHub, pip's index, or a clone of ComfyUI, which tests have where PATCHFORGE_UPSTREAM names one"
)
HARDWARE = "a GPU"
TORCH = "a release's requirements and torch; tests run miniature releases in their place"
DEBIAN = "root on Debian, and the network; tests/nix/test_debian.py judges what is installed"
NIXOS = "NixOS, or Nix with a network"
GITHUB = "a repository on GitHub, and a token"
WINDOWS = "Windows; the same is done in tests/systems without what Windows lacks"
MINUTES = "minutes; the CI runs it"


@dataclass(frozen=True)
class Here:
    """Run by this test, in a home that is ``plain`` or ``patched``, or in ComfyUI's folder ``at``."""

    home: str = "plain"
    statuses: tuple[int, ...] = (0,)
    at: str = ""


#: A pattern for whole commands → run here, the test that runs it, or what it needs.
PRINTED: Mapping[str, Here | str] = {
    # the ComfyUI that the reader has
    r"patchforge apply ~/ComfyUI --in-place( --dry-run)?": Here(),
    r"patchforge apply --from ComfyUI-0\.32\.0\.(zip|tar\.gz) --(out|to) [\w-]+": Here(),
    r"patchforge (revert|update|repair) ~/ComfyUI": Here("patched"),
    r"patchforge status( ~/ComfyUI( --json)?)?": Here("patched"),
    r"patchforge doctor ~/ComfyUI": Here("patched", (0, 1, 69)),
    r"patchforge doctor --upstream ~/ComfyUI": Here(statuses=(0, 1)),
    r"patchforge (--help|--version|explain( free-memory| --markdown)?|packs explain pack-device-literal)": Here(),
    r"patchforge completion bash > \S+": Here(),
    r"(python -m )?patchforge packs check \S+/some-pack( --sarif findings\.sarif)?": Here(statuses=(1,)),
    r"patchforge packs check packs/first packs/second --by-rule": Here(statuses=(1,)),
    r"patchforge packs apply \S+/some-pack( --dry-run| --in-place)": Here(),
    r"patchforge packs revert \S+/some-pack": Here("patched"),
    r"git -C ~/ComfyUI checkout v0\.33\.0": Here(),
    r"git -C ~/ComfyUI checkout --force v0\.33\.0": Here("patched"),
    r"for name in \$\(cat \.\./patches/series\); do .+; done": Here("plain", at="ComfyUI"),
    r"python main\.py( --help-gpu| --xpu-level O2| --xpu-enable \S+| --intel-device 0)?": Here("patched", at="ComfyUI"),
    r"python main\.py --xpu-precision bf16": Here("patched", (1,), at="ComfyUI"),  # the miniature has no flag for it
    # by other tests
    r"pip install \.": "tests/test_packaging.py::test_an_installed_patchforge_converts",
    r"python3 -m venv ~\S+": "tests/journeys/test_journeys.py::test_a_wheel_in_a_fresh_environment",
    r"~/\S+/bin/pip install \.": "tests/journeys/test_journeys.py::test_a_wheel_in_a_fresh_environment",
    r"~/\S+/bin/patchforge apply .+": "tests/journeys/test_journeys.py::test_a_wheel_in_a_fresh_environment",
    r"python -m (patchforge (packs )?explain|pytest tests/test_examples\.py -k) (pack-)?spare-units": (
        "tests/test_guides.py::test_the_rule_of_a_page"
    ),
    r"nix-instantiate --parse flake\.nix comfyui\.nix": "tests/nix/test_docs.py::test_nix_code_parses",
    r"nix eval \.#nixosConfigurations .+|cp /path/to/patchforge/generated/nix/template/\*\.nix \.": (
        "tests/nix/test_flake.py::test_the_template_without_a_network"
    ),
    r"make help": "tests/test_readme.py::test_make_help_lists_every_target_of_the_readme",
    r"patchforge bot --dry-run --upstream CLONE": (
        "tests/bot/test_commands.py::test_a_dry_run_outside_of_a_repository_shows_titles_and_bodies"
    ),
    r"patchforge arbiter( --policy \S+)?": "tests/arbiter/test_arbiter.py::test_the_service",
    r"patchforge arbiter limit .+": "tests/arbiter/test_arbiter.py::test_a_limit",
    r"patchforge models (list|import|link|verify|gc).*": "tests/models/test_models.py::test_copies_become_one_file",
    r"patchforge bench report .+": "tests/bench/test_bench_report.py::test_the_command_writes_beside_a_copy",
    r"patchforge bench (record|costs).*": "tests/bench/test_costs.py::test_counts_are_kept_and_shown",
    r"patchforge bench submit .+": "tests/bench/test_bench_report.py::test_a_submission_says_nothing_of_its_user",
    r"patchforge bench (compare|history) .+": "tests/bench/test_bench_compare.py::test_the_command_says_what_differs",
    r"patchforge door render door\.toml --out \S+": "tests/door/test_render.py::test_the_page_s_file",
    r"patchforge door routes --pack \S+/some-pack": Here(),
    r"patchforge nix( --check)?": "tests/nix/test_generate.py::test_what_is_committed_is_what_is_generated",
    r"patchforge prefetch Mic92/nix-update 1\.0\.0 --from \S+": (
        "tests/hashes/test_prefetch.py::test_a_tarball_and_a_folder"
    ),
    r"patchforge maintain ~/ComfyUI .+ --dry-run": (
        "tests/operate/test_maintain.py::test_old_outputs_go_and_new_ones_stay"
    ),
    r"patchforge health --write-pack \S+": Here(),
    # what is not at hand
    r"pip install .\.\[(operate|test|test,benchmark|bot)\].( +#.*)?": NETWORK,
    r"patchforge (exporter|health|validate).+": "a ComfyUI that runs; tests/operate have a small one",
    r"make (demo|lint|test.*)": MINUTES,
    r"(PATCHFORGE_UPSTREAM=\S+ )?make (bench|trials)": NETWORK,
    r"(python -m )?patchforge (check|replay)( .+)?": NETWORK,
    r"patchforge door routes v.+": NETWORK,
    r"(python -m )?patchforge apply (v0\.3\d\.0|latest|c2bcbecd)( .+)?": NETWORK,
    r"(python -m )?patchforge verify( v0\.3\d\.0 --dynamic.*)?": NETWORK,
    r"patchforge (track|matrix|pin|lock-torch|prefetch|verify --online|packs track|packs bot --dry-run)( .+)?": NETWORK,
    r"git -C ~/ComfyUI fetch --tags": NETWORK,
    r"patchforge doctor --upstream": NETWORK,
    r"patchforge (packs )?bot .*--repository .+": GITHUB,
    r"patchforge doctor --root /mnt/system .+": "another system's root; tests/doctor make such",
    r"patchforge bench .*--device emulated.*": TORCH,
    r"patchforge bench (~/ComfyUI|v0\.33\.0) --device (xpu|cuda).*": HARDWARE,
    r"patchforge (packs )?test .+ --device (xpu|cuda) .+": HARDWARE,
    r"patchforge (packs )?test .+": TORCH,
    r"python -m patchforge\.trial\.comparison\.against_upstream .+": HARDWARE,
    r"export PYTHONPATH=.+|.*pytest tests/emulator/.+|python -m emulator\.second_torch .+": TORCH,
    r"/opt/.+|(apt-get|cp|install|chgrp|chmod|nginx|promtool|printf|git clone) .+": DEBIAN,
    r"python3 -m venv /opt/.+|git -C /opt/.+": DEBIAN,
    r"(sudo )?(nix|nixos-rebuild|systemctl|journalctl|comfyui-xpu|curl) .+": NIXOS,
    r'(py|pause|\.\\python_embeded|%USERPROFILE%|"%~dp0).*': WINDOWS,
}


def printed() -> Iterator[tuple[str, str]]:
    """Page and command; one of several lines is one command."""
    for page in PAGES:
        for language, body in _FENCE.findall(page.read_text("utf-8")):
            if language in {"sh", "bash", "console", "bat"}:
                yield from ((page.name, command) for command in _commands(language, body))


def _commands(language: str, body: str) -> Iterator[str]:
    so_far = ""
    for line in body.splitlines():
        so_far = f"{so_far}\n{line}".strip().removeprefix("$ ")
        if language != "bat":
            try:
                shlex.split(so_far, comments=True)
            except ValueError:  # a quote goes on in the next line
                continue
        command = re.sub(r"(?:^|\s)#.*$", "", so_far.replace("\n", " ")).strip()
        so_far = ""
        if command:
            yield command


@cache
def _way(command: str) -> tuple[str, Here | str] | None:
    return next(((pattern, way) for pattern, way in PRINTED.items() if re.fullmatch(pattern, command)), None)


def test_every_printed_command_is_in_the_table() -> None:
    assert [(page, command) for page, command in printed() if _way(command) is None] == []


def test_nothing_else_is_in_the_table() -> None:
    used = {way[0] for _, command in printed() if (way := _way(command))}
    assert [pattern for pattern in PRINTED if pattern not in used] == []


def test_the_tests_that_the_table_names_are_there() -> None:
    for way in PRINTED.values():
        if isinstance(way, str) and way.startswith("tests/"):
            file, _, name = way.partition("::")
            assert f"def {name}" in (ROOT / file).read_text("utf-8")


def test_what_takes_minutes_is_run_by_the_ci() -> None:
    ci = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    for target in ("demo", "lint", "test"):
        assert f"make {target}" in ci


HERE = sorted({command for _, command in printed() if (way := _way(command)) and isinstance(way[1], Here)})


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A reader's home, before and after ComfyUI and a pack in it were patched."""
    plain = tmp_path_factory.mktemp("plain")
    stated = {**miniature("v0.33.0"), "comfyui_version.py": b'__version__ = "0.32.0"\n'}
    repository(plain / "ComfyUI", "v0.21.0", "v0.33.0")
    fill(plain / "ComfyUI/custom_nodes/some-pack", PACK)
    for name in ("first", "second"):
        fill(plain / "packs" / name, PACK)
    zipped(plain / "ComfyUI-0.32.0.zip", stated, "ComfyUI-0.32.0")
    tarball(plain / "ComfyUI-0.32.0.tar.gz", stated, "ComfyUI-0.32.0")
    patched = tmp_path_factory.mktemp("patched")
    shutil.copytree(plain, patched, dirs_exist_ok=True)
    for home, words in (
        (plain, f"apply --from {plain}/ComfyUI --out {plain}/patches"),
        (patched, f"apply {patched}/ComfyUI --in-place"),
        (patched, f"packs apply {patched}/ComfyUI/custom_nodes/some-pack --in-place"),
    ):
        command = [sys.executable, "-m", "patchforge", *words.split()]
        subprocess.run(command, cwd=ROOT, env=_environment(home), check=True, capture_output=True)
    return {"plain": plain, "patched": patched}


def _environment(home: Path) -> dict[str, str]:
    ours = {"PATCHFORGE_CACHE": str(home / ".cache"), "PATCHFORGE_STATE": str(home / ".state"), "HOME": str(home)}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **ours, "PATH": tools, "NO_COLOR": "1"}


@pytest.mark.parametrize("command", HERE)
def test_a_printed_command_does_what_it_should(
    command: str, homes: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way_found = _way(command)
    assert way_found
    assert isinstance(way_found[1], Here)
    way, home = way_found[1], tmp_path / "home"
    shutil.copytree(homes[way.home], home, symlinks=True)
    for name, value in _environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home / way.at)
    words = [os.path.expanduser(word) for word in shlex.split(command.partition(" > ")[0])]  # noqa: PTH111
    if words[0] == "patchforge":
        try:
            status = main(words[1:])
        except SystemExit as ended:
            status = int(ended.code or 0)
    else:
        done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
        status = done.returncode
    assert status in way.statuses
