"""Patches: rendered from segments, applied three ways."""

from __future__ import annotations

import subprocess
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from patchforge import patches
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.vocabulary import FileChange, Purpose, Release, Segment, Version, split_lines

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "Description: a test\nOrigin: vendor\n\n"
ALPHABET = [
    b"a",
    b"b",
    b"",
    b"\ta\r b",
    b"-- a/x",
    b"++ b/x",
    b"@@ -1 +1 @@",
    b"\\ No newline at end of file",
    b"\xff\xfe",
]
ALPHABET += [b"diff --git a/x b/x", b"\xef\xbb\xbfx = 1", b"-", b"+", b" "]


def change(before: bytes | None, *parts: Segment, path: str = "comfy/a.py", mode: int = 0o100644) -> FileChange:
    lines = split_lines(before or b"")
    out: list[bytes] = []
    position = 0
    for part in parts:
        out += [*lines[position : part.start], *part.lines]
        position = part.end
    return FileChange(path, before, b"".join([*out, *lines[position:]]), parts, mode)


def added(data: bytes, path: str = "comfy/new.py", mode: int = 0o100644) -> FileChange:
    return FileChange(path, None, data, (Segment(0, 0, tuple(split_lines(data))),), mode)


def body(patch: bytes) -> str:
    return patch.decode().split("+++ b/comfy/a.py\n")[1]


def three_ways(changes: list[FileChange], context: int = 0) -> None:
    patch = patches.render(changes, header=HEAD, context=context)
    before = {file.path: file.before for file in changes if file.before is not None}
    patches.check_every_way([patch], before, {file.path: file.after for file in changes}, context=context)


@st.composite
def file_changes(draw: st.DrawFn) -> FileChange:
    """Any file and any segments; ends are LF or CRLF and the final one may be missing."""
    line = st.builds(lambda text, end: text + end, st.sampled_from(ALPHABET), st.sampled_from([b"\n", b"\n", b"\r\n"]))
    some = st.lists(line, max_size=4)
    chunks: list[tuple[list[bytes], list[bytes] | None]] = []
    for _ in range(draw(st.integers(0, 4))):
        chunks += [(draw(st.lists(line, min_size=1, max_size=5)), None), (draw(some), draw(some))]
    if draw(st.booleans()) and chunks:
        chunks.pop(0)
    if draw(st.booleans()) and chunks:
        chunks.append((draw(st.lists(line, min_size=1, max_size=3)), None))
    if draw(st.booleans()) and chunks:
        old, new = chunks[-1]
        bare = [*old[:-1], draw(st.sampled_from([b"z", b"z\r"]))]
        chunks[-1] = (
            (bare, new)
            if new is None or not old or not new
            else (bare, [*new[:-1], b"y"] if draw(st.booleans()) else new)
        )
        if new is not None and (not old or not new):
            chunks[-1] = (old, new)
    before, after, parts = list[bytes](), list[bytes](), list[Segment]()
    for old, new in chunks:
        if new is not None and (old or new):
            parts.append(Segment(len(before), len(before) + len(old), tuple(new)))
        before += old
        after += old if new is None else new
    return FileChange("comfy/a.py", b"".join(before), b"".join(after), tuple(parts))


@given(file_changes(), st.integers(0, 3))
def test_apply_of_render_is_exact_and_so_is_its_reverse(file: FileChange, context: int) -> None:
    patch = patches.render([file], header=HEAD, context=context)
    assert patches.render([file], header=HEAD, context=context) == patch
    after = patches.apply(patch, {file.path: file.before or b""}.__getitem__)
    assert after.get(file.path, file.before) == file.after
    assert patches.reverse(patch, {file.path: file.after}.__getitem__).get(file.path, file.after) == file.before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(file_changes(), st.sampled_from([0, 3]))
def test_gnu_patch_and_git_agree(file: FileChange, context: int) -> None:
    assume(file.before != file.after)
    three_ways([file], context)


@given(file_changes(), st.binary(max_size=3), st.integers(0, 60))
def test_a_damaged_patch_never_applies_silently_to_other_lines(file: FileChange, noise: bytes, at: int) -> None:
    patch = patches.render([file], header="")
    damaged = patch[:at] + noise + patch[at:]
    try:
        after = patches.apply(damaged, {file.path: file.before or b""}.__getitem__)
    except PatchforgeError:
        return
    assert patches.render([file], header="") == patch
    for path, data in after.items():
        assert path == file.path
        assert patches.reverse(damaged, {path: data}.__getitem__)[path] == file.before


