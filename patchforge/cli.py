"""The command line: the table of commands, and what runs one. A command's module is imported when it runs."""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from patchforge import __version__, faults, interrupted, progress, terminal
from patchforge.arguments.parser import Parser
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import document

_TRACEBACK = "--traceback"
_ERROR = "patchforge/error/1"  #: the document of an error; see patchforge/schemas.py
_OBJECTS = 100_000  #: between two searches for garbage, which take two thirds of the time of parsing where it is 700
_EPILOG = """\
exit status: 0 done · 1 a check or proof failed · 2 wrong usage, or something named is not there ·
3 a transform drifted: upstream moved and a person must look · 65 what was read is damaged ·
69 a check could not be made · 70 a mistake in patchforge · 74 the disk or the system was in the way ·
75 try again later · 130 interrupted · 141 whoever read the output closed it

environment: PATCHFORGE_UPSTREAM (clone or address of ComfyUI) · PATCHFORGE_CACHE, PATCHFORGE_STATE,
PATCHFORGE_MODELS (folders) · PATCHFORGE_TRACEBACK (1: show where an error arose) · NO_COLOR
"""


class Command(NamedTuple):
    """One command; a group has commands of its own. ``run(options)`` of the module of its name does it.

    ``arguments`` is the module that knows what it takes, by a function of its name. Both are imported when it is used.
    A named tuple, since dataclasses are slow to import.
    """

    name: str
    help: str
    arguments: str = ""
    group: tuple[Command, ...] = ()


