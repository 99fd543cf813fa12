"""The bot's rules, each as something that happens upstream or that a person does, over real HTTP and real git."""

from __future__ import annotations

import json
import re

import pytest

from patchforge.bot.model import read_marker
from patchforge.errors import Exit
from patchforge.pins import pin_files
from patchforge.pins.pin_files import ReleasePin
from tests.bot.world import BASE, BOT, FIRST, SECOND, THIRD, TOKEN, World, git, source

BRANCH = "patchforge/comfyui-{}"


def again(world: World, *arguments: str) -> None:
    """A second run makes no write, asks little, and leaves the world as it is."""
    before, asked = world.end_state(), len(world.github.log)
    _, data = world.bot(*arguments)
    assert data["writes"] == 0
    assert data["api_writes"] == []
    assert len(world.github.log) - asked <= 15
    assert world.end_state() == before


def drifting(version: str) -> dict[str, bytes]:
    """A release in which the target of a transform is there under its name and is something else."""
    path = "comfy/model_management.py"
    return {path: source(version)[path].replace(b"torch.xpu.is_bf16_supported", b"torch.xpu.knows_bf16")}


def test_a_release_becomes_a_pull_request(world: World) -> None:
    commit = world.release(FIRST)
    status, data = world.bot()
    assert status == Exit.OK
    assert [action["do"] for action in data["actions"]] == ["push", "open pull request"]
    (pull,) = world.github.pulls
    assert (pull["title"], pull["draft"]) == (f"ComfyUI {FIRST}", False)
    marker = read_marker(pull["body"])
    assert (marker["name"], marker["commit"]) == (FIRST, commit)
    manifest = json.loads(git(world.ours, "show", f"{BRANCH.format(FIRST)}:generated/comfyui/{FIRST}/manifest.json"))
    assert (manifest["release"], manifest["commit"]) == (FIRST, commit)
    again(world)


def test_machine_only_changes_are_a_commit_of_their_own(world: World) -> None:
    commit = world.release(FIRST, date="2026-02-03T23:30:00-05:00")
    world.bot()
    log = git(world.ours, "log", "--format=%s %ae %ce", "--name-only", f"main..{BRANCH.format(FIRST)}").splitlines()
    generated, index = [line for line in log if BOT in line]
    assert generated == f"Generate ComfyUI {FIRST} {BOT} {BOT}"
    assert index == f"Index ComfyUI {FIRST} {BOT} {BOT}"
    paths = [line for line in log if line and BOT not in line]
    assert paths[-1] == "upstream/comfyui.releases.tsv"
    assert all(path.startswith(f"generated/comfyui/{FIRST}/") for path in paths[:-1])
    lines = git(world.ours, "show", f"{BRANCH.format(FIRST)}:upstream/comfyui.releases.tsv").splitlines()
    assert lines[-1] == f"{FIRST}\t{commit}\t2026-02-04"


@pytest.mark.parametrize("way", ["path", "address"])
def test_odd_tags_stop_nothing(world: World, way: str) -> None:
    """Of no commit, of a commit without a date, and with characters at which Python, unlike git, ends a line."""
    commit = world.release(FIRST)
    blob = git(world.upstream, "rev-parse", f"{FIRST}:main.py")
    text = git(world.upstream, "cat-file", "commit", commit)
    (world.folder / "text").write_text(re.sub(r"(committer .*>) \d+", r"\1 tomorrow", text) + "\n")
    undated = git(world.upstream, "hash-object", "-t", "commit", "-w", "--literally", str(world.folder / "text"))
    for tag, oid in {"v0.98.0": undated, "v0.99.0": blob, "v9\u2028x": commit, "v9\u0085": commit}.items():
        git(world.upstream, "update-ref", f"refs/tags/{tag}", oid)
        world.publish(tag)
    status, data = world.bot("--upstream", str(world.upstream) if way == "path" else world.upstream.as_uri())
    assert status == Exit.OK, data["error"]
    assert [pull["title"] for pull in world.github.pulls] == [f"ComfyUI {FIRST}"]
    why = {passed_over["tag"]: passed_over["why"] for passed_over in data["passed"]}
    assert "no date that can be read" in why["v0.98.0"]
    assert "commit" in why["v0.99.0"]
    assert why["v9\u2028x"] == "not the name of a version"