def test_insertions_are_numbered_by_the_line_before_them() -> None:
    file = change(b"1\n2\n3\n", Segment(0, 0, (b"top\n",)), Segment(2, 2, (b"x\n", b"y\n")), Segment(3, 3, (b"end\n",)))
    assert (
        body(patches.render([file], header=HEAD))
        == "@@ -0,0 +1 @@\n+top\n@@ -2,0 +4,2 @@\n+x\n+y\n@@ -3,0 +7 @@\n+end\n"
    )


def test_replacement_and_deletion() -> None:
    file = change(b"1\n2\n3\n4\n", Segment(0, 1, (b"one\n",)), Segment(2, 4, ()))
    assert body(patches.render([file], header=HEAD)) == "@@ -1 +1 @@\n-1\n+one\n@@ -3,2 +2,0 @@\n-3\n-4\n"


def test_lines_in_common_at_the_ends_of_a_segment_are_not_shown() -> None:
    file = change(b"1\n2\n3\n", Segment(0, 3, (b"1\n", b"2\n", b"new\n", b"3\n")))
    assert body(patches.render([file], header=HEAD)) == "@@ -2,0 +3 @@\n+new\n"


def test_context_merges_neighbours() -> None:
    before = b"".join(b"%d\n" % number for number in range(9))
    parts = (Segment(1, 1, (b"x\n",)), Segment(3, 3, (b"y\n",)), Segment(8, 8, (b"z\n",)))
    assert body(patches.render([change(before, *parts)], header=HEAD, context=1)) == textwrap.dedent("""\
        @@ -1,4 +1,6 @@
         0
        +x
         1
         2
        +y
         3
        @@ -8,2 +10,3 @@
         7
        +z
         8
        """)


def test_the_hunks_are_the_segments_and_not_a_guess() -> None:
    """The lines are all alike: only the segment knows which of them is ours."""
    file = change(b"a\na\na\n", Segment(1, 1, (b"a\n",)))
    assert body(patches.render([file], header=HEAD)) == "@@ -1,0 +2 @@\n+a\n"


def test_a_missing_final_newline_is_said() -> None:
    file = change(b"a\nb", Segment(1, 2, (b"b\n", b"c")))
    assert body(patches.render([file], header=HEAD)) == (
        "@@ -2 +2,2 @@\n-b\n\\ No newline at end of file\n+b\n+c\n\\ No newline at end of file\n"
    )
    three_ways([file])


def test_byte_order_mark_and_crlf_survive() -> None:
    file = change(b"\xef\xbb\xbfimport os\r\nx = 1\r\n", Segment(1, 1, (b"y = 2\r\n",)))
    patch = patches.render([file], header=HEAD)
    assert b"@@ -1,0 +2 @@\n+y = 2\r\n" in patch
    three_ways([file])


@pytest.mark.parametrize("mode", [0o100644, 0o100755])
@pytest.mark.parametrize("data", [b"x\n", b"x", b"x\r\ny\r\n"])
def test_new_files_and_their_modes(data: bytes, mode: int) -> None:
    new = added(data, mode=mode)
    patch = patches.render([new], header=HEAD)
    assert (
        b"diff --git a/comfy/new.py b/comfy/new.py\nnew file mode %o\n--- /dev/null\n+++ b/comfy/new.py\n@@ -0,0 +1"
        % mode
        in patch
    )
    assert patches.reverse(patch, {new.path: data}.__getitem__) == {new.path: None}
    three_ways([new, change(b"1\n2\n", Segment(1, 1, (b"x\n",)))])


def test_files_are_sorted_and_unchanged_files_left_out() -> None:
    first, second = (change(b"1\n", Segment(1, 1, (b"2\n",)), path=path) for path in ("b.py", "a b.py"))
    same = change(b"1\n", Segment(0, 1, (b"1\n",)), path="c.py")
    patch = patches.render([first, same, second], header=HEAD)
    assert [part.path for part in patches.parse(patch)] == ["a b.py", "b.py"]
    assert patch == patches.render([second, first, same], header=HEAD)
    assert b"index " not in patch
    three_ways([first, second])


def test_emptied_and_filled_files() -> None:
    three_ways([change(b"1\n2\n", Segment(0, 2, ())), change(b"", Segment(0, 0, (b"1\n",)), path="comfy/b.py")])


