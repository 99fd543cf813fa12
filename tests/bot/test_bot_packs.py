"""Node packs whose branches move on, over real HTTP and real git: the rules for releases, for packs."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from patchforge.bot.model import read_marker
from patchforge.errors import CheckFailed, Exit, TryAgain
from patchforge.nodes.patched import PatchedPack
from patchforge.pins.claims import Claim
from tests.bot import test_bot_rules
from tests.bot.pack_world import BOUND, FILES, KEPT, MORE, NODES, PINS, PackWorld, declaration
from tests.bot.test_bodies import NASTY, outside_code
from tests.bot.test_bot_rules import tool
from tests.bot.world import BOT, FIRST, git

BRANCH = "patchforge/nodes-{}"


def young(days: float = 1) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def again(world: PackWorld, *arguments: str) -> None:
    test_bot_rules.again(world, "--nodes", *arguments)


def titles(world: PackWorld, state: str = "open") -> list[str]:
    return [pull["title"] for pull in world.github.pulls if pull["state"] == state]


def test_a_pack_that_moved_on_becomes_a_pull_request(packs: PackWorld) -> None:
    old = packs.pin(KEPT)
    commit = packs.move_on(KEPT)
    status, data = packs.packs()
    assert status == Exit.OK
    assert [action["do"] for action in data["actions"]] == ["push", "open pull request"]
    (pull,) = packs.github.pulls
    assert (pull["title"], pull["draft"]) == (f"Update node pack {KEPT}", False)
    marker = read_marker(pull["body"])
    assert (marker["project"], marker["name"], marker["commit"]) == ("nodes", KEPT, commit)
    branch = BRANCH.format(KEPT)
    new = packs.pin(KEPT, branch)
    assert (new["rev"], new["hash_source"]) == (commit, "computed")
    assert new["hash"] != old["hash"]
    assert packs.pin(BOUND, branch) == packs.pin(BOUND)
    manifest = json.loads(git(packs.ours, "show", f"{branch}:generated/nodes/{KEPT}/manifest.json"))
    assert (manifest["pack"], manifest["commit"], manifest["figures"]["converted"]) == (KEPT, commit, 2)
    assert git(packs.ours, "log", "--format=%s %ae", f"main..{branch}") == f"Update node pack {KEPT} {BOT}"
    paths = git(packs.ours, "diff", "--name-only", "main", branch).splitlines()
    assert all(path == PINS or path.startswith(f"generated/nodes/{KEPT}/") for path in paths)
    again(packs)


def test_the_text_says_what_changed(packs: PackWorld) -> None:
    old, requirements = packs.pin(KEPT), b"numpy>=2\ncupy-cuda12x\n"
    changed = {"nodes.py": MORE, "requirements.txt": requirements, "LICENSE": b"Ask first.\n"}
    start = b"import cupy\n" + FILES["__init__.py"]
    changed["web.py"] = b"@PromptServer.instance.routes.post('/alpha/run')\nasync def run(request): ...\n"
    commit = packs.move_on(KEPT, {**changed, "__init__.py": start}, message="Halve more")
    packs.packs()
    body = packs.pull(1)["body"]
    assert f"https://github.com/someone/{KEPT}/compare/{old['rev']}...{commit}), 1 commits." in body
    assert "2 converted, 0 left on purpose, **1 for a person** (before: 1, 0, 0)" in body
    assert "| pack-cuda-calls | none | 1 converted, 1 person |" in body
    assert "pack-device-literal" not in body  # its number is the same
    assert "`nodes.py:17` in `Halve.other`, `torch.cuda.get_device_capability`" in body
    assert "- new: `cupy-cuda12x`: CUDA only: take it out\n" in body
    assert re.search(r"- new: `cupy`: .*\*\*A node cannot do without it\.\*\*", body)
    assert "| `numpy` | `numpy>=1` | `numpy>=2` |" in body
    assert "**Files about the licence changed: `LICENSE`.** `upstream/nodes/alpha.toml` says `MIT`." in body
    assert f"`{old['hash']}` before, `{packs.pin(KEPT, BRANCH.format(KEPT))['hash']}` now." in body
    assert f"{commit[:12]} 2026-01-10 Halve more" in body
    assert f"< generated/nodes/{KEPT}/0001-xpu.patch" in body
    assert "`POST [/api]/alpha/run`, declared in `web.py:1`" in body
    assert "Revert the merge" in body


def test_nothing_new_makes_no_write(packs: PackWorld) -> None:
    status, data = packs.packs()
    assert (status, data["writes"], data["actions"]) == (Exit.OK, 0, [])
    assert [pack["state"] for pack in data["nodes"]] == ["pinned", "pinned"]
    assert data["requests"] <= 15


def test_of_a_pack_without_a_patch_only_the_pin_changes(packs: PackWorld) -> None:
    packs.move_on(BOUND)
    packs.packs()
    assert git(packs.ours, "diff", "--name-only", "main", BRANCH.format(BOUND)) == PINS
    assert "keeps no patch of this pack" in packs.pull(1)["body"]
    assert "2 converted" in packs.pull(1)["body"]
    again(packs)


def test_a_pack_that_is_not_pinned_yet(packs: PackWorld) -> None:
    packs.declare("gamma")
    packs.packs()
    assert titles(packs) == ["Update node pack gamma"]
    assert "The base branch has no pin of it." in packs.pull(1)["body"]
    assert packs.pin("gamma", BRANCH.format("gamma"))["rev"] == packs.pin(BOUND)["rev"]
    again(packs)


def test_one_pull_request_for_each_pack(packs: PackWorld) -> None:
    for name in (KEPT, BOUND):
        packs.move_on(name)
    packs.packs()
    assert titles(packs) == [f"Update node pack {KEPT}", f"Update node pack {BOUND}"]
    for name, other in ((KEPT, BOUND), (BOUND, KEPT)):
        assert packs.pin(other, BRANCH.format(name)) == packs.pin(other)
    again(packs)


def test_packs_can_be_named(packs: PackWorld) -> None:
    for name in (KEPT, BOUND):
        packs.move_on(name)
    packs.packs(BOUND)
    assert titles(packs) == [f"Update node pack {BOUND}"]
    again(packs, BOUND)
    status, data = packs.packs("alhpa")
    assert status == Exit.USAGE
    assert "no node pack is called alhpa" in data["error"]


@pytest.mark.parametrize("more", [(FIRST,), ("--test",)])
def test_what_is_about_releases_is_refused(packs: PackWorld, more: tuple[str, ...]) -> None:
    status, data = packs.bot(*more, "--nodes")
    assert status == Exit.USAGE
    assert "--nodes is about node packs" in data["error"]


def test_as_many_as_may_be_open(packs: PackWorld) -> None:
    for name in (KEPT, BOUND):
        packs.move_on(name)
    _, data = packs.packs("--max-open", "1")
    assert titles(packs) == [f"Update node pack {KEPT}"]
    assert f"{BOUND}: 1 pull requests of the bot's stay open, and 1 may" in data["notes"][0]
    packs.merge(1)
    packs.packs("--max-open", "1")
    assert titles(packs) == [f"Update node pack {BOUND}"]


def test_the_pull_request_moves_on_with_the_branch(packs: PackWorld) -> None:
    packs.move_on(KEPT)
    packs.packs()
    commit = packs.move_on(KEPT, {"more.py": b"import torch\n"})
    _, data = packs.packs()
    assert [action["do"] for action in data["actions"]] == ["push", "edit pull request"]
    assert len(packs.github.pulls) == 1
    assert packs.pin(KEPT, BRANCH.format(KEPT))["rev"] == commit
    assert commit in packs.pull(1)["body"]
    again(packs)


def test_a_young_commit_waits_and_does_not_hold_up_an_older_one(packs: PackWorld) -> None:
    commit = packs.move_on(KEPT, date=young(8))
    packs.move_on(KEPT, {"more.py": b"x = 1\n"}, date=young())
    packs.move_on(BOUND, date=young())
    _, data = packs.packs()
    assert titles(packs) == [f"Update node pack {KEPT}"]
    assert packs.pin(KEPT, BRANCH.format(KEPT))["rev"] == commit
    assert [pack["state"] for pack in data["nodes"]] == ["new", "waits"]
    again(packs)
    packs.move_on(KEPT, {"more.py": b"x = 2\n"}, date=young(0))
    again(packs)


def test_a_persons_commit_is_never_overwritten(packs: PackWorld) -> None:
    packs.move_on(KEPT)
    packs.packs()
    branch = BRANCH.format(KEPT)
    tip = packs.commit(branch, {"notes.txt": b"mine\n"})
    packs.packs()
    assert packs.github.comments == {}
    packs.move_on(KEPT, {"more.py": b"x = 1\n"})
    for _ in range(3):
        _, data = packs.packs()
        assert "person committed to it" in data["notes"][0]
    assert packs.branches()[branch] == tip
    assert len(packs.github.comments[1]) == 1
    packs.commit("main", {PINS: git(packs.ours, "show", f"{branch}:{PINS}").replace("numpy>=1", "numpy").encode()})
    packs.packs()
    assert packs.branches()[branch] == tip


def test_what_a_person_closed_stays_closed_until_the_branch_moves_on(packs: PackWorld) -> None:
    for name in (KEPT, BOUND):
        packs.move_on(name)
    packs.packs()
    packs.pull(1)["state"] = "closed"
    packs.merge(2)  # so the pins on the base branch are different from then
    for _ in range(2):
        _, data = packs.packs()
        assert "a person closed #1" in data["notes"][0]
    assert len(packs.github.pulls) == 2
    packs.packs("--recreate")
    assert packs.pull(3)["title"] == f"Update node pack {KEPT}"
    packs.pull(3)["state"] = "closed"
    packs.move_on(KEPT, {"more.py": b"x = 1\n"})
    packs.packs()
    assert packs.pull(4)["state"] == "open"
    again(packs)


def test_after_a_merge_nothing_is_left_and_others_still_merge(packs: PackWorld) -> None:
    for name in (KEPT, BOUND):
        packs.move_on(name)
    packs.packs()
    packs.merge(1)
    _, data = packs.packs()
    assert [action["do"] for action in data["actions"]] == ["push", "delete branch"]
    git(packs.ours, "merge-tree", "--write-tree", "main", BRANCH.format(BOUND))
    again(packs)
    packs.merge(2)
    packs.packs()
    assert packs.branches() == {}
    again(packs)


def test_a_pull_request_without_a_difference_is_closed(packs: PackWorld) -> None:
    packs.move_on(KEPT)
    packs.packs()
    git(packs.ours, "update-ref", "refs/heads/main", f"refs/heads/{BRANCH.format(KEPT)}")
    packs.packs()
    assert packs.pull(1)["state"] == "closed"
    assert read_marker(packs.pull(1)["body"])["closed"] == "no difference"
    assert "the base branch has its newest commit" in packs.github.comments[1][0]["body"]
    assert packs.branches() == {}
    again(packs)


def test_a_pack_that_was_pinned_by_hand_to_a_younger_commit(packs: PackWorld) -> None:
    packs.move_on(KEPT)
    packs.packs()
    head = packs.move_on(KEPT, {"more.py": b"x = 1\n"}, date=young())
    pins = json.loads(git(packs.ours, "show", f"main:{PINS}"))
    pins["pins"][KEPT]["rev"] = head
    packs.commit("main", {PINS: json.dumps(pins).encode()})
    packs.move_on(KEPT, {"more.py": b"x = 2\n"}, date=young(0))
    packs.packs()
    assert packs.pull(1)["state"] == "closed"
    assert "no newer commit is old enough" in packs.github.comments[1][0]["body"]
    again(packs)


def test_a_pack_that_is_not_tracked_any_more(packs: PackWorld) -> None:
    packs.declare("gamma")
    packs.packs()
    git(packs.folder, "clone", "--quiet", str(packs.ours), "mine")
    git(packs.folder / "mine", "rm", "--quiet", "upstream/nodes/gamma.toml")
    git(packs.folder / "mine", "commit", "--quiet", "--message", "without it")
    git(packs.folder / "mine", "push", "--quiet", "origin", "main")
    again(packs, KEPT)
    packs.packs()
    assert packs.pull(1)["state"] == "closed"
    assert "not tracked any more" in packs.github.comments[1][0]["body"]
    assert packs.branches() == {}
    again(packs)


def test_duplicates_are_closed(packs: PackWorld) -> None:
    packs.move_on(KEPT)
    packs.packs()
    first = packs.pull(1)
    packs.github.add_pull(first["head"]["ref"], first["title"], first["body"])
    packs.packs()
    assert [pull["state"] for pull in packs.github.pulls] == ["closed", "open"]
    assert "The same as #2." in packs.github.comments[1][0]["body"]
    again(packs)


def test_a_rewritten_branch_is_reported_once(packs: PackWorld) -> None:
    pinned = packs.pin(KEPT)["rev"]
    git(packs.place(KEPT), "update-ref", "-d", "refs/heads/main")
    packs.move_on(KEPT, FILES | {"more.py": b"x = 1\n"})
    packs.move_on(BOUND)
    status, _ = packs.packs()
    assert status == Exit.FAILED
    assert titles(packs) == [f"Update node pack {BOUND}"]
    (issue,) = packs.github.issues
    assert issue["title"] == f"Node pack {KEPT}: it cannot be followed"
    assert f"it lacks the pinned {pinned}" in issue["body"]
    again(packs)
    git(packs.place(KEPT), "update-ref", "refs/heads/main", pinned)
    packs.packs()
    assert issue["state"] == "closed"
    again(packs)


def test_a_tag_that_was_moved_is_reported_once(packs: PackWorld) -> None:
    held = declaration(KEPT).replace(b'branch = "main"', b'version = "1.2"')
    packs.commit("main", {f"upstream/nodes/{KEPT}.toml": held})
    git(packs.place(KEPT), "tag", "v1.2", packs.move_on(KEPT))
    status, _ = packs.packs()
    assert status == Exit.FAILED
    (issue,) = packs.github.issues
    assert f"the tag was moved: it was {packs.pin(KEPT)['rev']} and is" in issue["body"]
    again(packs)


def test_a_pack_that_is_held_at_another_version_now(packs: PackWorld) -> None:
    held = declaration(KEPT).replace(b'branch = "main"', b'version = "1.2"')
    pins = json.loads(git(packs.ours, "show", f"main:{PINS}"))
    pins["pins"][KEPT] |= {"version": "1.1", "tag": "v1.1"}
    packs.commit("main", {f"upstream/nodes/{KEPT}.toml": held, PINS: json.dumps(pins).encode()})
    git(packs.place(KEPT), "tag", "-a", "-m", "said", "v1.2", packs.move_on(KEPT, date=young()))
    assert packs.packs()[0] == Exit.OK
    assert packs.pin(KEPT, BRANCH.format(KEPT))["tag"] == "v1.2"
    again(packs)


def test_a_failed_check_is_reported_once_and_not_proposed(packs: PackWorld) -> None:
    commit = packs.move_on(KEPT)
    packs.move_on(BOUND)

    def fail(_: PatchedPack, _context: int = 0) -> None:
        raise CheckFailed("CUDA is not unchanged", found="`@someone`")

    with packs.monkeypatch.context() as patch:
        patch.setattr(PatchedPack, "check", fail)
        assert packs.packs()[0] == Exit.FAILED
        assert titles(packs) == [f"Update node pack {BOUND}"]
        (issue,) = packs.github.issues
        assert issue["title"] == f"Node pack {KEPT}: a check failed"
        assert commit in issue["body"]
        assert "CUDA is not unchanged" in issue["body"]
        assert "@someone" not in outside_code(issue["body"])
        again(packs)
        issue["state"] = "closed"
        again(packs)
        issue["state"] = "open"
    assert packs.packs()[0] == Exit.OK
    assert issue["state"] == "closed"
    assert f"Update node pack {KEPT}" in titles(packs)
    again(packs)


def test_a_file_that_does_not_stand_its_check_stays_as_it_is_and_is_said(packs: PackWorld) -> None:
    packs.move_on(KEPT, {"nodes.py": MORE, "bad.py": NODES})
    check = PatchedPack.check

    def refuse(self: PatchedPack, context: int = 0) -> None:
        check(self, context)
        if any(change.path == "bad.py" for change in self.converted.changes):
            raise CheckFailed("GNU patch refuses the patch")

    packs.monkeypatch.setattr(PatchedPack, "check", refuse)
    assert packs.packs()[0] == Exit.OK
    (pull,) = packs.github.pulls
    assert pull["draft"]
    assert "GNU patch refuses the patch" in pull["body"]
    patch = git(packs.ours, "show", f"{BRANCH.format(KEPT)}:generated/nodes/{KEPT}/0001-xpu.patch")
    assert "nodes.py" in patch
    assert "bad.py" not in patch


def test_a_hash_that_is_not_the_published_one(packs: PackWorld) -> None:
    commit = packs.move_on(KEPT)
    claim = Claim("sha256-" + "A" * 43 + "=", "somebody")
    packs.monkeypatch.setattr("patchforge.bot.repinning.source_claims", lambda _: {commit: claim})
    assert packs.packs()[0] == Exit.FAILED
    assert f"the hash of {commit} is not the published one" in packs.github.issues[0]["body"]
    assert str(packs.folder) not in packs.github.issues[0]["body"]
    assert packs.branches() == {}


def test_a_declaration_that_does_not_fit_any_more(packs: PackWorld) -> None:
    packs.commit("main", {f"upstream/nodes/{KEPT}.toml": declaration(KEPT, more='without = ["numpy"]\n')})
    packs.move_on(KEPT, {"requirements.txt": b"pillow\n"})
    assert packs.packs()[0] == Exit.FAILED
    (issue,) = packs.github.issues
    assert issue["title"] == f"Node pack {KEPT}: it cannot be pinned"
    assert "does not name what is to be left out" in issue["body"]
    again(packs)
    packs.commit("main", {f"upstream/nodes/{KEPT}.toml": declaration(KEPT)})
    assert packs.packs()[0] == Exit.OK
    assert (issue["state"], titles(packs)) == ("closed", [f"Update node pack {KEPT}"])


def test_one_that_does_not_answer_now_leaves_the_others(packs: PackWorld) -> None:
    packs.declare("gamma")
    packs.packs("gamma")
    settings = packs.folder / "gitconfig"
    good = settings.read_text()
    settings.write_text(f'{good}[url "https://127.0.0.1:9/"]\n\tinsteadOf = https://github.com/someone/gamma\n')
    packs.move_on(KEPT)
    before = packs.pull(1)["body"]
    status, data = packs.packs()
    assert status == Exit.AGAIN
    assert data["nodes"][2]["state"] == "again"
    assert titles(packs) == ["Update node pack gamma", f"Update node pack {KEPT}"]
    assert (packs.pull(1)["body"], packs.github.issues) == (before, [])
    settings.write_text(good)
    again(packs)


def test_a_clone_that_breaks_off_is_tried_again(packs: PackWorld) -> None:
    packs.move_on(KEPT)

    def broken(*_: object) -> None:
        raise TryAgain("git clone failed", found="early EOF")

    with packs.monkeypatch.context() as patch:
        patch.setattr("patchforge.bot.repinning.check_out", broken)
        status, data = packs.packs()
    assert (status, data["writes"]) == (Exit.AGAIN, 0)
    assert packs.packs()[0] == Exit.OK


def test_a_pack_that_is_gone_is_reported_once(packs: PackWorld) -> None:
    packs.place(KEPT).rename(packs.folder / "gone")
    assert packs.packs()[0] == Exit.FAILED
    assert "does not answer" in packs.github.issues[0]["body"]
    again(packs)
    (packs.folder / "gone").rename(packs.place(KEPT))
    assert packs.packs()[0] == Exit.OK
    assert packs.github.issues[0]["state"] == "closed"


def test_nix_expressions_are_part_of_it(packs: PackWorld) -> None:
    text = "import pathlib\np = pathlib.Path('generated/nix/data.json')\np.parent.mkdir()\np.write_text('{}\\n')\n"
    packs.commit("main", tool("nix", text))
    packs.move_on(KEPT)
    packs.packs()
    assert git(packs.ours, "show", f"{BRANCH.format(KEPT)}:generated/nix/data.json") == "{}"
    assert "- Nix: done" in packs.pull(1)["body"]
    again(packs)


def test_nix_that_fails_makes_a_draft(packs: PackWorld) -> None:
    packs.commit("main", tool("nix", "import os, sys\nsys.exit('no @someone in ' + os.getcwd())\n"))
    packs.move_on(KEPT)
    packs.packs()
    (pull,) = packs.github.pulls
    assert pull["draft"] is True
    assert "Nix: **failed**" in pull["body"]
    assert "no @someone in ." in pull["body"]
    again(packs)


def test_a_step_that_changes_other_files_is_a_problem(packs: PackWorld) -> None:
    packs.commit("main", tool("nix", f"open('upstream/nodes/{BOUND}.toml', 'a').write('# more')\n"))
    packs.move_on(KEPT)
    assert packs.packs()[0] == Exit.FAILED
    assert packs.github.pulls == []
    assert f"upstream/nodes/{BOUND}.toml" in packs.github.issues[0]["body"]


def test_a_file_that_cannot_be_read_makes_a_draft(packs: PackWorld) -> None:
    packs.move_on(KEPT, {"broken.py": b"import torch\ndef f(:\n    torch.cuda.synchronize()\n"})
    packs.packs()
    (pull,) = packs.github.pulls
    assert pull["draft"] is True
    assert "**Not looked at:** `broken.py:2`" in pull["body"]
    packs.merge(1)
    packs.move_on(KEPT)
    packs.packs()
    assert packs.pull(2)["draft"] is False  # it was so before


def test_a_strangers_text_is_inert(packs: PackWorld) -> None:
    name = "a`b@someone #1 <!-- x.py"
    packs.move_on(KEPT, {name: NODES + b"\ntorch.cuda.get_device_capability()\n"}, message=NASTY)
    packs.move_on(KEPT, {"__init__.py": f'import importlib\nimportlib.import_module("{name}")\n'.encode()})
    packs.packs()
    body = packs.pull(1)["body"]
    assert "@someone" in body
    plain = outside_code(body)
    for harmful in ("@someone", "#1", "#4", "<!--", "<script", "evil", "[l]"):
        assert harmful not in plain
    assert plain.count("<details>") == plain.count("</details>") == 1
    assert read_marker(body)["name"] == KEPT
    again(packs)


def test_many_commits_are_cut(packs: PackWorld) -> None:
    for number in range(60):
        packs.move_on(KEPT, {"more.py": f"x = {number}\n".encode()}, message=f"{number} " + "word " * 2000)
    packs.packs()
    body = packs.pull(1)["body"]
    assert "the newest 50 of 60" in body
    assert len(body) < 20_000
    assert "59 word" in body
    assert "\n9 word" not in body


def test_a_dry_run_prints_the_plan_and_writes_nothing(packs: PackWorld) -> None:
    packs.move_on(KEPT)
    before = packs.end_state()
    status, data = packs.packs("--dry-run")
    assert (status, data["done"]) == (Exit.OK, False)
    assert [action["do"] for action in data["actions"]] == ["push", "open pull request"]
    assert packs.end_state() == before
    assert packs.github.writes == []


def test_releases_and_packs_leave_each_other_alone(packs: PackWorld) -> None:
    packs.release(FIRST)
    git(packs.place(BOUND), "update-ref", "-d", "refs/heads/main")
    packs.move_on(BOUND, FILES | {"more.py": b"x = 1\n"})
    packs.move_on(KEPT)
    packs.packs()
    packs.bot("--max-open", "1")
    assert titles(packs) == [f"Update node pack {KEPT}", f"ComfyUI {FIRST}"]
    assert [issue["state"] for issue in packs.github.issues] == ["open"]
    again(packs, "--max-open", "1")
    before = packs.end_state()
    packs.bot()
    assert packs.end_state() == before


def test_no_path_of_this_machine_gets_out(packs: PackWorld) -> None:
    packs.commit("main", tool("nix", "import os, sys\nsys.exit('failed in ' + os.getcwd())\n"))
    packs.move_on(KEPT)
    packs.move_on(BOUND)
    lacking = {f"upstream/nodes/{BOUND}.toml": declaration(BOUND).replace(b"requirements.txt", b"absent.txt")}
    packs.commit("main", lacking)
    packs.packs()
    everything = json.dumps(packs.end_state())
    assert "failed in ." in everything
    assert [issue["title"] for issue in packs.github.issues] == [f"Node pack {BOUND}: it cannot be pinned"]
    for path in ("patchforge-bot-", "patchforge-pack-", str(packs.folder)):
        assert path not in everything
