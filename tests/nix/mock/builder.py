"""What the builder does in Python: substitution, wrappers, wheels and environments."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path


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


def wheel(file: str, target: str) -> None:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(target)


def environment(out: str, shell: str, python: str, more: str, *folders: str) -> None:
    """bin/python that sees the packages' folders before those of the interpreter that runs the tests."""
    target = Path(out) / "bin"
    target.mkdir(parents=True)
    seen = ":".join(filter(None, dict.fromkeys([*folders, more])))
    script = f'#!{shell}\nexport PYTHONPATH="{seen}" PYTHONDONTWRITEBYTECODE=1\nexec "{python}" "$@"\n'
    for name in ("python", "python3"):
        (target / name).write_text(script)
        (target / name).chmod(0o755)


COMMANDS: dict[str, Callable[..., None]] = {
    "substitute": substitute,
    "wrap": wrap,
    "wheel": wheel,
    "environment": environment,
}
COMMANDS[sys.argv[1]](*sys.argv[2:])
