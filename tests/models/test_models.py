"""One copy of each model: seen, linked, merged and removed only where nothing refers to it."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from patchforge.cli import main
from patchforge.errors import Exit
from patchforge.models.ollama import PROJECTOR
from tests.models.world import MODEL, Machine, content, digest, gguf_bytes, safetensors_bytes
from tests.operate.test_maintain import refusing
from tests.support import bound

Call = Callable[..., dict[str, object]]
WEIGHTS = safetensors_bytes()
MORE = {letter: safetensors_bytes(b"weights of a model" * 100 + letter) for letter in (b"x", b"y")}


@pytest.fixture
def call(here: Machine, capsys: pytest.CaptureFixture[str]) -> Call:
    """``patchforge models …`` on that machine with --json; its document."""

    def run(*words: str, status: int = 0) -> dict[str, object]:
        ended = main(["models", words[0], *words[1:], *here.words, "--json"])
        out = capsys.readouterr().out
        assert ended == status, out
        told: dict[str, object] = json.loads(out)
        return told

    return run


@pytest.fixture
def said(here: Machine, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: str, status: int = 0) -> str:
        ended = main(["models", words[0], *words[1:], *here.words])
        both = capsys.readouterr()
        assert ended == status, both.err
        return both.out + both.err

    return run


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_nothing_is_there(said: Callable[..., str]) -> None:
    assert "no model in" in said("list")
    assert "nothing to do" in said("gc")
    assert "0 files read" in said("verify")


def test_everything_is_listed_once(here: Machine, call: Call, said: Callable[..., str]) -> None:
    here.model("checkpoints/a.safetensors", WEIGHTS)
    here.model("loras/notes.txt", WEIGHTS)
    here.downloaded("owner/name", "a.safetensors", WEIGHTS)
    here.pulled("qwen3:4b", (MODEL, gguf_bytes()), ("application/vnd.ollama.image.template", b"text"))
    listed = call("list")
    assert listed["duplicated"] == len(WEIGHTS)
    assert listed["problems"] == []
    names = sorted((name["place"], name["name"]) for file in listed["files"] for name in file["names"])  # type: ignore[attr-defined]
    assert names == [
        ("comfyui", "checkpoints/a.safetensors"),
        ("huggingface", "owner/name/a.safetensors"),
        ("ollama", "qwen3:4b"),
    ]
    assert "copy, of 2" in said("list")


def test_an_ollama_model_becomes_a_text_encoder(here: Machine, call: Call) -> None:
    """Under its own name, with the projector where ComfyUI-GGUF looks for it, and without a byte more."""
    model, projector = gguf_bytes("qwen2vl"), gguf_bytes("clip")
    here.pulled("qwen2.5vl:7b", (MODEL, model), (PROJECTOR, projector))
    before = here.bytes_used()
    call("link", "qwen2.5vl:7b", "comfyui:text_encoders", status=2)  # ComfyUI has no such folder yet
    (here.comfyui / "models" / "text_encoders").mkdir()
    call("link", "qwen2.5vl:7b", "comfyui:text_encoders")
    folder = here.comfyui / "models" / "text_encoders"
    assert content(folder) == {"qwen2.5vl-7b.gguf": model, "qwen2.5vl-7b-mmproj.gguf": projector}
    assert inode(folder / "qwen2.5vl-7b.gguf") == inode(here.ollama / "blobs" / f"sha256-{digest(model)}")
    assert here.bytes_used() - before == (here.store / "README").stat().st_size
    assert call("link", "qwen2.5vl:7b", "comfyui:text_encoders")["done"] == []


def test_each_name_that_is_a_digest_says_of_which_model(here: Machine, call: Call, said: Callable[..., str]) -> None:
    """In the store, in Ollama's folders, and as a copy of another."""
    file = here.model("text_encoders/mine.gguf", gguf_bytes("llama"))
    here.pulled("pulled:1b", (MODEL, gguf_bytes("qwen3")))
    told = said("import", "--dry-run", status=0)
    assert f"(of {file})" in told
    assert "(of ollama's pulled:1b)" in told
    call("import")
    for change in call("link", str(file), "ollama:mine")["done"]:  # type: ignore[attr-defined]
        assert change["of"] in {str(file), "Ollama's mine:latest"}, change
    copy = here.model("checkpoints/copy.gguf", gguf_bytes("llama"))
    done = call("import", "--merge")["done"]
    merged = {change["path"]: change["of"] for change in done if change["what"] == "merged"}  # type: ignore[attr-defined]
    assert {*merged.values()} == {str(copy)}
    assert str(file) in merged


