# ruff: noqa: E501 - miniatures are shown as they are
"""Whole packs: what is read, what is reported, what is written, and damage."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from patchforge.cli import parser
from patchforge.engine.cache import pack_rules_digest, rule_set_digest
from patchforge.errors import PatchforgeError, TryAgain
from patchforge.git.borrowed import checked_out
from patchforge.git.command import run_git
from patchforge.nodes.convert import convert
from patchforge.nodes.manifest import PackReport
from patchforge.nodes.pack import read_pack
from patchforge.nodes.pack_cache import PackStore
from patchforge.nodes.patched import PatchedPack
from patchforge.nodes.report import markdown, sarif, summary
from patchforge.nodes.requirements import needs
from patchforge.pattern import Options
from patchforge.proof.packs.helpers import helpers
from patchforge.rules import patterns
from patchforge.vocabulary import DecidedSite, Decision

NODE = "import torch\nNODE_CLASS_MAPPINGS = {}\n\ndef move(x):\n    return x.cuda()\n"


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def packs(*words: str | Path) -> int:
    """Status of a command for packs; what goes wrong is raised."""
    options = parser().parse_args(["packs", *map(str, words)])
    return int(options.run(options))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_a_repository_is_cloned_for_the_time_being(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = write(tmp_path / "servers" / "owner" / "repo", {"__init__.py": NODE})
    run_git("init", "--quiet", folder=pack)
    run_git("add", ".", folder=pack)
    run_git("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "--quiet", "-m", "a pack", folder=pack)
    settings = tmp_path / "gitconfig"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    settings.write_text(f'[url "{(tmp_path / "servers").as_uri()}/"]\n\tinsteadOf = https://github.com/\n')
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "somewhere else"))  # as in a git hook
    assert packs("apply", "owner/repo", "--json", "--out", tmp_path / "out") == 0
    assert "+    return x.to(_patchforge_device())" in (tmp_path / "out" / "0001-xpu.patch").read_text()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["commit"] == checked_out(pack)
    with pytest.raises(PatchforgeError, match="git clone failed"):
        packs("apply", "owner/nothing", "--json", "--out", tmp_path / "none")
    settings.write_text('[url "https://127.0.0.1:9/"]\n\tinsteadOf = https://github.com/\n')
    with pytest.raises(TryAgain, match="git clone did not reach"):
        packs("apply", "owner/repo", "--json", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_damaged_pack_is_converted_as_far_as_it_goes(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"other.py": NODE})
    pack = write(
        tmp_path / "pack",
        {
            "__init__.py": NODE,
            "broken.py": "INPUT_TYPES = (\nx = y.cuda()\n",
            "old.py": "INPUT_TYPES = 1\nprint 'cuda', torch.cuda\n",
            "binary.py": b"\xff\xfe INPUT_TYPES cuda",
            "clash.py": "INPUT_TYPES = 1\n_patchforge_xpu = 3\nx = y.cuda()\n",
            "generated.py": b"INPUT_TYPES = 'cuda'\n" + b"x = 1\n" * (5_000_000 // 6),
            "deep.py": "INPUT_TYPES = 'cuda'\nx = " + "(" * 400 + "1" + ")" * 400 + "\n",
        },
    )
    (pack / "linked").symlink_to(outside)
    (pack / "linked.py").symlink_to(outside / "other.py")
    done = convert(read_pack(pack), Options())
    assert [change.path for change in done.changes] == ["__init__.py"]
    assert {problem.path for problem in done.problems} == {
        "binary.py", "broken.py", "clash.py", "deep.py", "generated.py", "linked", "linked.py", "old.py",
    }  # fmt: skip
    reasons = {problem.path: problem.reason for problem in done.problems}
    assert "Python 2" in reasons["old.py"]
    assert "out of the pack" in reasons["linked"]
    assert "clash" in reasons["clash.py"]
    before = {path: path.read_bytes() for path in pack.rglob("*") if path.is_file()}
    assert packs("apply", pack, "--json", "--in-place") == 1
    assert (outside / "other.py").read_text() == NODE
    assert "_patchforge_device()" in (pack / "__init__.py").read_text()
    changed = {path.name for path, data in before.items() if path.read_bytes() != data}
    assert changed == {"__init__.py"}
    assert packs("revert", pack) == 0
    assert {path: path.read_bytes() for path in pack.rglob("*") if path.is_file()} == before


def test_in_place_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = write(tmp_path / "pack", {"__init__.py": NODE.replace("\n", "\r\n"), "data.txt": "cuda"})
    before = {path: path.read_bytes() for path in pack.rglob("*") if path.is_file()}
    assert packs("apply", pack, "--in-place") == 0
    said = capsys.readouterr().out
    assert "changed: 1 file in " in said
    assert "to use it: restart ComfyUI\nto undo: patchforge packs revert " in said
    assert (pack / "__init__.py").read_bytes() != before[pack / "__init__.py"]
    with pytest.raises(PatchforgeError, match="patched already"):
        packs("apply", pack, "--json", "--in-place")
    assert packs("check", pack, "--json") == 0
    assert packs("revert", pack) == 0
    assert {path: path.read_bytes() for path in pack.rglob("*") if path.is_file()} == before
    capsys.readouterr()


def test_several_in_place_are_changed_each_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (write(tmp_path / name, {"__init__.py": NODE}) for name in "abc")
    assert packs("check", a, b, c) == 1
    assert capsys.readouterr().out.endswith(f"; to convert: patchforge packs apply {a} {b} {c} --in-place\n")
    assert packs("apply", b, "--in-place") == 0
    capsys.readouterr()
    assert packs("apply", a, b, c, "--in-place") == 2
    said = capsys.readouterr()
    assert [f"changed: 1 file in {pack};" in said.out for pack in (a, b, c)] == [True, False, True]
    assert f"patchforge: {b} is patched already" in said.err
    assert packs("revert", a, b, c, "--dry-run") == 0
    said = capsys.readouterr()
    assert said.out.count(": 1 file would be put back; nothing written (dry run)\nwould write __init__.py\n") == 3
    assert packs("revert", a, b, c) == 0
    assert [(pack / "__init__.py").read_text() for pack in (a, b, c)] == [NODE] * 3
    with pytest.raises(PatchforgeError, match=r"2 packs are named(\n.*)*one pack at a time"):
        packs("apply", a, b)
    with pytest.raises(PatchforgeError, match="2 packs are named"):
        packs("apply", a, b, "--in-place", "--json")


def test_patches_manifest_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = write(tmp_path / "pack", {"__init__.py": NODE, "requirements.txt": "numpy\ntorch>=2.0\nonnxruntime-gpu\n"})
    assert packs("apply", pack, "--json", "--out", tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"0001-xpu.patch", "series", "manifest.json", "REPORT.md", "SHA256SUMS"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["figures"] == {"converted": 1, "left": 0, "person": 0}
    assert [need["package"] for need in manifest["needs"]] == ["torch", "onnxruntime-gpu"]
    assert manifest["proof"] == {"expressions": 1, "arms": 0}
    assert "onnxruntime-openvino" in (tmp_path / "out" / "REPORT.md").read_text()
    assert (pack / "__init__.py").read_text() == NODE
    capsys.readouterr()


def test_nothing_is_written_on_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = write(tmp_path / "pack", {"__init__.py": NODE})
    assert packs("apply", pack, "--json", "--in-place", "--dry-run") == 0
    assert packs("apply", pack, "--json", "--out", tmp_path / "out", "--dry-run") == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["__init__.py", "pack"]
    capsys.readouterr()


def test_check_lists_findings_for_people_and_code_hosts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write(tmp_path / "bad", {"__init__.py": NODE})
    good = write(tmp_path / "good", {"__init__.py": "import comfy.model_management\nNODE_CLASS_MAPPINGS = {}\n"})
    report = tmp_path / "found.sarif"
    assert packs("check", good) == 0
    assert capsys.readouterr().out == "0 can be converted, 0 for a person, 0 left on purpose\n"
    assert packs("check", bad, good, "--sarif", report) == 1
    said = capsys.readouterr().out
    assert "bad/__init__.py:5: pack-device-literal .cuda()" in said
    last = said.splitlines()[-1]
    assert last.startswith("1 can be converted, 0 for a person, 0 left on purpose; to convert: patchforge packs apply ")
    assert last.endswith(" --in-place")
    (result,) = json.loads(report.read_text())["runs"][0]["results"]
    assert result["ruleId"] == "pack-device-literal"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 5}


def test_code_hosts_get_a_run_for_each_pack_and_addresses_from_the_repositorys_root(tmp_path: Path) -> None:
    first = write(tmp_path / "repo" / "custom_nodes" / "one pack", {"__init__.py": NODE})
    second = write(
        tmp_path / "repo" / "more" / "one pack",
        {"__init__.py": "", "lib/nodes.py": NODE, "requirements.txt": "torch\n"},
    )
    alone = write(tmp_path / "alone", {"__init__.py": NODE})
    (tmp_path / "repo" / ".git").mkdir()
    (alone / ".git").write_text("gitdir: elsewhere\n")
    report = tmp_path / "found.sarif"
    assert packs("check", first, second, alone, "--sarif", report) == 1
    runs = json.loads(report.read_text())["runs"]
    uris = [
        [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]]
        for run in runs
    ]
    assert uris == [
        ["custom_nodes/one%20pack/__init__.py"],
        ["more/one%20pack/lib/nodes.py", "more/one%20pack/requirements.txt"],
        ["__init__.py"],
    ]
    assert len({run["automationDetails"]["id"] for run in runs}) == len(runs)
    for run in runs:
        rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
        assert {result["ruleId"] for result in run["results"]} <= rules.keys()
        assert all(rule["helpUri"].startswith("https://") for rule in rules.values())


def test_what_nodes_do_not_run_is_listed_by_place(tmp_path: Path) -> None:
    pack = write(
        tmp_path / "pack", {"__init__.py": NODE, "tests/one.py": NODE + "y = x.cuda()\n", "lone.py": "x.cuda()\n"}
    )
    report = summary(convert(read_pack(pack), Options()), ())
    assert [(site.path, site.line) for site in report.outside] == [
        ("lone.py", 1),
        ("tests/one.py", 5),
        ("tests/one.py", 6),
    ]
    assert "`tests/one.py`: 5, 6" in markdown(report)
    assert sum(report.skipped.values()) == 3


def test_what_an_installer_chooses_is_listed(tmp_path: Path) -> None:
    text = """\
