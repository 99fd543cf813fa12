"""What ``--json`` prints: every document is as the schema says that is published for it, on success and on error.

The fixture ``_documents_fit`` in ``tests/conftest.py`` holds every other test's documents against the same schemas.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge import schemas
from patchforge.cli import main
from patchforge.errors import Exit
from tests.checkout.places import PACK, fill
from tests.journeys.test_journeys import repository
from tests.support import ROOT, miniature
from tests.test_readme import commands, options
from tests.valid import fitting

Call = Callable[..., dict[str, object]]


def test_the_published_schema_is_that_of_today() -> None:
    assert (ROOT / "docs/json-schema.json").read_bytes() == schemas.everything()


def test_every_command_with_json_has_a_document() -> None:
    printed = {command.partition(" -")[0] for kind in schemas.DOCUMENTS.values() for command in kind.commands}
    takes = {name for name, command in commands().items() if "--json" in options(command)}
    assert takes == printed - {"every command", "status DIR"}


def test_every_document_is_described() -> None:
    page = (ROOT / "docs/json.md").read_text("utf-8")
    for name, document in schemas.DOCUMENTS.items():
        assert all(f"`{command}`" in page for command in document.commands if command != "every command"), name
        assert f"`{name}`" in page


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command with --json; its one document, which fits its schema."""

    def run(*words: str, status: int | None = 0) -> dict[str, object]:
        ended = main([*words, "--json"])
        out = capsys.readouterr().out
        assert status in (None, ended), out
        return fitting(json.loads(out))

    return run


def test_a_checkout(call: Call, tmp_path: Path) -> None:
    place = str(fill(tmp_path / "ComfyUI", miniature("v0.33.0")))
    assert call("apply", place, "--in-place", "--dry-run")["written"] == ""
    assert call("status", place)["state"] == "not patched"
    assert call("apply", place, "--in-place")["schema"] == "patchforge/apply/1"
    assert call("status", place)["schema"] == "patchforge/folder/1"
    assert call("repair", place)["state"] == "patched"
    assert call("update", place)["was"] == "patched"
    assert call("apply", place, "--in-place", status=2)["schema"] == "patchforge/error/1"
    assert call("doctor", place, status=None)["schema"] == "patchforge/doctor/2"
    assert call("revert", place)["results"]


