"""Upstream moves in ways nobody foresaw. A person is told, or the edit is right; it is never wrong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import pipeline
from patchforge.engine.convert import Conversion, Report
from patchforge.errors import Drifted, Exit, PatchforgeError
from patchforge.proof.differences import Replacement
from patchforge.proof.static import prove
from patchforge.rules import transforms
from patchforge.vocabulary import Outcome
from tests.support import ROOT, MemoryTree, engine_of, miniature, release

ALL = transforms()
ERA = "v0.33.0"
MANAGEMENT = "comfy/model_management.py"


def damaged(path: str, *pairs: tuple[str, str]) -> dict[str, bytes]:
    """The miniature with some text of one file exchanged; the text must be there once."""
    files = miniature(ERA)
    text = files[path].decode()
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    ast.parse(text)
    return {**files, path: text.encode()}


def conversion(files: dict[str, bytes]) -> Conversion:
    return engine_of(ALL).convert(release(ERA), MemoryTree(files))


def report(files: dict[str, bytes], name: str) -> Report:
    return next(entry for entry in conversion(files).reports if entry.transform == name)


def drifts(files: dict[str, bytes]) -> dict[str, tuple[str, str]]:
    """Transform → both fragments of its first drift."""
    return {entry.transform: (entry.drifts[0].expected, entry.drifts[0].found) for entry in conversion(files).drifted}


def refused(files: dict[str, bytes]) -> str:
    with pytest.raises(Drifted) as caught:
        pipeline.convert(engine_of(ALL), release(ERA), MemoryTree(files))
    assert caught.value.status is Exit.DRIFTED
    return str(caught.value)


def applies(files: dict[str, bytes]) -> pipeline.PatchedRelease:
    """The release converts, and everything that is checked of a release holds."""
    patched = pipeline.convert(engine_of(ALL), release(ERA), MemoryTree(files))
    pipeline.check(patched)
    for path, before in patched.before.items():
        matches = patched.conversion.records[path].found
        prove(
            path,
            before,
            patched.after[path],
            [Replacement(path, *pair) for match in matches for pair in match.replaced],
        )
    return patched


def function(path: str, name: str, files: dict[str, bytes] | None = None) -> str:
    """The source of a top-level function of a file."""
    text = (files or miniature(ERA))[path].decode()
    [node] = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert node.end_lineno is not None
    return "".join(text.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])


RENAMED = (
    ("free-memory", MANAGEMENT, "get_free_memory"),
    ("oom-level-zero", MANAGEMENT, "is_oom"),
    ("empty-cache", MANAGEMENT, "soft_empty_cache"),
    ("non-blocking", MANAGEMENT, "device_supports_non_blocking"),
    ("bf16", MANAGEMENT, "should_use_bf16"),
    ("fp8-negative-zero", "comfy/float.py", "manual_stochastic_round_to_float8"),
    ("device-context", MANAGEMENT, "cuda_device_context"),
    ("current-stream", MANAGEMENT, "current_stream"),
    ("fp64", MANAGEMENT, "supports_fp64"),
    ("cast-buffers", MANAGEMENT, "reset_cast_buffers"),
)


@pytest.mark.parametrize(("name", "path", "target"), RENAMED)
def test_a_renamed_function(name: str, path: str, target: str) -> None:
    files = miniature(ERA)
    files[path] = files[path].replace(b"def " + target.encode(), b"def renamed_" + target.encode())
    expected, found = drifts(files)[name]
    assert target in expected
    assert found == "no such place in this release"
    assert target in refused(files)


def test_an_arm_in_another_place() -> None:
    text = function(MANAGEMENT, "get_free_memory")
    arm = text[text.index("        elif is_intel_xpu():") : text.index("        else:\n            stats")]
    moved = text.replace(arm, "        elif is_ascend_npu():\n            total = inside = 1\n" + arm)
    patched = applies(damaged(MANAGEMENT, (text, moved)))
    assert patched.report_of("free-memory").outcome is Outcome.APPLIED
    first = text.replace(arm, "").replace(
        "if directml_enabled:\n            total = inside = 1024 ** 3\n",
        arm.removeprefix("        el") + "        elif directml_enabled:\n            total = inside = 1024 ** 3\n",
    )
    assert applies(damaged(MANAGEMENT, (text, first))).report_of("free-memory").outcome is Outcome.APPLIED


def test_an_arm_that_stands_there_twice() -> None:
    text = function(MANAGEMENT, "get_free_memory")
    arm = text[text.index("        elif is_intel_xpu():") : text.index("        else:\n            stats")]
    patched = applies(damaged(MANAGEMENT, (text, text.replace(arm, arm + arm))))
    assert [len(patched.report_of(name).found) for name in ("free-memory", "integrated-memory")] == [2, 2]
    assert patched.after[MANAGEMENT].count(b"patchforge_xpu.free_memory(dev") == 2


def test_another_parameter_in_the_function_that_estimates() -> None:
    text = function(MANAGEMENT, "get_free_memory")
    changed = (
        text.replace("dev=None", "device=None")
        .replace("(dev)", "(device)")
        .replace("dev ", "device ")
        .replace("(dev,", "(device,")
    )
    files = damaged(MANAGEMENT, (text, changed))
    expected, found = drifts(files)["free-memory"]
    assert "total_memory - mem_reserved" in expected
    assert "get_device_properties(device).total_memory" in found


@pytest.mark.parametrize(
    ("target", "old", "new"),
    [
        ("get_total_memory", "dev", "unit"),
        ("should_use_fp16", "device", "unit"),
        ("should_use_bf16", "device", "unit"),
        ("supports_fp64", "device", "unit"),
        ("device_supports_non_blocking", "device", "unit"),
        ("current_stream", "device", "unit"),
        ("cuda_device_context", "device", "unit"),
    ],
)
def test_another_parameter_never_leaves_a_name_undefined(target: str, old: str, new: str) -> None:
    import re

    text = function(MANAGEMENT, target)
    files = miniature(ERA)
    files[MANAGEMENT] = (
        files[MANAGEMENT].decode().replace(text, re.sub(rf"(?<![\w.]){old}(?=[=,).\s])", new, text)).encode()
    )
    ast.parse(files[MANAGEMENT])
    assert drifts(files)
    assert f"{old} bound here" in refused(files)


ALREADY = (
    ("free-memory", MANAGEMENT, "torch.xpu.get_device_properties(dev).total_memory - mem_reserved\n            inside", "xpu_get_memory_info(dev)[0]\n            inside"),  # noqa: E501
    ("free-memory", MANAGEMENT, "mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved", "mem_free_xpu = torch.xpu.mem_get_info(dev)[0]"),  # noqa: E501
    ("oom-level-zero", MANAGEMENT, '"out of memory" in str(e).lower():', '("out of memory" in str(e).lower() or "UR_RESULT_ERROR_OUT_OF" in str(e)):'),  # noqa: E501
    ("visible-devices", "main.py", "        os.environ['CUDA_VISIBLE_DEVICES'] = str(args.cuda_device)\n", "        os.environ['CUDA_VISIBLE_DEVICES'] = os.environ['ZE_AFFINITY_MASK'] = str(args.cuda_device)\n"),  # noqa: E501
    ("current-stream", MANAGEMENT, "torch.xpu.current_stream()", "torch.xpu.current_stream(device)"),
    ("load-synchronize", "comfy/model_patcher.py", "                torch.cuda.synchronize()\n", "                torch.cuda.synchronize()\n            elif comfy.model_management.is_device_xpu(device_to):\n                torch.xpu.synchronize()\n"),  # noqa: E501
    ("async-offload", MANAGEMENT, "    if is_nvidia() or is_amd():\n        NUM_STREAMS = 2\n", "    if is_nvidia() or is_amd() or is_intel_xpu():\n        NUM_STREAMS = 2\n"),  # noqa: E501
    ("fp8-negative-zero", "comfy/float.py", "    return sign\n", "    sign[torch.signbit(sign) & (sign == 0)] = 0\n    return sign\n"),  # noqa: E501
)  # fmt: skip


@pytest.mark.parametrize(("name", "path", "old", "new"), ALREADY)
def test_a_fix_that_upstream_has_in_another_form(name: str, path: str, old: str, new: str) -> None:
    entry = report(damaged(path, (old, new)), name)
    assert entry.outcome is Outcome.UPSTREAM
    assert [path] == [where for where, _ in entry.found]
    assert entry.surprising


def test_a_fix_of_the_estimate_leaves_the_other_one_to_a_person() -> None:
    files = damaged(MANAGEMENT, (ALREADY[1][2], ALREADY[1][3]))
    assert list(drifts(files)) == ["integrated-memory"]


def test_a_file_that_moved() -> None:
    files = miniature(ERA)
    files["comfy/management.py"] = files.pop(MANAGEMENT)
    drifted = drifts(files)
    wanting = {
        rule.id
        for rule in ALL
        if rule.files == (MANAGEMENT,) and rule.expected(release(ERA).version) is not Outcome.ABSENT
    }
    assert set(drifted) == wanting
    assert all(MANAGEMENT in expected for expected, _ in drifted.values())
    assert MANAGEMENT in refused(files)


UNREADABLE = (
    (lambda data: data.replace(b"def is_oom(e):", b"def is_oom(e:"), "a Python file that can be read"),
    (lambda data: data + b"# caf\xe9\n", "not utf-8"),
    (lambda data: data + b"x = 1\ry = 2\n", "carriage return"),
    (lambda data: data + b"\0", ""),
    (lambda data: data + b"x = " + b"(" * 5000 + b"1" + b")" * 5000 + b"\n", "nested"),
    (lambda data: data + b"x = " + b"+".join([b"'cuda'"] * 2000) + b"\n", "nested"),
    (lambda data: data + b"x = " + b"+".join([b"1"] * 50000) + b"\n", "nested"),
    (
        lambda data: data + b"".join(b" " * level + b"if x:\n" for level in range(500)) + b" " * 500 + b"pass\n",
        "indentation",
    ),
)


@pytest.mark.parametrize(
    ("break_it", "reason"), UNREADABLE, ids=["syntax", "bytes", "cr", "nul", "parentheses", "cuda-sum", "sum", "ifs"]
)
def test_a_file_that_cannot_be_read_is_a_drift(break_it: object, reason: str) -> None:
    assert callable(break_it)
    files = miniature(ERA)
    files[MANAGEMENT] = break_it(files[MANAGEMENT])
    text = refused(files)
    assert f"{MANAGEMENT}:" in text
    assert "a Python file that can be read" in text
    assert reason in text


@pytest.mark.parametrize("depth", [90, 199])
def test_what_python_can_nest_is_converted(depth: int) -> None:
    files = miniature(ERA)
    files[MANAGEMENT] += b"deep = " + b"(" * depth + b"'cuda'" + b")" * depth + b"\n"
    assert applies(files).report_of("free-memory").outcome is Outcome.APPLIED


def forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "crlf", data.replace(b"\n", b"\r\n")
    yield "bom", b"\xef\xbb\xbf" + data
    yield "bom and crlf", b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
    yield "no final newline", data.removesuffix(b"\n")


@pytest.mark.parametrize("form", ["crlf", "bom", "bom and crlf", "no final newline"])
def test_other_forms_of_the_same_text_get_the_same_edits(form: str) -> None:
    plain = applies(miniature(ERA))
    files = {path: dict(forms(data))[form] if path.endswith(".py") else data for path, data in miniature(ERA).items()}
    patched = applies(files)
    assert set(patched.before) == set(plain.before)
    for path in plain.before:
        assert patched.after[path] == dict(forms(plain.after[path]))[form]


def test_a_file_of_ten_megabytes() -> None:
    files = miniature(ERA)
    rows = b"".join(b'    "item %07d of a long table",\n' % number for number in range(290_000))
    files["comfy/table.py"] = b"TABLE = [\n" + rows + b'    "cuda",\n]\n'
    assert len(files["comfy/table.py"]) > 10_000_000
    converted = conversion(files)
    assert converted.drifted == ()
    assert [(site.path, site.line) for site in converted.unclaimed] == [("comfy/table.py", 290_002)]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "patchforge", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_command_line_says_drift_with_its_own_status_and_writes_nothing(tmp_path: Path) -> None:
    files = damaged(MANAGEMENT, ("def is_oom(e):", "def ran_out(e):"))
    files["comfyui_version.py"] = b'__version__ = "9.0.0"\n'
    for path, data in files.items():
        file = tmp_path / "tree" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    done = run("apply", "--from", str(tmp_path / "tree"), "--out", str(tmp_path / "out"))
    assert done.returncode == 3
    assert "oom-level-zero" in done.stderr
    assert "def is_oom" in done.stderr
    assert "no such place in this release" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_drift_says_where_and_shows_the_code() -> None:
    text = refused(
        damaged(
            MANAGEMENT,
            (
                "mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved",
                "mem_free_xpu = probe(dev)",
            ),
        )
    )
    line = (
        miniature(ERA)[MANAGEMENT]
        .split(b"\n")
        .index(b"            mem_free_xpu = torch.xpu.get_device_properties(dev).total_memory - mem_reserved")
        + 1
    )
    assert f"free-memory {MANAGEMENT}:{line}" in text
    assert "mem_free_xpu = total_memory - mem_reserved" in text
    assert "mem_free_xpu = probe(dev)" in text


def test_a_patched_tree_is_not_patched_again() -> None:
    patched = applies(miniature(ERA))
    with pytest.raises(PatchforgeError, match="already"):
        pipeline.convert(engine_of(ALL), release(ERA), MemoryTree({**miniature(ERA), **patched.after}))