def test_where_ollama_has_no_folder_yet_it_says_what_makes_one(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = here.model("text_encoders/mine.gguf", gguf_bytes("llama"))
    monkeypatch.setattr("patchforge.models.places._OLLAMA", ({}, (str(here.top / "nowhere"),)))
    assert main(["models", "link", str(file), "ollama:mine", "--store", str(here.store)]) == 2
    assert "ollama serve" in capsys.readouterr().err


def test_a_file_becomes_a_model_of_ollamas(here: Machine, call: Call) -> None:
    file = here.model("text_encoders/mine.gguf", gguf_bytes("llama", file_type=3))
    assert [change["what"] for change in call("link", str(file), "ollama:mine", "--dry-run")["done"]] == [  # type: ignore[attr-defined]
        "linked",
        "linked",
        "written",
        "written",
    ]
    assert not here.store.exists()
    call("link", str(file), "ollama:mine")
    manifest = json.loads((here.ollama / "manifests/registry.ollama.ai/library/mine/latest").read_bytes())
    (layer,) = manifest["layers"]
    assert inode(here.ollama / "blobs" / layer["digest"].replace(":", "-")) == inode(file)
    config = (here.ollama / "blobs" / manifest["config"]["digest"].replace(":", "-")).read_bytes()
    assert f"sha256:{digest(config)}" == manifest["config"]["digest"]
    assert json.loads(config)["model_family"] == "llama"
    assert json.loads(config)["file_type"] == "Q4_1"
    assert call("link", str(file), "ollama:mine")["done"] == []
    other = here.model("text_encoders/other.gguf", gguf_bytes("qwen3"))
    assert "already" in str(call("link", str(other), "ollama:mine", status=2)["error"])


def test_copies_become_one_file(here: Machine, call: Call) -> None:
    """0 bytes twice afterwards; names, bytes, and what a program has open stay."""
    data = gguf_bytes(weights=bytes(1024))
    here.pulled("qwen3:4b", (MODEL, data))
    here.downloaded("owner/name", "q.gguf", data)
    file = here.model("text_encoders/q.gguf", data)
    here.model("text_encoders/again.gguf", data)
    before = content(here.top)
    planned = call("import", "--merge", "--dry-run")
    assert content(here.top) == before
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        done = call("import", "--merge")
        assert mapped[:] == data
    assert done["freed"] == planned["freed"] == 3 * len(data)
    after = content(here.top)
    assert {name: after[name] for name in before} == before
    assert call("list")["duplicated"] == 0
    assert len({inode(path) for path in here.top.rglob("*") if path.is_file() and path.suffix == ".gguf"}) == 1
    assert call("import", "--merge")["done"] == []


def test_a_file_that_is_written_to_is_left(here: Machine, call: Call) -> None:
    here.model("checkpoints/a.safetensors", WEIGHTS)
    with here.model("checkpoints/b.safetensors", WEIGHTS).open("r+b"):
        left = call("import", "--merge")["left"]
        assert "writes to" in str(left)
    assert call("import", "--merge")["left"] == []


def test_rights_are_not_lost(here: Machine, call: Call) -> None:
    here.model("checkpoints/a.safetensors", WEIGHTS).chmod(0o600)
    here.model("checkpoints/b.safetensors", WEIGHTS)
    assert "other permissions" in str(call("import", "--merge")["left"])


def test_only_what_nothing_refers_to_is_removed(here: Machine, call: Call) -> None:
    file = here.model("checkpoints/a.safetensors", WEIGHTS)
    other = here.model("checkpoints/b.safetensors", MORE[b"x"])
    linked = here.model("checkpoints/c.safetensors", MORE[b"y"])
    call("import")
    assert call("gc", "--delete")["done"] == []
    for path in (file, other, linked):
        path.unlink()
    linked.symlink_to(here.store / "sha256" / digest(MORE[b"y"]))
    with (here.store / "sha256" / digest(WEIGHTS)).open("rb"):
        assert call("gc")["freed"] == len(WEIGHTS) + 1
        told = call("gc", "--delete")
    assert (told["freed"], "has it open" in str(told["left"])) == (len(WEIGHTS) + 1, True)
    assert {path.name for path in (here.store / "sha256").iterdir()} == {digest(WEIGHTS), digest(MORE[b"y"])}
    assert call("gc", "--delete")["freed"] == len(WEIGHTS)
    assert linked.read_bytes() == MORE[b"y"]


@pytest.mark.parametrize("place", ["models/unet/.hid.gguf", "models/top.engine", "custom_nodes/p/x.txt", "models/vae"])
def test_whatever_link_leads_to_a_file_keeps_it(place: str, here: Machine, call: Call) -> None:
    """Hidden ones, those with any ending, those outside of models, and links to the folder that it is in."""
    file = here.model("checkpoints/a.safetensors", WEIGHTS)
    call("import")
    file.unlink()
    link = here.comfyui / place
    link.parent.mkdir(parents=True, exist_ok=True)
    stored = here.store / "sha256"
    link.symlink_to(stored if place == "models/vae" else stored / digest(WEIGHTS))
    assert call("gc", "--delete")["done"] == []
    link.unlink()
    assert call("gc", "--delete")["freed"] == len(WEIGHTS)


def test_nothing_is_removed_where_a_manifest_cannot_be_read(
    here: Machine, call: Call, said: Callable[..., str]
) -> None:
    file = here.model("checkpoints/a.safetensors", WEIGHTS)
    call("import")
    file.unlink()
    manifest = here.ollama / "manifests/registry.ollama.ai/library/x/latest"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text("{")
    assert "what refers to models cannot be told" in said("gc", "--delete", status=Exit.UNCHECKED)
    assert (here.store / "sha256" / digest(WEIGHTS)).exists()


def test_empty_files_are_no_copies(here: Machine, call: Call) -> None:
    files = [here.model(f"loras/{name}.safetensors", b"") for name in ("a", "b")]
    assert str(call("import", "--merge", status=Exit.DATA)["problems"]).count("it is empty") == 2
    assert inode(files[0]) != inode(files[1])
    assert list((here.store / "sha256").iterdir()) == []


def test_a_protected_file_stays_so(here: Machine, call: Call) -> None:
    """Whichever of the two comes first."""
    for name, mode in (("a", 0o644), ("b", 0o400)):
        here.model(f"checkpoints/{name}.safetensors", WEIGHTS).chmod(mode)
    assert "other permissions" in str(call("import", "--merge")["left"])


def test_a_file_from_elsewhere_is_kept(here: Machine, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "download.safetensors"
    file.write_bytes(WEIGHTS)
    call("import", str(file))
    file.unlink()
    assert (here.store / "sha256" / digest(WEIGHTS)).read_bytes() == WEIGHTS
    assert "is not there" in str(call("import", str(file), status=2)["error"])


def test_wrong_bytes_are_told_and_not_spread(here: Machine, call: Call, said: Callable[..., str]) -> None:
    data = gguf_bytes()
    here.pulled("qwen3:4b", (MODEL, data))
    (here.comfyui / "models" / "text_encoders").mkdir()
    (here.ollama / "blobs" / f"sha256-{digest(data)}").write_bytes(gguf_bytes(words=9))
    assert "not what its name says" in said("link", "qwen3:4b", "comfyui:text_encoders", status=Exit.DATA)
    assert "1 names wrong" in said("verify", status=Exit.FAILED)
    assert len(call("verify", status=Exit.FAILED)["wrong"]) == 1  # type: ignore[arg-type]
    assert not any((here.comfyui / "models" / "text_encoders").iterdir())


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (b"{" + b" " * (5 << 20) + b"}", "too large"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not what it should be"),
        (b'{"layers": "sha256:1"}', "expected a list"),
        (
            b'{"config": LAYER, "layers": [{"mediaType": "a", "digest": "sha256:../../../x", "size": 1}]}',
            "names no blob",
        ),
        (b'{"config": LAYER, "layers": [{"mediaType": "a", "digest": "DIGEST", "size": -1}]}', "names no blob"),
        (b'{"config": LAYER, "layers": [{"mediaType": "a", "digest": 5, "size": 1}]}', "not what it should be"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_a_manifest_that_is_none(manifest: bytes, why: str, here: Machine, call: Call) -> None:
    """It is said and passed over; the others are listed."""
    layer = b'{"mediaType": "", "digest": "", "size": 0}'
    here.manifest("bad", manifest.replace(b"LAYER", layer).replace(b"DIGEST", b"sha256:" + b"1" * 64))
    here.pulled("good", (MODEL, gguf_bytes()))
    listed = call("list")
    assert why in str(listed["problems"])
    assert len(listed["files"]) == 1  # type: ignore[arg-type]


def test_odd_folders(here: Machine, call: Call) -> None:
    """Circles of links, links to nothing, pipes, folders and files that may not be read: each is told."""
    models = here.comfyui / "models"
    here.model("checkpoints/a.safetensors", WEIGHTS)
    (models / "checkpoints" / "round").symlink_to(models / "checkpoints")
    (models / "checkpoints" / "up").symlink_to(models)
    (models / "checkpoints" / "self.safetensors").symlink_to("self.safetensors")
    (models / "checkpoints" / "gone.safetensors").symlink_to("nowhere")
    os.mkfifo(models / "checkpoints" / "pipe.safetensors")
    here.pulled("lacking", (MODEL, b"gone"))
    (here.ollama / "blobs" / f"sha256-{digest(b'gone')}").unlink()
    listed = call("list")
    assert len(listed["files"]) == 1  # type: ignore[arg-type]
    told = str(listed["problems"])
    assert all(name in told for name in ("self.safetensors", "gone.safetensors", "pipe.safetensors", digest(b"gone")))


def test_symlinks_to_models_are_no_copies(here: Machine, call: Call) -> None:
    blob = here.downloaded("owner/name", "a.safetensors", WEIGHTS)
    link = here.comfyui / "models" / "checkpoints" / "a.safetensors"
    link.parent.mkdir()
    link.symlink_to(blob)
    listed = call("list")
    assert listed["duplicated"] == 0
    paths = [name["path"] for file in listed["files"] for name in file["names"]]  # type: ignore[attr-defined]
    assert sorted(paths) == sorted({*paths}), "each is named once"
    assert str(link) in paths
    call("import", "--merge")
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["nothing", "ollama:x"], 2, "no model nothing"),
        (["FILE", "elsewhere:x"], 2, "not a place"),
        (["FILE", "comfyui:/etc"], 2, "not a place"),
        (["FILE", "comfyui:"], 2, "not a place"),
        (["FILE", "ollama:/x"], 2, "not a place"),
        (["FILE", "ollama:../../x"], 2, "not a name"),
        (["FILE", "ollama:a b"], 2, "not a name"),
        (["FILE", "comfyui:nowhere"], 2, "no folder for nowhere"),
        (["FILE", "comfyui:text_encoders/../x"], 2, "cannot be the name"),
        (["FILE", "comfyui:text_encoders/a:b"], 2, "cannot be the name"),
        (["FILE", "comfyui:text_encoders/con"], 2, "device"),
        (["FILE", "comfyui:text_encoders", "--symlink"], 2, "may be replaced"),
        (["FLUX", "comfyui:text_encoders"], 2, "reads no flux in text_encoders"),
        (["TEXT", "ollama:x"], Exit.DATA, "not a GGUF file"),
    ],
)
def test_what_cannot_be_linked(
    words: list[str], status: int, why: str, here: Machine, said: Callable[..., str]
) -> None:
    files = {
        "FILE": here.model("text_encoders/mine.gguf", gguf_bytes()),
        "FLUX": here.model("unet/flux.gguf", gguf_bytes("flux")),
        "TEXT": here.model("checkpoints/a.safetensors", WEIGHTS),
    }
    before = content(here.top)
    assert why in said("link", str(files.get(words[0], words[0])), *words[1:], status=status)
    assert {name: data for name, data in content(here.top).items() if name != "store/README"} == before


def test_another_disk_is_told(
    here: Machine, said: Callable[..., str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hard link leads there; a symlink to a blob may."""

    def no(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    here.pulled("qwen3:4b", (MODEL, gguf_bytes()))
    (here.comfyui / "models" / "text_encoders").mkdir()
    monkeypatch.setattr(os, "link", no)
    assert "another file system" in said("link", "qwen3:4b", "comfyui:text_encoders", status=Exit.SYSTEM)
    call("link", "qwen3:4b", "comfyui:text_encoders", "--symlink")
    assert (here.comfyui / "models" / "text_encoders" / "qwen3-4b.gguf").read_bytes() == gguf_bytes()


def test_a_folder_of_somebody_elses_is_no_store(here: Machine, said: Callable[..., str]) -> None:
    here.store.mkdir()
    (here.store / "mine").write_bytes(b"mine")
    assert "not a store" in said("import", status=2)


def test_folders_of_extra_model_paths(here: Machine, call: Call, tmp_path: Path) -> None:
    (tmp_path / "more" / "enc").mkdir(parents=True)
    (tmp_path / "more" / "enc" / "x.gguf").write_bytes(gguf_bytes())
    extra = here.comfyui / "extra_model_paths.yaml"
    extra.write_text(f"a:\n  base_path: {tmp_path}/more\n  is_default: true\n  clip: |\n    enc\n    gone\nb:\n")
    (name,) = call("list")["files"][0]["names"]  # type: ignore[index]
    assert name["name"] == "text_encoders/x.gguf"
    for text, why in (("a: [1", "not YAML"), ("- 1", "not what it should be"), ("a: 5", "not what it should be")):
        extra.write_text(text)
        assert why in str(call("list", status=Exit.DATA)["error"])


def test_a_file_that_changes_while_it_is_read(here: Machine, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchforge import progress

    path = here.model("checkpoints/a.safetensors", WEIGHTS)
    monkeypatch.setattr(progress, "step", lambda *_: path.write_bytes(WEIGHTS[:-1]))
    assert "changed while it was read" in str(call("import", status=Exit.UNCHECKED)["problems"])
    assert list((here.store / "sha256").iterdir()) == []


def test_a_file_is_read_once(here: Machine, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchforge.models import hashing

    path = here.model("checkpoints/a.safetensors", WEIGHTS)
    call("import")
    monkeypatch.setattr(hashing, "hashlib", None)  # nothing is worked out any more
    call("import")
    monkeypatch.undo()
    path.write_bytes(WEIGHTS + b"!")
    assert call("list", "--hash")["files"][0]["digest"] == digest(WEIGHTS + b"!")  # type: ignore[index]


def test_a_file_whose_time_was_set_back_is_read_again(here: Machine, call: Call) -> None:
    """What was remembered goes by the time that nobody can set, and --hash by nothing at all."""
    path = here.model("checkpoints/a.safetensors", WEIGHTS)
    before = path.stat()
    call("list", "--hash")
    path.write_bytes(other := safetensors_bytes(b"heights of a model" * 100))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert call("list")["files"][0]["digest"] == ""  # type: ignore[index]
    assert call("list", "--hash")["files"][0]["digest"] == digest(other)  # type: ignore[index]
    (here.comfyui / "models" / "loras").mkdir()
    call("link", str(path), "comfyui:loras")
    assert {entry.name for entry in (here.store / "sha256").iterdir()} == {digest(other)}


def test_what_was_asked_for_is_read(here: Machine, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where every time that the system tells is the same."""
    from patchforge.models import hashing

    path = here.model("checkpoints/a.safetensors", WEIGHTS)
    monkeypatch.setattr(hashing.Digests, "known", lambda *_: "0" * 64)
    assert call("list")["files"][0]["digest"] == "0" * 64  # type: ignore[index]
    assert call("list", "--hash")["files"][0]["digest"] == digest(path.read_bytes())  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("notes.txt", b"not weights", "another kind"),
        ("empty.safetensors", b"", "empty"),
        ("page.safetensors", b"<!DOCTYPE html><html>", "web page"),
        ("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("cut.safetensors", WEIGHTS[:-1], "where its header tells"),
        ("longer.safetensors", WEIGHTS + b"x", "where its header tells"),
        ("head.safetensors", WEIGHTS[:20], "within its header"),
        ("cut.gguf", gguf_bytes()[:-1], "where its tensors end"),
        ("letter.pth", b"PK\3\4word/document.xml" + bytes(40) + b"PK\5\6" + bytes(18), "torch has not written"),
        ("cut.pth", b"PK\3\4a/data.pkl" + bytes(70_000), "without its end"),
        ("cut.pkl", b"\x80\x04K\x01", "without its end"),
    ],
)
def test_what_is_no_model_is_not_taken(  # noqa: PLR0917 - of fixtures
    name: str, data: bytes, why: str, here: Machine, said: Callable[..., str], tmp_path: Path
) -> None:
    """Named, or in its place, to be imported or linked: nothing of it is in the store afterwards."""
    (file := tmp_path / name).write_bytes(data)
    assert why in said("import", str(file), status=Exit.DATA)
    placed = here.model(f"loras/{name}", data)
    assert said("link", str(placed), "comfyui:loras/again", status=Exit.DATA)
    if placed.suffix != ".txt":
        assert why in said("import", status=Exit.DATA)
    assert list((here.store / "sha256").iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"PK\3\4archive/data.pkl" + bytes(30) + b"PK\1\2archive/data.pkl" + b"PK\5\6" + bytes(18),
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(99),
        b"\x80\x04K\x01.",
        b"\x08\x07\x12\x07pytorch" + bytes(40),
    ],
)
def test_checkpoints_of_every_kind_are_taken(data: bytes, here: Machine, call: Call, tmp_path: Path) -> None:
    (file := tmp_path / "a.pth").write_bytes(data)
    call("import", str(file))
    assert (here.store / "sha256" / digest(data)).exists()


def test_what_torch_saves_is_taken(here: Machine, call: Call, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="this interpreter has no torch")
    for number, old in enumerate((False, True)):
        torch.save({"w": torch.zeros(3)}, tmp_path / f"{number}.pt", _use_new_zipfile_serialization=not old)
        call("import", str(tmp_path / f"{number}.pt"))
    assert len(list((here.store / "sha256").iterdir())) == 2


@pytest.mark.parametrize("media", [MODEL, "application/vnd.ollama.image.template"])
def test_damaged_blobs_are_found(media: str, here: Machine, call: Call, said: Callable[..., str]) -> None:
    """Of any kind, weights or text: by verify; and what is damaged is not imported."""
    data = gguf_bytes()
    here.pulled("qwen3:4b", (media, data))
    blob = here.ollama / "blobs" / f"sha256-{digest(data)}"
    assert (call("verify")["read"], call("verify")["wrong"]) == (1, [])
    blob.write_bytes(gguf_bytes(words=9))
    assert len(call("verify", status=Exit.FAILED)["wrong"]) == 1  # type: ignore[arg-type]
    if media == MODEL:
        assert "not what its name says" in said("import", str(blob), status=Exit.DATA)
        assert digest(blob.read_bytes()) in said("import", status=Exit.DATA)
        assert "it is damaged" in said("list", "--hash")
    assert not here.store.exists() or list((here.store / "sha256").iterdir()) == []
    blob.unlink()
    assert digest(data) in str(call("verify", status=Exit.UNCHECKED)["problems"])


def test_a_blob_of_the_hub_that_nothing_links_to_is_verified(here: Machine, call: Call) -> None:
    blob = here.downloaded("owner/name", "config.json", b"{}")
    assert call("verify")["read"] == 1
    blob.write_bytes(b"{ ")
    assert len(call("verify", status=Exit.FAILED)["wrong"]) == 1  # type: ignore[arg-type]


def test_without_comfyui_nothing_is_removed(here: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """A link of ComfyUI's may lead to what nothing else needs."""
    file = here.model("checkpoints/a.safetensors", WEIGHTS)
    main(["models", "import", *here.words])
    file.unlink()
    stored = here.store / "sha256" / digest(WEIGHTS)
    file.symlink_to(stored)
    places = ["--ollama", str(here.ollama), "--hub", str(here.hub), "--store", str(here.store)]
    capsys.readouterr()
    assert main(["models", "gc", *places]) == 0
    assert "note: no ComfyUI was named" in capsys.readouterr().out
    assert main(["models", "gc", "--delete", *places]) == Exit.UNCHECKED
    assert "--no-comfyui" in capsys.readouterr().err
    assert stored.exists()
    file.unlink()
    assert main(["models", "gc", "--delete", "--no-comfyui", *places]) == 0
    assert not stored.exists()


def test_nothing_is_removed_where_a_folder_cannot_be_read(
    here: Machine, said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = here.model("checkpoints/a.safetensors", WEIGHTS)
    said("import")
    file.unlink()
    (closed := here.comfyui / "custom_nodes").mkdir()
    monkeypatch.setattr(os, "scandir", refusing(closed, os.scandir))
    assert f"links in {closed} lead to cannot be told" in said("gc", "--delete", status=Exit.UNCHECKED)
    assert (here.store / "sha256" / digest(WEIGHTS)).exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a:\n  checkpoints: /\n", "not all of the file system"),
        ("a:\n  base_path: /\n  checkpoints: .\n", "not all of the file system"),
        ("a:\n  checkpoints: [one, two]\n", "a.checkpoints: text"),
        ("a:\n  checkpoints: 5\n", "a.checkpoints: text"),
        ("a:\n  base_path: 5\n", "a.base_path: text"),
        ('a:\n  base_path: "/mnt/\\0x"\n  checkpoints: c\n', "without the character NUL"),
        ('a:\n  checkpoints: "c\\0"\n', "without the character NUL"),
        ("a:\n  is_default: maybe\n", "a.is_default: true or false"),
    ],
)
def test_extra_model_paths_that_are_odd(text: str, why: str, here: Machine, said: Callable[..., str]) -> None:
    (here.comfyui / "extra_model_paths.yaml").write_text(text)
    assert why in said("list", status=Exit.DATA)


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("a:\n  base_path: {top}/drive\n  checkpoints: c\n", "drive"),
        ("a:\n  base_path: {top}/drive\n", "drive"),
        ("a:\n  base_path: {top}/drive/deeper\n  checkpoints: {top}/more\n", "drive/deeper"),
        ("a:\n  base_path: {top}/mounted\n  checkpoints: c\n  clip: d\n", "mounted"),  # an empty mount point
        ("a:\n  checkpoints: {top}/drive/c\n", "drive/c"),
        ("a:\n  base_path: {top}/more\n  clip: .\n  vae: {top}/drive/vae\n", "drive/vae"),
    ],
)
def test_a_disk_that_is_not_mounted_is_told(  # noqa: PLR0917 - of fixtures
    text: str, absent: str, here: Machine, call: Call, said: Callable[..., str], tmp_path: Path
) -> None:
    """A link there may lead to what nothing else needs, so nothing is removed."""
    (tmp_path / "more").mkdir()
    (tmp_path / "mounted").mkdir()
    file = here.model("checkpoints/a.safetensors", WEIGHTS)
    said("import")
    file.unlink()
    (here.comfyui / "extra_model_paths.yaml").write_text(text.format(top=tmp_path))
    told = f"passed over: {tmp_path}/{absent}: extra_model_paths.yaml names folders there, and none is"
    assert told in said("list")
    assert told in said("verify", status=Exit.UNCHECKED)
    assert call("list")["problems"][0]["path"] == f"{tmp_path}/{absent}"  # type: ignore[index]
    planned = said("gc")
    assert told in planned
    assert "nothing is removed until" in planned
    assert "what refers to models cannot be told" in said("gc", "--delete", status=Exit.UNCHECKED)
    assert (here.store / "sha256" / digest(WEIGHTS)).exists()