def test_a_pack(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = str(fill(tmp_path / "pack", PACK))
    monkeypatch.chdir(tmp_path)
    assert call("packs", "check", pack, status=1)["results"]
    assert call("packs", "apply", pack)["schema"] == "patchforge/packs-apply/1"
    call("packs", "apply", pack, "--in-place")
    assert call("status", pack)["state"] == "patched"
    assert call("packs", "revert", pack)["results"]


def test_what_reads_nothing(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("status")["schema"] == "patchforge/status/1"
    assert call("cache")["parts"] == []
    assert call("explain")["results"]
    assert call("packs", "explain")["results"]
    assert call("packs", "explain", "free-memory")["results"]


def test_a_release(call: Call, tmp_path: Path) -> None:
    clone, generated = str(repository(tmp_path / "clone", "v0.33.0")), str(tmp_path / "generated")
    subprocess.run(["git", "-C", clone, "tag", "v0.33.1"], check=True)
    named = ("v0.33.1", "--upstream", clone)
    assert call("apply", *named, "--out", f"{generated}/v0.33.1")["missing"] == []
    assert call("check", *named, "--generated", generated)["results"]
    assert call("verify", *named, "--generated", generated)["results"]
    assert call("doctor", "--upstream", clone, status=1)["schema"] == "patchforge/doctor-upstream/1"


def test_what_is_in_the_repository(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert call("nix", "--check", status=None)["schema"] == "patchforge/nix/1"
    assert call("matrix", "v0.33.0", "--generated", "generated/comfyui")["include"]


#: Documents that no test of this file prints → the test that does, under the same fixture.
ELSEWHERE = {
    "door-render": "tests/door/test_render.py::test_no_certificate_no_whole_file",
    "door-routes": "tests/door/test_routes.py::test_the_command",
    "replay": "tests/test_cli.py::test_replay_needs_the_releases",
    "verify-online": "tests/pins/test_confirm.py::test_the_command",
    "track": "tests/bot/test_commands.py::test_track_says_what_is_new_and_why_not",
    "packs-track": "tests/bot/test_followed_packs.py::test_the_command",
    "bot": "tests/bot/test_commands.py::test_a_dry_run_on_a_clone_needs_no_repository_and_no_network",
    "pin": "tests/pins/test_pin_command.py::test_everything_is_pinned_and_a_second_run_changes_nothing",
    "lock-torch": "tests/pins/test_pin_command.py::test_a_lock_offline_needs_published_hashes",
    "prefetch": "tests/hashes/test_prefetch.py::test_a_commit_of_a_clone",
    "test": "tests/trial/test_test_command.py::test_a_second_run_and_json",
    "health": "tests/operate/test_health.py::test_json",
    "health-pack": "tests/operate/test_pack.py::test_the_pack_is_written",
    "maintain": "tests/operate/test_maintain.py::test_old_outputs_go_and_new_ones_stay",
    "validate": "tests/operate/test_validate.py::test_an_update_that_may_stay",
    "bench": "tests/bench/test_bench_command.py::test_the_cpu_is_measured_by_itself",
    "bench-compare": "tests/bench/test_bench_compare.py::test_the_command_says_what_differs",
    "bench-report": "tests/bench/test_bench_report.py::test_the_command_writes_beside_a_copy",
    "bench-record": "tests/bench/test_costs.py::test_counts_are_kept_and_shown",
    "bench-costs": "tests/bench/test_costs.py::test_counts_are_kept_and_shown",
    "bench-submit": "tests/bench/test_bench_report.py::test_a_submission_says_nothing_of_its_user",
    "arbiter-limit": "tests/arbiter/test_arbiter.py::test_a_limit",
    "models-list": "tests/models/test_models.py::test_everything_is_listed_once",
    "models-done": "tests/models/test_models.py::test_copies_become_one_file",
    "models-verify": "tests/models/test_models.py::test_wrong_bytes_are_told_and_not_spread",
    "bench-history": "tests/bench/test_statistics.py::test_a_history_tells_what_stays",
}
HERE = {
    *("apply", "revert", "put-right", "status", "folder", "cache", "doctor", "doctor-upstream", "check", "verify"),
    *("explain", "matrix", "nix", "packs-check", "packs-apply"),
}


def test_every_document_is_printed_by_a_test() -> None:
    assert HERE | ELSEWHERE.keys() == schemas.DOCUMENTS.keys() - {"error"}
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text("utf-8")


ERRORS = {
    "apply": ("nowhere/", "--in-place"),
    "revert": ("nowhere",),
    "repair": ("nowhere",),
    "update": ("nowhere",),
    "status": ("nowhere",),
    "cache": ("--nonsense",),
    "doctor": ("nowhere",),
    "health": ("nonsense",),
    "maintain": ("nowhere",),
    "validate": ("nonsense",),
    "check": ("--generated", "nowhere"),
    "replay": ("--since", "nonsense"),
    "verify": ("--generated", "nowhere"),
    "explain": ("nonsense",),
    "track": ("--upstream", "nowhere"),
    "bot": ("--dry-run", "--upstream", "nowhere"),
    "matrix": ("nonsense",),
    "pin": ("nonsense",),
    "lock-torch": (),
    "prefetch": ("nonsense",),
    "nix": ("--generated", "nowhere"),
    "test": ("v0.33.0", "--device", "nonsense"),
    "door render": ("nowhere",),
    "door routes": ("--pack", "nowhere"),
    "bench run": ("v0.33.0", "--workflow", "nonsense"),
    "bench compare": ("nowhere",),
    "bench history": ("nowhere",),
    "bench report": ("nowhere",),
    "bench record": ("nowhere",),
    "bench costs": ("--generated", "nowhere"),
    "bench submit": ("nowhere",),
    "arbiter limit": ("x.service", "much"),
    "models list": ("--comfyui", "nowhere"),
    "models link": ("nothing", "nowhere"),
    "models import": ("nowhere",),
    "models verify": ("--ollama", "nowhere"),
    "models gc": ("--hub", "nowhere"),
    "packs check": ("nowhere",),
    "packs apply": ("nowhere",),
    "packs revert": ("nowhere",),
    "packs test": ("nowhere",),
    "packs track": ("nonsense",),
    "packs bot": ("nonsense",),
    "packs explain": ("nonsense",),
}


def test_every_command_is_tried_with_a_mistake() -> None:
    assert ERRORS.keys() == {name for name, command in commands().items() if "--json" in options(command)}


@pytest.mark.parametrize("name", ERRORS)
def test_a_mistake_is_a_document(name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATCHFORGE_UPSTREAM", str(tmp_path))
    said = call(*name.split(), *ERRORS[name], status=None)["error"]
    assert isinstance(said, dict)
    assert said["status"] in (Exit.USAGE, Exit.AGAIN), said
    assert said["problem"]
