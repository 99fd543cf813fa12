"""The command line: the table of commands, and what runs one. A command's module is imported when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from patchforge import __version__, faults, progress, terminal
from patchforge.arguments import (
    arbiter,
    bench,
    door,
    folders,
    following,
    models,
    operating,
    packs,
    releases,
    repository,
    trials,
)
from patchforge.arguments.parser import Arguments, Parser
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import document

_TRACEBACK = "--traceback"
_ERROR = "patchforge/error/1"  #: the document of an error; see patchforge/schemas.py
_EPILOG = """\
exit status: 0 done · 1 a check or proof failed · 2 wrong usage, or something named is not there ·
3 a transform drifted: upstream moved and a person must look · 65 what was read is damaged ·
69 a check could not be made · 70 a mistake in patchforge · 74 the disk or the system was in the way ·
75 try again later · 130 interrupted

environment: PATCHFORGE_UPSTREAM (clone or address of ComfyUI) · PATCHFORGE_CACHE, PATCHFORGE_STATE,
PATCHFORGE_MODELS (folders) · PATCHFORGE_TRACEBACK (1: show where an error arose) · NO_COLOR
"""


class Command(NamedTuple):
    """One command and what it takes; a group has commands instead. ``run(options)`` of the module of its name does it.

    A named tuple, since dataclasses are slow to import.
    """

    name: str
    help: str
    arguments: Arguments | None = None
    group: tuple[Command, ...] = ()


_PACKS = (
    Command("check", "list what is for CUDA only; status 1 when there is something", packs.check),
    Command("apply", "convert a pack, prove it and write its patch", packs.apply),
    Command("revert", "undo apply --in-place exactly", packs.revert),
    Command("test", "run packs for real in releases of ComfyUI, as they come and converted", packs.test),
    Command("track", "show packs whose branches have moved on, and why others wait", packs.track),
    Command("bot", "propose packs that have moved on as pull requests, one for each", packs.bot),
    Command("explain", "say what a rule for packs is for, with examples", packs.explain),
)
_BENCH = (
    Command("run", "measure a release on a device; what bench alone does", bench.run),
    Command("compare", "compare two benchmarks, or upstream and patched of one; status 1 for a change", bench.compare),
    Command(
        "history", "order many benchmarks by date; status 1 where the newest change is for the worse", bench.history
    ),
    Command("report", "write a benchmark as a page with plots, as Markdown and as CSV", bench.report),
    Command("submit", "write one anonymous file of a benchmark, to be attached to an issue", bench.submit),
)
_ARBITER = (
    Command("run", "hold requests to ComfyUI and Ollama until the card has room; what arbiter alone does", arbiter.run),
    Command("limit", "limit a service to a part of the card's memory, where the kernel can", arbiter.limit),
)
_MODELS = (
    Command("list", "show every model file, which program has it, and which are copies", models.list_),
    Command("link", "give a model one more name: in ComfyUI's folders, or in Ollama", models.link),
    Command("import", "take models into the store, and make one file of copies", models.import_),
    Command(
        "verify",
        "compare files with the digests that their names tell; status 1 if one is wrong",
        models.verify,
    ),
    Command("gc", "show what the store keeps and nothing else refers to, or remove it", models.gc),
)
_DOOR = (
    Command("render", "write nginx's configuration: who may do what, with ComfyUI and Ollama behind it", door.render),
    Command("routes", "list the routes of a release or pack, and who may use them; status 1 for new ones", door.routes),
)
COMMANDS = (
    Command("apply", "convert a release and write its patches", releases.apply),
    Command("revert", "undo apply --in-place exactly, in a checkout or a pack", folders.revert),
    Command("repair", "finish what is half done in a patched folder, and put back what is lost", folders.repair),
    Command("update", "patch the release that a patched checkout was updated to", folders.update),
    Command("status", "show what is tracked, generated and cached, or the state of a folder", folders.status),
    Command("exporter", "tell Prometheus what GPUs, ComfyUI and Ollama do", operating.exporter),
    Command("health", "say whether a ComfyUI that runs is in order; status 1 when it is not", operating.health),
    Command("maintain", "remove old outputs, temporary files and caches; keep what is in use", operating.maintain),
    Command("validate", "say after an update whether it may stay, and go back if not", operating.validate),
    Command("cache", "show what the cache holds, or remove it", folders.cache),
    Command("doctor", "examine this machine: GPU, driver, torch, variables; say what to do", folders.doctor),
    Command("packs", "custom-node packs: check, convert, test and follow them", group=_PACKS),
    Command("test", "run patched releases for real, on the GPU at hand or an emulated one", trials.test),
    Command("bench", "measure what a release costs on a device, and compare it", group=_BENCH),
    Command("arbiter", "share one card between ComfyUI and Ollama", group=_ARBITER),
    Command("models", "one copy of each model file, for ComfyUI, Ollama and Hugging Face's cache", group=_MODELS),
    Command("door", "nginx in front of ComfyUI and Ollama: passwords, roles, limits", group=_DOOR),
    Command(
        "check", "fail on drift, on new unclaimed sites, or when generated/ is not what the inputs give", releases.check
    ),
    Command(
        "replay", "convert all releases: outcomes, unclaimed sites, what changed from one to the next", releases.replay
    ),
    Command(
        "verify",
        "verify committed patches against upstream: blob ids before and after, digests, proofs",
        releases.verify,
    ),
    Command("explain", "say what a transform is for, where it applies and when it can go", releases.explain),
    Command("track", "show new releases, and why others are passed over", following.track),
    Command("bot", "propose the newest release as a pull request, or report what is wrong with it", following.bot),
    Command("matrix", "print the work of a scheduled run as a matrix of jobs", following.matrix),
    Command("pin", "bring the pins of what is tracked up to date", repository.pin),
    Command("lock-torch", "lock the wheels of a torch version for XPU", repository.lock_torch),
    Command("prefetch", "work out the hash that Nix will find for a source, without Nix", repository.prefetch),
    Command("nix", "write the Nix expressions, from templates and pins", repository.nix),
    Command("completion", "print a shell completion script", repository.completion),
)
_USUAL = {"bench": "run", "arbiter": "run"}  #: group → the command that is meant where none is named
_OLD_NAMES = {"packs": "nodes"}  #: group → what it was called; taken, and not shown


def parser() -> Parser:
    """The parser of all commands; each has its arguments when it is used, or after ``fill_all``."""
    top = Parser(
        prog="patchforge",
        description="Turn a ComfyUI release into one that works well on Intel GPUs, and prove the rest unchanged.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("-V", "--version", action="version", version=f"patchforge {__version__}")
    top.add_argument(_TRACEBACK, action="store_true", help="show where an error arose; may stand anywhere")
    _add(top, "command", COMMANDS)
    return top


def _add(
    above: Parser, dest: str, commands: Sequence[Command], room: str = "patchforge.commands", usual: str = ""
) -> None:
    above.begin_commands(dest, usual)
    for command in commands:
        module = f"{room}.{command.name.replace('-', '_')}"
        parsers = [above.add_command(command.name, command.help, command.arguments)]
        if old := _OLD_NAMES.get(command.name):
            parsers.append(above.add_command(old, command.help, command.arguments, shown=False))
        for made in parsers:
            made.set_defaults(run=partial(_run_of, module))
            if command.group:
                _add(made, "action", command.group, module, _USUAL.get(command.name, ""))


def _run_of(module: str, options: argparse.Namespace) -> int:
    return int(importlib.import_module(module).run(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Nothing that goes wrong leaves as a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    typed = sys.stderr if arguments is None or (sys.stderr and sys.stderr.isatty()) else None
    with progress.shown(typed), terminal.guarded():
        try:
            return _run(words)
        except (SystemExit, GeneratorExit):
            raise
        except KeyboardInterrupt:
            _say("patchforge: interrupted; patchforge status DIR says how a folder that was being patched is left")
            return int(Exit.INTERRUPTED)
        except terminal.ReaderGoneError:
            return int(Exit.SYSTEM)  # not done to its end; there is nobody to tell
        except BaseException as error:  # noqa: BLE001 - the one place that turns every fault into a sentence
            return _fail(error, words)


def ipex_benchmark() -> int:
    """The program ``ipex-benchmark``: ``patchforge bench``, which measures torch alone where no suite is named."""
    return main(_door("tensor,conv,sd"))


def comfyui_benchmark() -> int:
    """The program ``comfyui-benchmark``: ``patchforge bench``, which measures workflows where no suite is named."""
    return main(_door("workflows,batch,load"))


def _door(suites: str) -> list[str]:
    words = sys.argv[1:]
    other = {one.name for one in _BENCH if one.name != _USUAL["bench"]} | {"-h", "--help"}
    named = any(word.partition("=")[0] in {"--suite", "--workflow"} for word in words)
    return ["bench", *words, *([] if named or (words and words[0] in other) else ["--suite", suites])]


def _run(words: Sequence[str]) -> int:
    if empty := next((before for before, word in zip(("patchforge", *words), words, strict=False) if not word), ""):
        raise PatchforgeError(f"the argument after {empty} is empty", do="name something; is a variable not set?")
    options = parser().parse_args([word for word in words if word != _TRACEBACK])
    run: Callable[[argparse.Namespace], int] = options.run
    status = int(run(options))
    sys.stdout.flush()
    return status


def _fail(error: BaseException, words: Sequence[str]) -> int:
    """Says what went wrong, with ``--json`` as one document too; returns the exit status."""
    said = faults.told(error)
    if _TRACEBACK in words or os.environ.get(faults.VARIABLE):
        _say("".join(traceback.format_exception(error)).rstrip())
    if any(len(word) > 2 and "--json".startswith(word) for word in words):  # as argparse takes it
        with suppress(OSError, ValueError, terminal.ReaderGoneError):
            print(document({"schema": _ERROR, "error": {**said.as_data(), "do": _typed(said.do)}}), flush=True)
    _say(f"patchforge: {_typed(str(said))}")
    return int(said.status)


def _typed(text: str) -> str:
    """``text``, whose command lines begin with what started this patchforge."""
    if not sys.argv[0].endswith("__main__.py"):
        return text
    from patchforge.started import typed  # noqa: PLC0415 - not what a mistyped word should wait for

    return typed(text, [one.name for one in COMMANDS])


def _say(text: str) -> None:
    with suppress(OSError, ValueError, terminal.ReaderGoneError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