import subprocess, torch

def pip(*what):
    subprocess.check_call(["pip", "install", *what])

def wheels():
    if torch.version.cuda and torch.version.cuda.startswith("12"):
        return "https://download.pytorch.org/whl/cu121"
    return "onnxruntime-gpu" if torch.cuda.is_available() else "onnxruntime"

pip("torch==2.5.0", "--index-url", wheels())
pip("cupy-wheel" if old else "cupy-cuda12x", "numpy")
"""
    pack = write(tmp_path / "pack", {"__init__.py": NODE, "install.py": text})
    listed = [(need.path, need.line, need.package) for need in needs(read_pack(pack))]
    assert listed == [
        ("install.py", 8, "https://download.pytorch.org/whl/cu121"),
        ("install.py", 9, "onnxruntime"),
        ("install.py", 9, "onnxruntime-gpu"),
        ("install.py", 11, "torch"),
        ("install.py", 12, "cupy-cuda12x"),
    ]


def test_every_site_has_a_decision_and_a_reason(tmp_path: Path) -> None:
    pack = write(
        tmp_path / "pack",
        {"__init__.py": NODE + "x = frobnicate('cuda')\ntorch.cuda.frobnicate()\ny = {'cuda': 1}\nz = x.is_cuda\n"},
    )
    done = convert(read_pack(pack), Options())
    assert len(done.sites) == 5
    assert all(row.reason for row in done.sites if row.decision is not Decision.CONVERTED)
    assert [row.decision for row in done.sites].count(Decision.PERSON) == 4


def test_figures_of_several_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    move = write(tmp_path / "move", {"__init__.py": NODE + "y = x.is_cuda\n", "tests/train.py": NODE})
    nothing = write(tmp_path / "nothing", {"__init__.py": "NODE_CLASS_MAPPINGS = {}\n"})
    assert packs("check", move, nothing, "--by-rule") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "| pack-device-literal | device written out | 1 | 1 | 0 | 0 | 100 % | 100 % |" in lines
    assert "| pack-device-comparison | tests of a device | 1 | 0 | 0 | 1 | 0 % | 0 % |" in lines
    assert lines[-1] == "| all | 2 packs | 2 | 1 | 0 | 1 | 50 % | 50 % |"
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert names == [*sorted(rule.id for rule in patterns()), "none", "all"]


def test_half_precision_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import torch\nNODE_CLASS_MAPPINGS = {}\nd = torch.half if torch.cuda.is_available() else torch.float\n"
    pack = write(tmp_path / "pack", {"__init__.py": text})
    assert packs("apply", pack, "--json", "--in-place") == 0
    assert json.loads(capsys.readouterr().out)["by_rule"] == {"pack-half-precision": {"person": 1}}
    assert packs("apply", pack, "--json", "--in-place", "--enable", "half,fp64") == 0
    assert "torch.cuda.is_available() or _patchforge_xpu()" in (pack / "__init__.py").read_text()


def test_unknown_options_and_places_are_errors(tmp_path: Path) -> None:
    pack = write(tmp_path / "pack", {"__init__.py": NODE})
    with pytest.raises(PatchforgeError, match="fp32"):
        packs("apply", pack, "--json", "--enable", "fp32")
    with pytest.raises(PatchforgeError, match="is not there"):
        packs("apply", tmp_path / "nowhere" / "deep" / "x", "--json")
    with pytest.raises(PatchforgeError, match="no Python file"):
        read_pack(write(tmp_path / "empty", {"a.txt": ""}))


def test_the_store_gives_the_same_again(tmp_path: Path) -> None:
    pack = read_pack(write(tmp_path / "pack", {"__init__.py": NODE, "bad.py": "cuda ="}))
    store = PackStore(tmp_path / "store")
    first, second = store.convert(pack, Options()), store.convert(pack, Options())
    assert first == second == convert(pack, Options())
    assert store.cache.connection
    store.cache.connection.execute("UPDATE records SET record = ?", (b"damaged",))
    assert store.convert(pack, Options()) == first
    assert PatchedPack(first).files() == PatchedPack(second).files()


def test_needs_are_told(tmp_path: Path) -> None:
    pack = write(
        tmp_path / "pack",
        {
            "__init__.py": "NODE_CLASS_MAPPINGS = {}\nimport cupy\ntry:\n    import flash_attn\nexcept ImportError:\n    pass\n",
            "requirements.txt": "--extra-index-url https://download.pytorch.org/whl/cu121\nTorch==2.1\nNVIDIA_cudnn.cu12\nnumpy\n",
            "pyproject.toml": '[project]\ndependencies = [\n  "onnxruntime-gpu",\n  "numpy",\n]\n',
        },
    )
    listed = needs(read_pack(pack))
    assert [(need.path, need.package, need.blocks) for need in listed if need.path == "__init__.py"] == [
        ("__init__.py", "cupy", True),
        ("__init__.py", "flash_attn", False),
    ]
    assert [(need.line, need.package) for need in listed if need.path == "requirements.txt"][1:] == [
        (2, "torch"),
        (3, "nvidia-cudnn-cu12"),
    ]
    assert [need.package for need in listed if need.path == "pyproject.toml"] == ["onnxruntime-gpu"]


def test_a_report_escapes_what_markdown_would_read() -> None:
    site = DecidedSite("a.py", 1, "f", "literal", "a|b", "", "x|y", Decision.PERSON)
    figures = {"converted": 0, "left": 0, "person": 1}
    report = PackReport(pack="p", figures=figures, skipped={}, by_rule={}, sites=(site,), needs=(), problems=())
    assert "`a\\|b`" in markdown(report)
    assert sarif([report])["runs"][0]["results"][0]["ruleId"] == "pack-other"


def test_packs_have_a_digest_of_their_own() -> None:
    assert pack_rules_digest() != rule_set_digest()


def test_the_functions_that_are_added_need_nothing_but_torch_and_python() -> None:
    for text in helpers().values():
        tree = ast.parse(text)
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
        assert len(names) == len(imports)
        assert set(names) <= {"torch", "contextlib"}