def test_nothing_new_makes_no_write(world: World) -> None:
    status, data = world.bot()
    assert (status, data["writes"], data["actions"]) == (Exit.OK, 0, [])
    assert data["requests"] <= 15


def test_the_newest_of_several_is_proposed(world: World) -> None:
    for version in (FIRST, THIRD, SECOND):
        world.release(version)
    world.bot()
    assert [pull["title"] for pull in world.github.pulls] == [f"ComfyUI {THIRD}"]
    assert all(version in world.pull(1)["body"] for version in (FIRST, SECOND, THIRD))
    again(world)


def test_a_version_can_be_named(world: World) -> None:
    world.release(FIRST)
    world.release(SECOND)
    world.bot(FIRST)
    assert [pull["title"] for pull in world.github.pulls] == [f"ComfyUI {FIRST}"]


@pytest.mark.parametrize(("name", "said"), [(BASE, "not newer"), ("v0.2.0", "not newer"), ("v9.9.9", "no such tag")])
def test_a_named_version_is_no_way_around_the_rules(world: World, name: str, said: str) -> None:
    status, data = world.bot(name)
    assert status == Exit.USAGE
    assert said in data["error"]
    assert world.github.writes == []


def test_an_older_version_is_not_proposed_beside_a_newer_one(world: World) -> None:
    """As when several versions are proposed by runs of their own: they would close each other's for ever."""
    world.release(FIRST)
    world.bot()
    world.release(SECOND)
    world.bot()
    _, data = world.bot(FIRST)
    assert data["writes"] == 0
    assert f"{FIRST}: #2 proposes a newer version" in data["notes"][0]
    world.bot(FIRST, "--recreate")
    assert [pull["state"] for pull in world.github.pulls] == ["closed", "open", "open"]