_PACKS = (
    Command("check", "list what is for CUDA only; status 1 when there is something", "packs"),
    Command("apply", "convert a pack, prove it and write its patch", "packs"),
    Command("revert", "undo apply --in-place exactly", "packs"),
    Command("test", "run packs for real in releases of ComfyUI, as they come and converted", "packs"),
    Command("track", "show packs whose branches have moved on, and why others wait", "packs"),
    Command("bot", "propose packs that have moved on as pull requests, one for each", "packs"),
    Command("explain", "say what a rule for packs is for, with examples", "packs"),
)
_BENCH = (
    Command("run", "measure a release on a device; what bench alone does", "bench"),
    Command("compare", "compare two benchmarks, or upstream and patched of one; status 1 for a change", "bench"),
    Command("history", "order many benchmarks by date; status 1 where the newest change is for the worse", "bench"),
    Command("report", "write a benchmark as a page with plots, as Markdown and as CSV", "bench"),
    Command("record", "keep a release's exact counts beside its patches", "bench"),
    Command("costs", "show what releases cost in exact counts, as they are kept", "bench"),
    Command("submit", "write one anonymous file of a benchmark, to be attached to an issue", "bench"),
)
_ARBITER = (
    Command("run", "hold requests to ComfyUI and Ollama until the card has room; what arbiter alone does", "arbiter"),
    Command("limit", "limit a service to a part of the card's memory, where the kernel can", "arbiter"),
)
_MODELS = (
    Command("list", "show every model file, which program has it, and which are copies", "models"),
    Command("link", "give a model one more name: in ComfyUI's folders, or in Ollama", "models"),
    Command("import", "take models into the store, and make one file of copies", "models"),
    Command(
        "verify",
        "compare files with the digests that their names tell; status 1 if one is wrong",
        "models",
    ),
    Command("gc", "show what the store keeps and nothing else refers to, or remove it", "models"),
)
_DOOR = (
    Command("render", "write nginx's configuration: who may do what, with ComfyUI and Ollama behind it", "door"),
    Command("routes", "list the routes of a release or pack, and who may use them; status 1 for new ones", "door"),
)
COMMANDS = (
    Command("apply", "convert a release and write its patches", "releases"),
    Command("revert", "undo apply --in-place exactly, in a checkout or a pack", "folders"),
    Command("repair", "finish what is half done in a patched folder, and put back what is lost", "folders"),
    Command("update", "patch the release that a patched checkout was updated to", "folders"),
    Command("status", "show what is tracked, generated and cached, or the state of a folder", "folders"),
    Command("exporter", "tell Prometheus what GPUs, ComfyUI and Ollama do", "operating"),
    Command("health", "say whether a ComfyUI that runs is in order; status 1 when it is not", "operating"),
    Command("maintain", "remove old outputs, temporary files and caches; keep what is in use", "operating"),
    Command("validate", "say after an update whether it may stay, and go back if not", "operating"),
    Command("cache", "show what the cache holds, or remove it", "folders"),
    Command("doctor", "examine this machine: GPU, driver, torch, variables; say what to do", "folders"),
    Command("packs", "custom-node packs: check, convert, test and follow them", group=_PACKS),
    Command("test", "run patched releases for real, on the GPU at hand or an emulated one", "trials"),
    Command("bench", "measure what a release costs on a device, and compare it", group=_BENCH),
    Command("arbiter", "share one card between ComfyUI and Ollama", group=_ARBITER),
    Command("models", "one copy of each model file, for ComfyUI, Ollama and Hugging Face's cache", group=_MODELS),
    Command("door", "nginx in front of ComfyUI and Ollama: passwords, roles, limits", group=_DOOR),
    Command(
        "check", "fail on drift, on new unclaimed sites, or when generated/ is not what the inputs give", "releases"
    ),
    Command("replay", "convert all releases: outcomes, unclaimed sites, what changed from one to the next", "releases"),
    Command(
        "verify",
        "verify committed patches against upstream: blob ids before and after, digests, proofs",
        "releases",
    ),
    Command("explain", "say what a transform is for, where it applies and when it can go", "releases"),
    Command("track", "show new releases, and why others are passed over", "following"),
    Command("bot", "propose the newest release as a pull request, or report what is wrong with it", "following"),
    Command("matrix", "print the work of a scheduled run as a matrix of jobs", "following"),
    Command("pin", "bring the pins of what is tracked up to date", "repository"),
    Command("lock-torch", "lock the wheels of a torch version for XPU", "repository"),
    Command("prefetch", "work out the hash that Nix will find for a source, without Nix", "repository"),
    Command("nix", "write the Nix expressions, from templates and pins", "repository"),
    Command("completion", "print a shell completion script", "repository"),
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
    _add(COMMANDS, "command", "patchforge.commands", "", top)
    return top


def _add(commands: Sequence[Command], dest: str, room: str, usual: str, parser: Parser) -> None:
    """Adds the commands of one level; those of a group come when it is used, as other arguments do."""
    parser.begin_commands(dest, usual)
    for command in commands:
        arguments = partial(_fill, command, f"{room}.{command.name.replace('-', '_')}")
        for word in filter(None, (command.name, _OLD_NAMES.get(command.name))):
            parser.add_command(word, command.help, arguments, shown=word == command.name)


def _fill(command: Command, module: str, parser: Parser) -> None:
    """What a command takes. ``module`` runs it."""
    parser.set_defaults(run=partial(_run_of, module))
    if command.group:
        _add(command.group, "action", module, _USUAL.get(command.name, ""), parser)
        return
    known = vars(importlib.import_module(f"patchforge.arguments.{command.arguments}"))
    name = module.rpartition(".")[2]
    (known.get(name) or known[f"{name}_"])(parser)  # Python has some names for itself


def _run_of(module: str, options: argparse.Namespace) -> int:
    gc.set_threshold(_OBJECTS)
    return int(importlib.import_module(module).run(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Nothing that goes wrong leaves as a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        atexit.register(gc.freeze)  # who ends has no use for garbage
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
    if _wants_document(words):
        importlib.import_module("json")  # a fault may leave no file to read it from
    interrupted.forget()
    typed = sys.stderr if arguments is None or (sys.stderr and sys.stderr.isatty()) else None
    with progress.shown(typed), terminal.guarded():
        try:
            return _run(words)
        except (SystemExit, GeneratorExit):
            raise
        except KeyboardInterrupt:
            _say("; ".join(("patchforge: interrupted", *interrupted.told())))
            return int(Exit.INTERRUPTED)
        except terminal.ReaderGoneError:
            return int(Exit.CUT_SHORT)  # there is nobody to tell
        except BaseException as error:  # noqa: BLE001 - the one place that turns every fault into a sentence
            return _fail(error, words)


def _interrupt(*_: object) -> None:
    """The first Ctrl-C ends the command; those that follow do not disturb it at putting things right."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def ipex_benchmark() -> int:
    """The program ``ipex-benchmark``: ``patchforge bench``, which measures torch alone where no suite is named."""
    return main(_door("tensor,conv,sd"))


def comfyui_benchmark() -> int:
    """The program ``comfyui-benchmark``: ``patchforge bench``, which measures workflows where no suite is named."""
    return main(_door("workflows,batch,load"))


def _door(suites: str) -> list[str]:
    words = sys.argv[1:]
    other = {command.name for command in _BENCH if command.name != _USUAL["bench"]} | {"-h", "--help"}
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
    said = faults.told(error, words)
    if _TRACEBACK in words or os.environ.get(faults.VARIABLE):
        sys.__excepthook__(type(error), error, error.__traceback__)
    if _wants_document(words):
        with suppress(OSError, ValueError, terminal.ReaderGoneError):
            print(document({"schema": _ERROR, "error": {**said.as_data(), "do": _typed(said.do)}}), flush=True)
    _say(f"patchforge: {_typed(str(said))}")
    return int(said.status)


def _wants_document(words: Sequence[str]) -> bool:
    return any(len(word) > 2 and "--json".startswith(word) for word in words)  # as argparse takes it


def _typed(text: str) -> str:
    """``text``, whose command lines begin with what started this patchforge."""
    if not sys.argv[0].endswith("__main__.py"):
        return text
    from patchforge.started import typed  # noqa: PLC0415 - not what a mistyped word should wait for

    return typed(text, [command.name for command in COMMANDS])


def _say(text: str) -> None:
    with suppress(OSError, ValueError, terminal.ReaderGoneError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
