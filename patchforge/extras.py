"""Which command needs which extra packages: one table, of which errors, the README and the pages about them are made.

Imports nothing: an error is told from it, also where little can be imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Extra(NamedTuple):
    """What commands need beside ``pip install .``. ``extras``: of pyproject.toml; ``page``: in docs, which says so."""

    commands: tuple[str, ...]
    extras: tuple[str, ...]
    why: str
    page: str


NEEDED = (
    Extra(("bench",), ("test", "benchmark"), "pictures, statistics, plots, NVIDIA's counters", "bench.md"),
    Extra(("test", "packs test"), ("test",), "ComfyUI's socket and its pictures", "trials.md"),
    Extra(("exporter", "health", "validate"), ("operate",), "Prometheus, certificates, pictures", "monitoring.md"),
    Extra(("arbiter",), ("arbiter",), "requests that are passed on", "ollama.md"),
    Extra(("bot", "track", "packs bot"), ("bot",), "GitHub", "bot.md"),
)
#: Module → the extras that have it, the narrowest first; a test holds them against pyproject.toml.
MODULES = {
    "aiohttp": ("arbiter",),
    "cryptography": ("operate",),
    "flip_evaluator": ("benchmark",),
    "github": ("bot",),
    "matplotlib": ("benchmark",),
    "numpy": ("benchmark", "operate"),
    "PIL": ("test", "operate"),
    "prometheus_client": ("operate", "arbiter"),
    "ruptures": ("benchmark",),
    "scipy": ("benchmark",),
    "skimage": ("benchmark",),
    "websockets": ("test",),
}
_OLD_NAMES = {"nodes": "packs"}


def install(extras: Sequence[str]) -> str:
    """What gives patchforge these extras; no index has this project, so it comes from its repository."""
    group = ",".join(extras)
    return f'pip install ".[{group}]"'


def of(words: Sequence[str]) -> tuple[str, ...]:
    """The extras of the command that a command line runs; none where it needs none."""
    plain = [_OLD_NAMES.get(word, word) for word in words if not word.startswith("-")]
    for name in (" ".join(plain[:2]), "".join(plain[:1])):
        for extra in NEEDED:
            if name in extra.commands:
                return extra.extras
    return ()


def lacking(module: str, words: Sequence[str]) -> tuple[str, ...]:
    """The extras to install where a command lacks a module; none where no extra has it."""
    have = MODULES.get(module, ())
    named = of(words)
    return named if set(named) & set(have) else have[:1]


def table() -> Iterator[str]:
    """For people."""
    yield "| command | needs | for |"
    yield "|---|---|---|"
    for extra in NEEDED:
        commands = ", ".join(f"`patchforge {name}`" for name in extra.commands)
        yield f"| {commands} | `{install(extra.extras)}` | {extra.why} |"
    yield ""