@pytest.mark.parametrize(
    ("variable", "there", "absent"),
    [
        ("OLLAMA_MODELS", "", "drive/models"),
        ("OLLAMA_MODELS", "file", "drive/models"),
        ("HF_HUB_CACHE", "", "drive/models"),
        ("HUGGINGFACE_HUB_CACHE", "", "drive/models"),
        ("HF_HOME", "", "drive/models"),
        ("HF_HOME", "folder", ""),  # nothing was downloaded yet
        ("OLLAMA_MODELS", "folder", ""),
        ("", "", ""),
    ],
)
def test_a_variable_that_names_what_is_not_there_is_told(  # noqa: PLR0917 - of fixtures
    variable: str,
    there: str,
    absent: str,
    here: Machine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = here.top / "drive" / "models"
    if there:
        place.parent.mkdir()
        place.mkdir() if there == "folder" else place.write_bytes(b"")
    for name in ("OLLAMA_MODELS", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(here.top))
    if variable:
        monkeypatch.setenv(variable, str(place))
    words = ["--comfyui", str(here.comfyui), "--store", str(here.store)]
    for command, status in (("list", 0), ("verify", 69), ("gc --no-comfyui", 0), ("gc --delete", 69), ("import", 69)):
        assert main(["models", *command.split(), *words]) == (status if absent else 0)
        both = capsys.readouterr()
        told = (
            f"{here.top}/{absent}: {variable} names it, and no folder is there: mount its disk, or unset the variable"
        )
        assert (told in both.out + both.err) == bool(absent)
    assert main(["models", "link", "a", "ollama:b", *words]) == Exit.USAGE


def _hidden(here: Machine) -> dict[str, Path]:
    """Folders of each program that may be closed to somebody."""
    here.pulled("qwen3:4b", (MODEL, gguf_bytes()), ("application/vnd.ollama.image.template", b"text"))
    blob = here.downloaded("owner/name", "a.safetensors", WEIGHTS)
    here.model("checkpoints/b.safetensors", MORE[b"x"])
    return {
        "the manifests": here.ollama / "manifests",
        "a folder of manifests": here.ollama / "manifests" / "registry.ollama.ai",
        "the blobs": here.ollama / "blobs",
        "the hub": here.hub,
        "a repository": blob.parents[1],
        "the hub's blobs": blob.parent,
        "ComfyUI's folder": here.comfyui / "models" / "checkpoints",
        "a place that is usual": here.top / ".ollama",
    }


@pytest.mark.parametrize(
    "name",
    [
        "the manifests",
        "a folder of manifests",
        "the blobs",
        "the hub",
        "a repository",
        "the hub's blobs",
        "ComfyUI's folder",
        "a place that is usual",
    ],
)
def test_what_may_not_be_read_keeps_everything(name: str, here: Machine) -> None:
    closed = _hidden(here)[name]
    (here.top / ".ollama" / "models").mkdir(parents=True, exist_ok=True)
    words = here.words if name != "a place that is usual" else [word for word in here.words if "ollama" not in word]
    usual = {"HOME": str(here.top), "OLLAMA_MODELS": ""}
    assert bound("models", "import", *words, **usual).returncode == 0
    closed.chmod(0)
    try:
        listed = bound("models", "list", *words, **usual)
        kept = bound("models", "gc", "--delete", *words, **usual)
    finally:
        closed.chmod(0o755)
    assert listed.returncode == 0, listed.stderr
    assert f"passed over: {closed.parent if closed.parent.parent == here.hub else closed}" in listed.stdout
    assert "ermission denied" in listed.stdout
    assert kept.returncode == Exit.UNCHECKED, kept.stderr
    assert "what refers to models cannot be told" in kept.stderr


def _read_only(file: Path) -> None:
    file.chmod(0o400)


def _linked_elsewhere(file: Path) -> None:
    os.link(file, file.parents[3] / "elsewhere")


@pytest.mark.parametrize(
    ("data", "change"),
    [
        (b"no checkpoint" * 100, None),
        (WEIGHTS[:-1], None),
        (b"", None),
        (WEIGHTS, _read_only),
        (WEIGHTS, _linked_elsewhere),
        (WEIGHTS, "whole"),
    ],
)
def test_merging_is_advised_for_what_it_frees(
    data: bytes, change: Callable[[Path], None] | str | None, here: Machine, call: Call, said: Callable[..., str]
) -> None:
    """What the list promises is what ``import --merge`` frees, byte for byte."""
    here.model("checkpoints/a.ckpt", data)
    copy = here.model("checkpoints/b.ckpt", data)
    if callable(change):
        change(copy)
    listed = said("list")
    freed = call("import", "--merge", status=Exit.OK if data == WEIGHTS else Exit.DATA)["freed"]
    assert ("import --merge makes one file" in listed) == bool(freed) == (change == "whole")
    assert not freed or f"frees {len(data) / 1000:.1f} kB" in listed
    assert not data or f"{len(data) / 1000:.1f} kB twice or more" in listed
