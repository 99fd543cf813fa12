"""Pins of repositories, from real clones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import of_checkout, of_clone
from patchforge.pins.claims import Claim, source_claims, wheel_claims
from patchforge.pins.pin_files import RepositoryPin, SourcePin
from patchforge.pins.repositories import Clones, pin, with_known_hash
from patchforge.pins.tracked import TrackedRepository, load_nodes, load_repository
from tests.pins.conftest import git, lose, repository

PACK = TrackedRepository(
    name="pack",
    title="A pack",
    url="https://github.com/Someone/Pack",
    license="MIT",
    branch="main",
    group="samplers",
    requirements="requirements.txt",
)
FILES = {
    "__init__.py": "NODE_CLASS_MAPPINGS = {}\n",
    "requirements.txt": "Onnxruntime_GPU\nnumpy>=1\n",
    "a.png": "picture",
}
HASH = "sha256-bJPj7L6w5Uj9LfRaYFRys0wWFCh8VrUbszze965SNbU="


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    repository(tmp_path / "pack", FILES)
    return tmp_path / "pack"


def clones(**named: Path) -> Clones:
    return Clones({name: str(path) for name, path in named.items()})


def test_a_pin_is_the_branchs_head(clone: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    git(clone, "checkout", "-q", "--detach")
    assert pin(PACK, clones(pack=clone), {}) == RepositoryPin(
        owner="Someone",
        repo="Pack",
        rev=head,
        date="2026-03-04",
        license="MIT",
        group="samplers",
        submodules=False,
        requirements=("numpy>=1", "onnxruntime-gpu"),
        hash=of_clone(clone, head).hash,
        hash_source="computed",
    )


def test_a_held_version_is_its_tag(clone: Path) -> None:
    git(clone, "tag", "-a", "v1.2", "-m", "x")
    tagged = git(clone, "rev-parse", "HEAD")
    git(clone, "commit", "-q", "--allow-empty", "-m", "later")
    held = replace(PACK, branch="", version="1.2", group="", vendor_hash="sha256-x")
    pinned = pin(held, clones(pack=clone), {})
    assert (pinned.rev, pinned.tag, pinned.version, pinned.vendor_hash) == (tagged, "v1.2", "1.2", "sha256-x")


def test_requirements_are_corrected(clone: Path) -> None:
    corrected = replace(PACK, without=("onnxruntime-gpu",), also=("onnxruntime",))
    assert pin(corrected, clones(pack=clone), {}).requirements == ("numpy>=1", "onnxruntime")


def test_a_correction_that_fits_no_longer_is_an_error(clone: Path) -> None:
    with pytest.raises(PatchforgeError, match=r"(?s)does not name what is to be left out.*cupy"):
        pin(replace(PACK, without=("cupy",)), clones(pack=clone), {})


def test_an_incomplete_clone_says_what_is_missing_and_has_no_hash(clone: Path) -> None:
    blob = lose(clone, "a.png")
    pinned = pin(PACK, clones(pack=clone), {})
    assert (pinned.missing, pinned.hash, pinned.hash_source) == ({"a.png": blob}, "", "")


def test_an_incomplete_clone_and_a_published_hash(clone: Path) -> None:
    lose(clone, "a.png")
    head = git(clone, "rev-parse", "HEAD")
    pinned = pin(PACK, clones(pack=clone), {head: Claim(HASH, "someone/flake")})
    assert (pinned.hash, pinned.hash_source, pinned.published_by) == (HASH, "published", "someone/flake")
    assert pinned.missing == {}


def test_a_published_hash_of_another_commit_does_not_serve(clone: Path) -> None:
    lose(clone, "a.png")
    assert pin(PACK, clones(pack=clone), {"0" * 40: Claim(HASH, "someone/flake")}).hash == ""


def test_a_published_hash_that_is_wrong(clone: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    with pytest.raises(CheckFailed, match=r"(?s)not the published one.*someone/flake"):
        pin(PACK, clones(pack=clone), {head: Claim(HASH, "someone/flake")})


def test_a_branch_that_is_not_there(clone: Path) -> None:
    with pytest.raises(PatchforgeError, match=r"(?s)has no other.*upstream/nodes/pack\.toml"):
        pin(replace(PACK, branch="other"), clones(pack=clone), {})


def test_submodules_come_from_clones_of_their_own(clone: Path, tmp_path: Path) -> None:
    inner = repository(tmp_path / "inner", {"script.py": "x = 1\n"})
    git(clone, "submodule", "--quiet", "add", "--", str(tmp_path / "inner"), "libs/inner")
    git(clone, "commit", "-q", "-m", "two")
    shared = clones(**{"pack": clone, "pack/libs/inner": tmp_path / "inner"})
    pinned = pin(replace(PACK, submodules=True), shared, {})
    expected = of_checkout(clone, pinned.rev, {"libs/inner": tmp_path / "inner"})
    assert (pinned.hash, pinned.hash_source, pinned.submodules) == (expected.hash, "computed", True)
    assert pinned.hash != of_clone(clone, pinned.rev).hash
    assert inner != pinned.rev


def test_a_computed_hash_outlives_a_worse_source() -> None:
    before = SourcePin(owner="o", repo="r", rev="1", hash="A", hash_source="computed")
    incomplete = SourcePin(owner="o", repo="r", rev="1", missing={"a": "b"})
    assert with_known_hash(incomplete, before) == before
    assert with_known_hash(replace(before, hash_source="published", published_by="x"), before) == before
    moved = replace(incomplete, rev="2")
    assert with_known_hash(moved, before) == moved
    assert with_known_hash(moved, None) == moved
    with pytest.raises(CheckFailed, match="another hash now"):
        with_known_hash(replace(before, hash="B"), before)


GOOD = (
    'name = "pack"\ntitle = "t"\nurl = "https://github.com/a/b"\nlicense = "MIT"\nbranch = "main"\ngroup = "samplers"\n'
)


def test_a_declaration(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes/pack.toml").write_text(GOOD, "utf-8")
    assert [node.name for node in load_nodes(tmp_path)] == ["pack"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (GOOD.replace("samplers", "games"), "group"),
        (GOOD.replace("github.com", "example.org"), "url"),
        (GOOD.replace('name = "pack"', 'name = "other"'), "name"),
        (GOOD + 'version = "1"\n', "branch or version"),
        (GOOD.replace('branch = "main"\n', ""), "branch or version"),
        (GOOD + "sub_modules = true\n", "sub_modules"),
        (GOOD.replace('license = "MIT"\n', ""), "license"),
        ("name =", "is not TOML"),
    ],
)
def test_a_wrong_declaration(tmp_path: Path, wrong: str, named: str) -> None:
    path = tmp_path / "nodes/pack.toml"
    path.parent.mkdir()
    path.write_text(wrong, "utf-8")
    with pytest.raises(PatchforgeError, match=named):
        load_repository(path)


def test_lists_of_published_hashes_are_checked(tmp_path: Path) -> None:
    lines = ["torch\tabi\tfile\thash\tpublished_by", f"2\tcp312\ta.whl\t{HASH}\tx", f"2\tcp312\tb.whl\t{HASH}\tx"]
    (tmp_path / "torch.hashes.tsv").write_text("\n".join(lines), "utf-8")
    with pytest.raises(CheckFailed, match="two revisions have one hash"):
        wheel_claims(tmp_path)
    (tmp_path / "torch.hashes.tsv").write_text(lines[0] + "\n2\tcp312\ta.whl\n", "utf-8")
    with pytest.raises(PatchforgeError, match="not the table"):
        wheel_claims(tmp_path)
    with pytest.raises(PatchforgeError):
        source_claims(tmp_path)  # without comfyui.toml