def test_a_series_is_checked_in_order() -> None:
    first = change(b"1\n2\n", Segment(1, 1, (b"x\n",)))
    second = change(first.after, Segment(1, 2, (b"y\n",)))
    rendered = [patches.render([file], header=HEAD) for file in (first, second)]
    patches.check_every_way(rendered, {"comfy/a.py": b"1\n2\n"}, {"comfy/a.py": b"1\ny\n2\n"}, context=0)
    with pytest.raises(CheckFailed, match="hunk 1"):
        patches.check_every_way(rendered[::-1], {"comfy/a.py": b"1\n2\n"}, {"comfy/a.py": b"1\ny\n2\n"}, context=0)


@pytest.mark.parametrize("inside", [True, False])
def test_a_repository_around_the_temporary_folder_does_not_matter(
    inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if inside:
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        (tmp_path / ".gitattributes").write_text("* text=auto eol=crlf\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    three_ways([change(b"1\n2\n", Segment(1, 1, (b"x\n",))), added(b"x\r\n")])


def test_three_ways_refuses_another_result() -> None:
    file = change(b"1\n2\n", Segment(1, 1, (b"x\n",)))
    patch = patches.render([file], header=HEAD)
    with pytest.raises(CheckFailed, match="comes out wrong at line 2"):
        patches.check_every_way([patch], {file.path: file.before or b""}, {file.path: b"1\ny\n2\n"}, context=0)
    with pytest.raises(CheckFailed, match="no patch touches it"):
        patches.check_every_way([patch], {file.path: file.before or b"", "z": b""}, {file.path: file.after}, context=0)


@pytest.mark.parametrize(
    ("tool", "way"),
    [
        ("patch --version GNU patch 2.7.6", "GNU patch: comfy/a.py comes out wrong"),
        ("git --version git version 2.39", "git apply: comfy/a.py comes out wrong"),
    ],
)
def test_each_tool_has_a_vote(tool: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that does nothing and reports success is found out."""
    name, _, answer = tool.split(" ", 2)
    fake = tmp_path / name
    fake.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo {answer}\nexit 0\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(CheckFailed, match=way):
        three_ways([change(b"1\n2\n", Segment(1, 1, (b"x\n",)))])


def test_tools_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BSD's patch, which macOS has, is none of them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    three_ways([change(b"1\n2\n", Segment(1, 1, (b"x\n",)))])
    assert patches.ways() == "patchforge; GNU patch and git apply are not installed"
    fake = tmp_path / "patch"
    fake.write_text("#!/bin/sh\necho patch 2.0-12u11-Apple; exit 1\n")
    fake.chmod(0o755)
    three_ways([change(b"1\n2\n", Segment(1, 1, (b"x\n",)))])
    assert "GNU patch and git apply are not installed" in patches.ways()


PATCH = patches.render([change(b"1\n2\n3\n", Segment(1, 2, (b"x\n",)))], header=HEAD, context=1)


@pytest.mark.parametrize("data", [b"0\n2\n3\n", b"1\n\n2\n3\n", b"1\n2\n", b"1\r\n2\n3\n", b"1\n2\n3", b""])
def test_nothing_is_fuzzy(data: bytes) -> None:
    with pytest.raises(CheckFailed, match=r"comfy/a.py: hunk 1 \(@@ -1,3 \+1,3 @@\) does not apply"):
        patches.apply(PATCH, {"comfy/a.py": data}.__getitem__)


def test_offsets_are_refused_even_where_lines_are_unique() -> None:
    moved = PATCH.replace(b"@@ -1,3 +1,3 @@", b"@@ -2,3 +2,3 @@")
    with pytest.raises(CheckFailed, match="does not apply"):
        patches.apply(moved, {"comfy/a.py": b"1\n2\n3\n"}.__getitem__)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"+1,3 @@", b"+2,3 @@"),
        (b"-1,3", b"-1,4"),
        (b"+++ b/comfy/a.py", b"+++ b/comfy/b.py"),
        (b"a/comfy/a.py", b"a/../a.py"),
        (b"-2\n", b"!2\n"),
        (b"@@ -1,3 +1,3 @@\n", b""),
        (b" 3\n", b""),
        (b" 3\n", b" 3\nrest\n"),
    ],
)
def test_what_render_does_not_write_is_not_read(old: bytes, new: bytes) -> None:
    assert old in PATCH
    with pytest.raises(PatchforgeError):
        patches.apply(PATCH.replace(old, new), {"comfy/a.py": b"1\n2\n3\n"}.__getitem__)


def test_presence_of_files() -> None:
    with pytest.raises(CheckFailed, match="does not fit"):
        patches.apply(PATCH, dict[str, bytes]().__getitem__)
    new = patches.render([added(b"x\n")], header=HEAD)
    with pytest.raises(CheckFailed, match="does not fit"):
        patches.apply(new, {"comfy/new.py": b""}.__getitem__)
    with pytest.raises(CheckFailed, match="more is in the file"):
        patches.reverse(new, {"comfy/new.py": b"x\ny\n"}.__getitem__)


@pytest.mark.parametrize(
    "bad",
    [
        FileChange("a", b"1\n", b"2\n", (Segment(0, 0, (b"2\n",)),)),
        FileChange("a", b"1\n2\n", b"x\nx\n1\n2\n", (Segment(0, 0, (b"x\n",)), Segment(0, 0, (b"x\n",)))),
        FileChange("a", b"1\n", b"1\nx\n", (Segment(2, 2, (b"x\n",)),)),
        FileChange("a", b"1", b"1x\n", (Segment(1, 1, (b"x\n",)),)),
        FileChange("../a", b"1\n", b"1\nx\n", (Segment(1, 1, (b"x\n",)),)),
        FileChange("/a", b"1\n", b"1\nx\n", (Segment(1, 1, (b"x\n",)),)),
        FileChange("a", None, b"", ()),
    ],
)
def test_render_refuses_what_it_cannot_say(bad: FileChange) -> None:
    with pytest.raises(PatchforgeError):
        patches.render([bad], header=HEAD)


def test_one_file_once() -> None:
    file = change(b"1\n", Segment(1, 1, (b"2\n",)))
    with pytest.raises(CheckFailed, match="twice"):
        patches.render([file, file], header=HEAD)


RELEASE = Release(Version.parse("v0.3.47"), "0" * 40)


GAPS = {"free-memory": "free memory as the driver sees it", "oom-handlers": "handlers"}


def test_header_fields() -> None:
    text = patches.header(Purpose.MEMORY, "memory, as\n the driver sees it", GAPS, RELEASE)
    lines = text.splitlines()
    assert lines[0] == "Description: memory, as the driver sees it"
    assert text.endswith("\n\n")
    for wanted in (
        "Origin: vendor",
        "Author: patchforge",
        "Forwarded: no",
        "X-Patchforge-Purpose: memory-management",
        "X-Patchforge-free-memory: free memory as the driver sees it",
        "X-Patchforge-oom-handlers: handlers",
        "X-Upstream-Release: v0.3.47",
        f"X-Upstream-Commit: {'0' * 40}",
    ):
        assert wanted in lines
    assert not any(field in text for field in ("Last-Update", "Applied-Upstream"))
    assert not any(line.startswith(" ") for line in lines), "no line of the header looks like a diff's context"
    new = patches.render([added(b"x\n")], header=text)
    patches.check_every_way([new], {}, {"comfy/new.py": b"x\n"}, context=0)


def test_header_without_a_commit() -> None:
    text = patches.header(Purpose.MEMORY, "s", GAPS, Release(Version.parse("v1.0"), ""))
    assert "Commit" not in text


@pytest.mark.parametrize(
    "line",
    [
        "--- a/x",
        "  --- a/x",
        "+++ b/x",
        "XX--- a/x",
        "- --- a/x",
        "@@ -1 +1 @@",
        "diff -u a b",
        "Index: x",
        "Prereq: 1",
        "*** x",
        "12d",
        "3,4c5",
        "9a",
        "index 00..11",
        "GIT binary patch",
        "a\r",
        "ok\x0b--- a/x",
    ],
)
def test_header_lines_that_look_like_a_diff(line: str) -> None:
    with pytest.raises(CheckFailed, match="could be taken for a diff"):
        patches.render([added(b"x\n")], header=f"Description: x\n{line}\n")


def test_file_names_and_series() -> None:
    names = [patches.file_name(purpose) for purpose in reversed(Purpose)]
    assert patches.series(names) == (
        b"0001-device-support.patch\n0002-memory-management.patch\n0003-model-optimisation.patch\n0004-cuda-only-sites.patch\n"
    )