def test_a_newer_release_supersedes(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.release(SECOND)
    world.bot()
    assert [pull["state"] for pull in world.github.pulls] == ["closed", "open"]
    assert "Superseded by #2." in world.github.comments[1][0]["body"]
    assert list(world.branches()) == [BRANCH.format(SECOND)]
    again(world)


def test_what_a_person_closed_stays_closed(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.pull(1)["state"] = "closed"
    _, data = world.bot()
    assert data["writes"] == 0
    assert "a person closed #1" in data["notes"][0]
    world.bot("--recreate")
    assert [pull["state"] for pull in world.github.pulls] == ["closed", "open"]
    again(world)


def test_what_a_person_closed_comes_back_when_its_patches_change(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.pull(1)["state"] = "closed"
    git(world.upstream, "tag", "--delete", FIRST)
    world.release(FIRST, {"comfy/new_file.py": b"x = 1\n", "comfy_version.txt": b"new"})
    world.bot()
    assert [pull["state"] for pull in world.github.pulls] == ["closed", "open"]


def test_what_a_person_closed_stays_closed_when_the_base_branch_moves(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.pull(1)["state"] = "closed"
    index = git(world.ours, "show", "main:upstream/comfyui.releases.tsv")
    world.commit("main", {"upstream/comfyui.releases.tsv": f"{index}\nv0.30.1\t{'3' * 40}\t2026-01-20\n".encode()})
    _, data = world.bot()
    assert len(world.github.pulls) == 1
    assert "a person closed #1" in data["notes"][0]


def test_a_declined_version_does_not_hold_up_the_next(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.pull(1)["state"] = "closed"
    world.release(SECOND)
    world.bot()
    assert [(pull["title"], pull["state"]) for pull in world.github.pulls][-1] == (f"ComfyUI {SECOND}", "open")
    assert list(world.branches()) == [BRANCH.format(SECOND)]
    again(world)


def test_the_branch_of_a_merged_pull_request_is_deleted(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.merge(1)
    _, data = world.bot()
    assert world.branches() == {}
    assert data["newest"] == FIRST
    again(world)


def test_a_merged_version_leads_to_the_next(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.merge(1)
    world.release(SECOND)
    world.bot()
    assert world.pull(2)["title"] == f"ComfyUI {SECOND}"
    assert f"The base branch has {FIRST}" in world.pull(2)["body"]
    again(world)


def test_a_pull_request_without_a_difference_is_closed(world: World) -> None:
    world.release(FIRST)
    world.bot()
    git(world.ours, "update-ref", "refs/heads/main", f"refs/heads/{BRANCH.format(FIRST)}")
    world.bot()
    assert world.pull(1)["state"] == "closed"
    assert read_marker(world.pull(1)["body"])["closed"] == "no difference"
    assert world.branches() == {}
    again(world)


def test_a_pull_request_that_the_base_branch_overtook_is_closed(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.release(SECOND)
    world.bot(SECOND)
    world.merge(2)
    world.pull(1)["state"] = "open"
    world.commit(BRANCH.format(FIRST), {}, who="patchforge")
    world.bot()
    assert world.pull(1)["state"] == "closed"
    assert f"the base branch has {SECOND}" in world.github.comments[1][-1]["body"]
    assert world.branches() == {}
    again(world)


def test_a_persons_commit_is_never_overwritten(world: World) -> None:
    world.release(FIRST)
    world.bot()
    branch = BRANCH.format(FIRST)
    tip = world.commit(branch, {f"generated/comfyui/{FIRST}/series": b"changed by hand\n"})
    world.bot()
    assert world.branches()[branch] == tip
    assert world.github.comments == {}
    git(world.upstream, "tag", "--delete", FIRST)
    world.release(FIRST, {"comfy/other.py": b"x = 2\n"})
    for _ in range(3):
        _, data = world.bot()
        assert "person committed to it" in data["notes"][0]
    assert world.branches()[branch] == tip
    assert len(world.github.comments[1]) == 1
    assert "leave it alone" in world.github.comments[1][0]["body"]


def test_a_superseded_branch_with_a_persons_commit_stays(world: World) -> None:
    world.release(FIRST)
    world.bot()
    tip = world.commit(BRANCH.format(FIRST), {"notes.txt": b"mine\n"})
    world.release(SECOND)
    world.bot()
    assert [pull["state"] for pull in world.github.pulls] == ["open", "open"]
    assert world.branches()[BRANCH.format(FIRST)] == tip
    assert "it stays open" in world.github.comments[1][0]["body"]
    again(world)


def test_somebody_pushes_while_the_bot_works(world: World) -> None:
    world.release(FIRST)
    world.bot()
    branch, tips = BRANCH.format(FIRST), []
    git(world.upstream, "tag", "--delete", FIRST)
    world.release(FIRST, {"comfy/other.py": b"x = 2\n"})

    def interfere(name: str) -> None:
        if name.startswith("before: push"):
            tips.append(world.commit(branch, {"notes.txt": b"mine\n"}))

    world.crash = interfere
    status, data = world.bot()
    assert status == Exit.AGAIN
    assert "moved while this ran" in data["error"]
    assert [world.branches()[branch]] == tips


def test_a_branch_without_a_pull_request_gets_one(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.github.pulls.clear()
    _, data = world.bot()
    assert [action["do"] for action in data["actions"]] == ["open pull request"]
    again(world)


def test_a_branch_with_other_content_is_pushed_again(world: World) -> None:
    world.release(FIRST)
    world.bot()
    tip = world.branches()[BRANCH.format(FIRST)]
    world.commit(BRANCH.format(FIRST), {f"generated/comfyui/{FIRST}/series": b"old\n"}, who="patchforge")
    _, data = world.bot()
    assert [action["do"] for action in data["actions"]] == ["push"]
    assert world.branches()[BRANCH.format(FIRST)] == tip
    again(world)


def test_the_base_branch_moves_without_a_new_push(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.commit("main", {"README.md": b"more\n"})
    again(world)


def test_a_conflict_in_the_index_is_pushed_away(world: World) -> None:
    world.release(FIRST)
    world.bot()
    index = git(world.ours, "show", "main:upstream/comfyui.releases.tsv")
    world.commit("main", {"upstream/comfyui.releases.tsv": f"{index}\nv0.30.1\t{'3' * 40}\t2026-01-20\n".encode()})
    _, data = world.bot()
    assert [action["do"] for action in data["actions"]] == ["push"]
    git(world.ours, "merge-tree", "--write-tree", "main", BRANCH.format(FIRST))
    again(world)


def test_a_person_may_edit_the_text(world: World) -> None:
    world.release(FIRST)
    world.bot()
    pull = world.pull(1)
    pull["title"], pull["body"] = "mine", pull["body"].replace("## In short", "I looked at it.\n\n## In short")
    again(world)
    assert pull["title"] == "mine"


def test_text_that_is_out_of_date_is_edited(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.github.releases[0]["body"] = "They wrote more."
    _, data = world.bot()
    assert [action["do"] for action in data["actions"]] == ["edit pull request"]
    assert "They wrote more." in world.pull(1)["body"]
    again(world)


def test_duplicates_are_closed(world: World) -> None:
    world.release(FIRST)
    world.bot()
    first = world.pull(1)
    world.github.add_pull(first["head"]["ref"], first["title"], first["body"])
    world.bot()
    assert [pull["state"] for pull in world.github.pulls] == ["closed", "open"]
    assert "The same as #2." in world.github.comments[1][0]["body"]
    assert list(world.branches()) == [BRANCH.format(FIRST)]
    again(world)


def test_a_fork_with_the_same_branch_name_is_not_ours(world: World) -> None:
    world.release(FIRST)
    world.github.add_pull(BRANCH.format(FIRST), "trap", "", home="stranger/patchforge")
    world.bot()
    assert [pull["title"] for pull in world.github.pulls] == ["trap", f"ComfyUI {FIRST}"]
    assert world.pull(1)["state"] == "open"
    again(world)


def test_as_many_as_may_be_open(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.commit(BRANCH.format(FIRST), {"notes.txt": b"mine\n"})
    world.release(SECOND)
    _, data = world.bot("--max-open", "1")
    assert len(world.github.pulls) == 1
    assert "1 pull requests of the bot's stay open, and 1 may" in data["notes"][0]


def test_other_pull_requests_do_not_count(world: World) -> None:
    world.commit("feature", {"feature.py": b"1\n"})
    world.github.add_pull("feature", "a person's", "")
    world.release(FIRST)
    world.bot("--max-open", "1")
    assert [pull["state"] for pull in world.github.pulls] == ["open", "open"]
    again(world)


def test_a_superseded_one_does_not_count(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.release(SECOND)
    world.bot("--max-open", "1")
    assert [pull["state"] for pull in world.github.pulls] == ["closed", "open"]


def test_pre_releases_drafts_and_other_tags(world: World) -> None:
    world.release("v0.31.0-rc1", prerelease=True)
    world.release(FIRST, draft=True, date="2090-01-01T00:00:00Z")
    world.release("latest")
    world.release(SECOND, prerelease=True)
    _, data = world.bot()
    assert data["writes"] == 0
    reasons = {tag["tag"]: tag["why"] for tag in data["passed"]}
    assert reasons["v0.31.0-rc1"] == "a pre-release"
    assert reasons["latest"] == "not the name of a version"
    assert reasons[SECOND] == "GitHub calls it a pre-release"
    assert "a tag without a release" in reasons[FIRST]


def test_a_tag_without_a_release_is_taken_after_a_while(world: World) -> None:
    world.release(FIRST, published=False, date="2090-01-01T00:00:00Z")
    world.release(SECOND, published=False, date="2026-01-01T00:00:00Z")
    world.bot()
    assert [pull["title"] for pull in world.github.pulls] == [f"ComfyUI {SECOND}"]
    assert "a tag without a release" in world.pull(1)["body"]


def test_a_moved_tag_is_refused_and_reported_once(world: World) -> None:
    old = git(world.upstream, "rev-parse", BASE)
    moved = world.release(BASE, {"extra.py": b"1\n"})
    world.release(FIRST)
    status, _ = world.bot()
    assert status == Exit.FAILED
    assert [pull["title"] for pull in world.github.pulls] == [f"ComfyUI {FIRST}"]
    (issue,) = world.github.issues
    assert old in issue["body"]
    assert moved in issue["body"]
    again(world)
    git(world.upstream, "tag", "--force", BASE, old)
    world.bot()
    assert issue["state"] == "closed"
    again(world)


def test_a_tag_that_moves_while_the_bot_works(world: World) -> None:
    world.release(FIRST)
    real = world.engine.convert

    def move(*given: object) -> object:
        result = real(*given)  # type: ignore[arg-type]
        world.release(FIRST, {"extra.py": b"1\n"}, published=False)
        return result

    world.monkeypatch.setattr(world.engine, "convert", move)
    status, data = world.bot()
    assert status == Exit.AGAIN
    assert f"{FIRST} was moved while this ran" in data["error"]
    assert world.github.writes == []
    assert world.branches() == {}


def test_drift_is_reported_once_with_both_fragments(world: World) -> None:
    world.release(FIRST, drifting(FIRST))
    status, _ = world.bot()
    assert status == Exit.DRIFTED
    assert world.github.pulls == []
    (issue,) = world.github.issues
    assert issue["title"] == f"ComfyUI {FIRST}: a transform drifted"
    assert "expected:" in issue["body"]
    assert "found:    " in issue["body"]
    assert "return torch.xpu.is_bf16_supported()" in issue["body"]
    assert "return torch.xpu.knows_bf16()" in issue["body"]
    again(world)


def test_an_issue_that_a_person_closed_is_not_filed_again(world: World) -> None:
    world.release(FIRST, drifting(FIRST))
    world.bot()
    world.github.issues[0]["state"] = "closed"
    again(world)


def test_before_a_version_that_drifts_an_older_one_is_proposed(world: World) -> None:
    world.release(FIRST)
    world.release(SECOND, drifting(SECOND))
    status, _ = world.bot()
    assert status == Exit.DRIFTED
    assert [pull["title"] for pull in world.github.pulls] == [f"ComfyUI {FIRST}"]
    assert [issue["title"] for issue in world.github.issues] == [f"ComfyUI {SECOND}: a transform drifted"]
    assert git(world.ours, "diff", "--name-only", "main", BRANCH.format(FIRST)).count(SECOND) == 0
    again(world)


def test_a_drift_that_changes_is_edited_and_one_that_ends_is_closed(world: World) -> None:
    world.release(FIRST, drifting(FIRST))
    world.bot()
    files = drifting(FIRST)
    path = "comfy/model_management.py"
    world.release(FIRST, {path: files[path].replace(b"knows_bf16", b"can_bf16")}, published=False)
    world.bot()
    assert "can_bf16" in world.github.issues[0]["body"]
    world.release(FIRST, published=False)
    status, _ = world.bot()
    assert status == Exit.OK
    assert world.github.issues[0]["state"] == "closed"
    assert len(world.github.pulls) == 1
    again(world)


def test_a_failed_proof_is_reported_and_not_proposed(world: World) -> None:
    world.release(FIRST, {"comfy/patchforge_xpu.py": b"# ours, already\n"})
    status, _ = world.bot()
    assert status == Exit.FAILED
    assert world.github.pulls == []
    assert [issue["title"] for issue in world.github.issues] == [f"ComfyUI {FIRST}: a check failed"]
    again(world)


def test_more_unclaimed_sites_make_a_draft(world: World) -> None:
    path = "comfy/model_management.py"
    more = source(FIRST)[path] + b"\n\ndef unheard_of():\n    return torch.cuda.device_count()\n"
    world.release(FIRST, {path: more})
    world.bot()
    (pull,) = world.github.pulls
    assert pull["draft"] is True
    assert "Unclaimed sites rose" in pull["body"]
    assert "torch.cuda.device_count" in pull["body"]
    again(world)


def test_a_new_route_is_listed(world: World) -> None:
    """And no reason to hold the release back: the door refuses it."""
    server = b'@routes.get("/queue")\ndef known(request): ...\n\n@routes.post("/run_anything")\ndef new(request): ...\n'
    world.release(FIRST, {"app/server.py": server})
    world.bot()
    (pull,) = world.github.pulls
    assert pull["draft"] is False
    assert "Routes that nobody has decided about" in pull["body"]
    assert "`POST /run_anything`, declared in `app/server.py:4`" in pull["body"].replace("[/api]", "")
    assert "/queue" not in pull["body"]
    again(world)


def tool(name: str, text: str) -> dict[str, bytes]:
    """A patchforge in our repository with one command."""
    return {
        "patchforge/__init__.py": b"",
        "patchforge/__main__.py": f"import sys, os\nfrom patchforge.commands import {name}\n".encode(),
        "patchforge/commands/__init__.py": b"",
        f"patchforge/commands/{name}.py": text.encode(),
    }


def test_a_step_adds_what_it_makes(world: World) -> None:
    text = "import pathlib\np = pathlib.Path('generated/nix/default.nix')\np.parent.mkdir()\np.write_text('{ }\\n')\n"
    world.commit("main", tool("nix", text))
    world.release(FIRST)
    world.bot()
    assert git(world.ours, "show", f"{BRANCH.format(FIRST)}:generated/nix/default.nix") == "{ }"
    assert "- Nix: done" in world.pull(1)["body"]
    assert "hashes: not done" in world.pull(1)["body"]
    again(world)


def test_the_pull_request_names_the_new_hash(world: World) -> None:
    about = {"owner": "o", "repo": "r", "rev": "1" * 40, "tag": "v1", "requirements": (), "hash_source": "computed"}
    old, new = (ReleasePin(hash=f"sha256-{word}=", **about) for word in ("old", "new"))  # type: ignore[arg-type]
    text = f"open('upstream/pins/comfyui.json', 'wb').write({pin_files.render('comfyui', {FIRST: new, BASE: old})!r})\n"
    before = {"upstream/pins/comfyui.json": pin_files.render("comfyui", {BASE: old})}
    world.commit("main", {**tool("pin", text), **before})
    world.release(FIRST)
    world.bot()
    assert "`sha256-old=` before, `sha256-new=` now" in world.pull(1)["body"]
    assert git(world.ours, "show", f"{BRANCH.format(FIRST)}:upstream/pins/comfyui.json").count("sha256-new=") == 1
    again(world)


def test_no_path_of_this_machine_gets_out(world: World) -> None:
    world.commit("main", tool("nix", "import os, sys\nsys.exit('failed in ' + os.getcwd())\n"))
    world.release(FIRST)
    world.release(SECOND, {"comfy/patchforge_xpu.py": b"# ours, already\n"})
    world.bot()
    assert "failed in ." in world.pull(1)["body"]
    everything = json.dumps(world.end_state())
    assert "patchforge-bot-" not in everything
    assert str(world.folder) not in everything


def test_a_step_that_fails_makes_a_draft(world: World) -> None:
    world.commit("main", tool("nix", "print('no hash for @someone'); sys = __import__('sys'); sys.exit(1)\n"))
    world.release(FIRST)
    world.bot()
    (pull,) = world.github.pulls
    assert pull["draft"] is True
    assert "Nix: **failed**" in pull["body"]
    assert "no hash for @someone" in pull["body"]
    again(world)


def test_a_step_that_changes_other_files_is_a_problem(world: World) -> None:
    world.commit("main", tool("nix", "open('upstream/comfyui.toml', 'a').write('# more')\n"))
    world.release(FIRST)
    status, _ = world.bot()
    assert status == Exit.FAILED
    assert world.github.pulls == []
    assert "upstream/comfyui.toml" in world.github.issues[0]["body"]


def test_a_step_sees_no_token(world: World) -> None:
    world.monkeypatch.setenv("GH_TOKEN", TOKEN)
    world.commit("main", tool("nix", "import os\nassert not [v for v in os.environ.values() if 'SeCrEt' in v]\n"))
    world.release(FIRST)
    world.bot()
    assert "- Nix: done" in world.pull(1)["body"]


def test_the_tests_say_once_what_they_saw(world: World) -> None:
    world.commit("main", tool("test", "import time\nprint('emulated XPU: 5 of 5', time.time())\n"))
    world.release(FIRST)
    world.bot("--test")
    (said,) = world.github.comments[1]
    assert "emulated XPU: 5 of 5" in said["body"]
    assert "a comment below says what they saw" in world.pull(1)["body"]
    _, data = world.bot("--test")
    assert data["writes"] == 0
    assert len(world.github.comments[1]) == 1
    again(world)


def test_tests_that_fail_make_a_draft(world: World) -> None:
    world.commit("main", tool("test", "import sys\nprint('image differs')\nsys.exit(1)\n"))
    world.release(FIRST)
    world.bot("--test")
    assert world.pull(1)["draft"] is True
    assert "image differs" in world.github.comments[1][0]["body"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(world: World) -> None:
    world.release(FIRST)
    before = world.end_state()
    status, data = world.bot("--dry-run")
    assert status == Exit.OK
    assert [action["do"] for action in data["actions"]] == ["push", "open pull request"]
    assert data["done"] is False
    assert world.end_state() == before
    assert world.github.log == []


def test_without_a_token_nothing_is_begun(world: World) -> None:
    world.monkeypatch.delenv("GITHUB_TOKEN")
    world.has_token = False
    status, data = world.bot()
    assert status == Exit.USAGE
    assert "there is no token" in data["error"]
    assert world.github.log == []


def test_a_password_in_the_remote_is_refused(world: World) -> None:
    status, data = world.bot("--remote", "https://someone:password@127.0.0.1/x.git")
    assert status == Exit.USAGE
    assert "is not accepted as an address" in data["error"]


def test_a_base_that_was_made_of_plain_files(world: World) -> None:
    """Its manifest names no commit of upstream's."""
    path = f"generated/comfyui/{BASE}/manifest.json"
    manifest = json.loads(git(world.ours, "show", f"main:{path}"))
    world.commit("main", {path: json.dumps({**manifest, "commit": ""}).encode()})
    world.release(FIRST)
    assert world.bot()[0] == Exit.OK
    assert "Requirements of upstream" not in world.pull(1)["body"]
    again(world)


def test_two_runs_at_once(world: World) -> None:
    world.release(FIRST)
    statuses: list[int] = []

    def second(name: str) -> None:
        if name.startswith("before: push"):
            world.crash = lambda _: None
            statuses.append(world.bot()[0])

    world.crash = second
    assert world.bot()[0] == Exit.OK
    assert statuses == [Exit.AGAIN]
    assert len(world.github.pulls) == 1
