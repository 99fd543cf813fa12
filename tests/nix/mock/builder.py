"""What the builder does in Python: substitution, wrappers, wheels, environments and libraries.

A library is a file that begins as an ELF file and goes on as JSON: what it ``needs``, its ``runpath``, what was done to
it. It may be ``fragile`` (stripping breaks it, as nixpkgs' torch-bin says of torch's) or have ``terms`` (its licence
forbids changes, as nixpkgs' mkl says of Intel's).
"""

from __future__ import annotations

import csv
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

MAGIC = b"\x7fELF"
#: Of the C library: never looked for.
LIBC = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2"}


def substitute(file: str, *words: str) -> None:
    path = Path(file)
    text = path.read_text()
    queue = list(words)
    while queue:
        assert queue.pop(0) == "--replace-fail"
        old, new = queue.pop(0), queue.pop(0)
        if old not in text:
            raise SystemExit(f"substitute: {file}: no {old!r}")
        text = text.replace(old, new)
    path.write_text(text)


def wrap(shell: str, program: str, *words: str) -> None:
    path = Path(program)
    hidden = path.with_name(f".{path.name}-wrapped")
    target = path.resolve()
    path.unlink()
    hidden.symlink_to(target)
    lines = []
    queue = list(words)
    while queue:
        kind = queue.pop(0)
        if kind == "--set-default":
            name, value = queue.pop(0), queue.pop(0)
            lines.append(f'export {name}="${{{name}-{value}}}"')
        elif kind == "--prefix":
            name, separator, value = queue.pop(0), queue.pop(0), queue.pop(0)
            lines.append(f'export {name}="{value}${{{name}:+{separator}${name}}}"')
        else:
            raise SystemExit(f"wrapProgram: {kind} is unknown here")
    path.write_text(f"#!{shell}\n" + "\n".join(lines) + f'\nexec "{hidden}" "$@"\n')
    path.chmod(0o755)


def wheel(file: str, site: str, prefix: str) -> None:
    """As pypa's installer: code into ``site``, ``NAME.data/data`` into ``prefix``, and RECORD says where it went."""
    with zipfile.ZipFile(file) as archive:
        archive.extractall(site)
    for data in Path(site).glob("*.data/data"):
        info = next(Path(site).glob("*.dist-info"))
        for path in sorted(data.rglob("*")):
            target = Path(prefix) / path.relative_to(data)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        record = info / "RECORD"
        if record.is_file():
            rows = list(csv.reader(record.read_text().splitlines()))
            start = f"{data.relative_to(site)}/"
            placed = [
                os.path.relpath(Path(prefix) / row[0][len(start) :], site) for row in rows if row[0].startswith(start)
            ]
            kept = [row[0] for row in rows if not row[0].startswith(start)]
            record.write_text("".join(f"{name},,\n" for name in [*kept, *placed]))


def environment(out: str, shell: str, python: str, more: str, *folders: str) -> None:
    """bin/python that sees the packages' folders before those of the interpreter that runs the tests."""
    target = Path(out) / "bin"
    target.mkdir(parents=True)
    seen = ":".join(filter(None, dict.fromkeys([*folders, more])))
    script = f'#!{shell}\nexport PYTHONPATH="{seen}" PYTHONDONTWRITEBYTECODE=1\nexec "{python}" "$@"\n'
    for name in ("python", "python3"):
        (target / name).write_text(script)
        (target / name).chmod(0o755)


def libraries(folder: str, pattern: str = "*.so*", *, deep: bool = True) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The libraries below a folder, or in it, and what they say of themselves."""
    top = Path(folder)
    for path in sorted(top.rglob(pattern) if deep else top.glob(pattern)):
        if path.is_file() and (data := path.read_bytes()).startswith(MAGIC + b"{"):  # a real one is left alone
            yield path, json.loads(data[len(MAGIC) :])


def _rewrite(path: Path, about: dict[str, Any], **changes: Any) -> None:
    if about.get("terms"):
        raise SystemExit(f"{path.name}: the licence forbids to modify the binary ({', '.join(changes)})")
    path.chmod(0o644)
    path.write_bytes(MAGIC + json.dumps({**about, **changes}).encode())


def strip(folder: str) -> None:
    """Removes symbols, and breaks what cannot bear it."""
    for path, about in libraries(folder):
        if path.is_symlink():
            continue
        if about.get("fragile"):
            raise SystemExit(f"{path.name}: ELF load command address/offset not properly aligned (it was stripped)")
        _rewrite(path, about, stripped=True)


def shrink(folder: str) -> None:
    """As ``patchelf --shrink-rpath``: changes what has a run path."""
    for path, about in libraries(folder):
        if about.get("runpath") and not path.is_symlink():
            _rewrite(path, about, shrunk=True)


def autopatchelf(out: str, searched: str, ignored: str, appended: str, flags: str) -> None:
    """As auto-patchelf.py: all of ``out``, and of the other folders what lies right in them."""
    known: dict[str, Path] = {}
    for path, _ in libraries(out):
        known.setdefault(path.name, path.parent)
    for folder in searched.split():
        for path, _ in libraries(folder, deep=False):
            known.setdefault(path.name, path.parent)
    missing = []
    for path, about in libraries(out):
        if path.is_symlink():
            continue
        needed = [str(known[name]) for name in about["needs"] if name in known]
        missing += [(name, path) for name in about["needs"] if name not in known and name not in LIBC]
        runpath = list(dict.fromkeys([*needed, *appended.split()]))
        if runpath:
            _rewrite(path, about, runpath=runpath, inherited="--force-rpath" in flags.split())
    refused = [(name, path) for name, path in missing if not any(fnmatch(name, pattern) for pattern in ignored.split())]
    for name, path in refused:
        print(f"error: auto-patchelf could not satisfy dependency {name} wanted by {path}", file=sys.stderr)
    if refused:
        raise SystemExit("auto-patchelf failed to find all the required dependencies.")


COMMANDS: dict[str, Callable[..., None]] = {
    "substitute": substitute,
    "wrap": wrap,
    "wheel": wheel,
    "environment": environment,
    "strip": strip,
    "shrink": shrink,
    "autopatchelf": autopatchelf,
}
if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
