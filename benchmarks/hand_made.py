"""What people did by hand for Intel GPUs in node packs, hunk by hunk, beside what the rules do.

``python -m benchmarks.hand_made [--show WHAT] CLONE… PATCH@CLONE@COMMIT…``

Of a clone, every commit whose change of a Python file speaks of XPUs; of a patch, the commit that it is for. What was
there before is converted by the rules, and each hunk with the person's XPU code in it is one of:

* ``converted``: the rules edit a place of the same lines; ``left``: listed as left on purpose
* ``person``: listed for a person
* ``listed``: in a file that nodes do not run, in tests or kernels
* ``silent``: the lines name CUDA in code, and no site is there
* ``no device``: the lines name none: a shape for XPUs, an operator, a function that is new
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from patchforge.nodes.convert import Converted, convert
from patchforge.nodes.pack import Pack
from patchforge.pattern import Options

_SPEAKS = re.compile(r"xpu|get_torch_device|is_intel|ipex|torch\.accelerator|device_utils", re.IGNORECASE)
_NAMES = re.compile(r"\b(cuda|is_cuda|cudnn|nccl|get_autocast_gpu_dtype)\b", re.IGNORECASE)
_LONGEST = 20  #: lines of a hunk; longer ones are rewritten, not fixed
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")
_WANTED = (".py", ".yaml", ".yml", ".toml", ".txt", ".cfg")
WHAT = ("converted", "left", "person", "listed", "silent", "no device")


@dataclass(frozen=True)
class Hunk:
    """Lines of a file that a person replaced; an empty range where lines were only added, before ``first``."""

    path: str
    first: int
    old: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def lines(self) -> range:
        """The numbers of the lines that it is about; those on both sides of where lines were only added."""
        return range(self.first, self.first + len(self.old)) if self.old else range(self.first - 1, self.first + 1)


def git(clone: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """What git says; nothing where it fails, as where a clone lacks an object."""
    return subprocess.run(["git", "-C", clone, *arguments], input=stdin, capture_output=True, check=False).stdout


def files_of(clone: str, commit: str) -> dict[str, bytes]:
    """The files of a commit that a pack is read from."""
    rows = [
        row.partition("\t") for row in git(clone, "ls-tree", "-r", "-z", commit).decode(errors="replace").split("\0")
    ]
    wanted = [(row[0].split()[2], row[2]) for row in rows if row[2].endswith(_WANTED) and row[0].startswith("100")]
    answer = io.BytesIO(git(clone, "cat-file", "--batch", stdin="".join(f"{sha}\n" for sha, _ in wanted).encode()))
    files: dict[str, bytes] = {}
    for _, path in wanted:
        said = answer.readline().split()
        if len(said) == 3:
            files[path] = answer.read(int(said[2]))
            answer.read(1)
    return files


def hunks(diff: str) -> Iterator[Hunk]:
    """The hunks of a diff that speak of XPUs, without the lines around them."""
    path = ""
    for part in re.split(r"^(?=diff --git |@@ )", diff, flags=re.MULTILINE):
        if match := re.search(r"^--- (?:a/)?(\S+\.py)\s*$", part, re.MULTILINE):
            path = match[1]
        elif part.startswith("diff --git"):
            path = ""
        if not path or not (place := _HUNK.match(part)):
            continue
        number, old, new = int(place[1]) + (place[2] == "0"), list[str](), list[str]()
        first = number
        for line in [*part.splitlines()[1:], " "]:
            if line[:1] == "-":
                old.append(line[1:])
                number += 1
            elif line[:1] == "+":
                new.append(line[1:])
            elif line[:1] != "\\":
                if any(map(_SPEAKS.search, new)) and len(old) <= _LONGEST:
                    yield Hunk(path, first, tuple(old), tuple(new))
                number += 1
                first, old, new = number, [], []


def fixes(argument: str) -> Iterator[tuple[str, str, str, str]]:
    """(clone, name, the commit before, the diff) for each commit of a clone that speaks of XPUs, or for a patch."""
    patch, _, rest = argument.partition("@")
    if rest:
        clone, _, commit = rest.rpartition("@")
        yield clone, Path(patch).stem, commit, Path(patch).read_text("utf-8", errors="replace")
        return
    commits = (
        git(argument, "log", "--no-merges", "-i", "-G", "xpu", "--format=%H %P", "--", "*.py").decode().split("\n")
    )
    for commit, *parents in filter(None, map(str.split, commits)):
        if len(parents) == 1:
            diff = git(argument, "diff", "-U0", parents[0], commit, "--", "*.py").decode(errors="replace")
            yield argument, f"{_name(argument)} {commit[:9]}", parents[0], diff


def _name(clone: str) -> str:
    path = Path(clone).resolve()
    return (path.parent if path.name in ("repo", ".git") else path).name.rpartition("+")[2]


@cache
def converted(clone: str, commit: str) -> tuple[Converted, dict[str, bytes]]:
    """What the rules make of a commit."""
    files = files_of(clone, commit)
    return convert(Pack(_name(clone), Path(clone), dict(sorted(files.items()))), Options()), files


def judged(hunk: Hunk, done: Converted, files: Mapping[str, bytes]) -> str:
    """What the rules did about the lines of a hunk; "" where they are not those that the commit has."""
    text = files.get(hunk.path, b"").decode("utf-8", errors="replace").splitlines()
    if [line.strip() for line in text[hunk.first - 1 :][: len(hunk.old)]] != [line.strip() for line in hunk.old]:
        return ""
    decisions = {str(row.decision) for row in done.sites if row.path == hunk.path and row.line in hunk.lines}
    for answer in ("converted", "person", "left"):
        if answer in decisions:
            return answer
    if any(row.path == hunk.path and row.line in hunk.lines for row in done.skipped):
        return "listed"
    return "silent" if any(map(_NAMES.search, _code(text, hunk.lines))) and hunk.old else "no device"


def _code(text: Sequence[str], lines: Iterable[int]) -> Iterator[str]:
    """The lines without comments and long strings."""
    inside = set(lines)
    kept: dict[int, list[str]] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(text) + "\n").readline):
            said = token.type in (tokenize.NAME, tokenize.OP) or (
                token.type == tokenize.STRING and len(token.string) < 12
            )
            if token.start[0] in inside and said:
                kept.setdefault(token.start[0], []).append(token.string)
    except (tokenize.TokenError, SyntaxError):
        pass
    return (" ".join(words) for words in kept.values())


def main() -> int:
    """Prints a table; status 1 where a place is silent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+", help="a clone, or PATCH@CLONE@COMMIT")
    parser.add_argument("--show", choices=WHAT, help="also print the hunks of a kind")
    options = parser.parse_args()
    total, other = Counter[str](), 0
    print(f"{'':40}", *(f"{what:>9}" for what in WHAT))
    for source in options.source:
        for clone, name, commit, diff in fixes(source):
            listed = list(hunks(diff))
            done, files = converted(clone, commit) if listed else (None, {})
            count = Counter[str]()
            for hunk in listed:
                what = judged(hunk, done, files) if done else ""
                other += not what
                count[what] += 1
                if what and what == options.show:
                    print(f"  {name} {hunk.path}:{hunk.first}", *(f"    -{line}" for line in hunk.old), sep="\n")
                    print(*(f"    +{line}" for line in hunk.new), sep="\n")
            if count.total() > count[""]:
                print(f"{name[:40]:40}", *(f"{count[what]:9}" for what in WHAT))
            total += count
    print(f"{'all':40}", *(f"{total[what]:9}" for what in WHAT))
    generic = sum(total[what] for what in WHAT if what != "no device")
    share = f"{total['converted'] / max(generic, 1):.0%}"
    print(f"of {generic} that name a device {share} are converted; {other} fit no commit here")
    return int(total["silent"] > 0)


if __name__ == "__main__":
    sys.exit(main())
