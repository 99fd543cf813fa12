"""The command line. Only argparse is imported here; each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from patchforge import __version__, faults, terminal
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import document

_TRACEBACK = "--traceback"
_EPILOG = """\
exit status: 0 done · 1 a check or proof failed · 2 wrong usage, or something named is not there ·
3 a transform drifted: upstream moved and a person must look · 65 what was read is damaged ·
69 a check could not be made · 70 a mistake in patchforge · 74 the disk or the system was in the way ·
75 try again later · 130 interrupted

environment: PATCHFORGE_UPSTREAM (clone or address of ComfyUI) · PATCHFORGE_CACHE, PATCHFORGE_STATE (folders) ·
PATCHFORGE_TRACEBACK (1: show where an error arose) · NO_COLOR
"""


class _Parser(argparse.ArgumentParser):
    """What is wrong with a command line is an error like any other."""

    def error(self, message: str) -> NoReturn:
        raise PatchforgeError(message, do=f"{self.prog} --help")


def _whole(least: int) -> Callable[[str], int]:
    """A number of things, ``least`` of them or more."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return int(text)

    return read


def _seconds(text: str) -> float:
    """A time that passes: more than 0, and not for ever."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(
        prog="patchforge",
        description="Turn a ComfyUI release into one that works well on Intel GPUs, and prove the rest unchanged.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"patchforge {__version__}")
    top.add_argument(_TRACEBACK, action="store_true", help="show where an error arose; may stand anywhere")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _apply(commands)
    _check(commands)
    _replay(commands)
    _verify(commands)
    _test(commands)
    _doctor(commands)
    _prefetch(commands)
    _pin(commands)
    _lock_torch(commands)
    _nix(commands)
    _nodes(commands)
    _track(commands)
    _bot(commands)
    _matrix(commands)
    _explain(commands)
    _status(commands)
    _repair(commands)
    _update(commands)
    _completion(commands)
    return top


Commands = Any  #: argparse keeps the type of sub-parsers to itself


def _command(commands: Commands, name: str, text: str, *, source: bool = True) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    one.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    if source:
        one.add_argument(
            "--upstream",
            metavar="PATH|URL",
            help="clone or address of ComfyUI (default: PATCHFORGE_UPSTREAM, else GitHub)",
        )
        one.add_argument("--jobs", type=_whole(1), metavar="N", help="processes to use (default: one per core)")
        one.add_argument("--no-cache", action="store_true", help="look at every file again")
    return one


def _apply(commands: Commands) -> None:
    one = _command(commands, "apply", "convert a release and write its patches")
    one.add_argument(
        "release",
        nargs="?",
        metavar="VERSION|COMMIT",
        help="such as v0.32.0; with --from or --in-place it is recognised",
    )
    one.add_argument(
        "--from", dest="source", metavar="TARBALL|DIR", help="read the release from here instead of from git"
    )
    where = one.add_mutually_exclusive_group()
    where.add_argument("--out", metavar="DIR", help="where patches go (default: generated/comfyui/VERSION)")
    where.add_argument("--to", metavar="DIR", help="write the whole patched tree into a new folder")
    where.add_argument("--in-place", metavar="DIR", help="patch the checkout in DIR, after recognising its version")
    where.add_argument("--revert", metavar="DIR", help="undo --in-place exactly")
    one.add_argument(
        "--context", type=_whole(0), default=0, metavar="N", help="upstream lines around each hunk (default: 0)"
    )
    one.add_argument("--dry-run", action="store_true", help="do everything but write")


def _check(commands: Commands) -> None:
    one = _command(
        commands, "check", "fail on drift, on new unclaimed sites, or when generated/ is not what the inputs give"
    )
    one.add_argument("release", nargs="*", metavar="VERSION", help="default: every release under generated/")
    one.add_argument("--generated", default="generated/comfyui", metavar="DIR", help="default: generated/comfyui")


def _replay(commands: Commands) -> None:
    one = _command(
        commands, "replay", "convert all releases: outcomes, unclaimed sites, what changed from one to the next"
    )
    one.add_argument("--since", metavar="VERSION", help="first release (default: the oldest)")
    one.add_argument("--until", metavar="VERSION", help="last release (default: the newest)")
    one.add_argument(
        "--commits", action="store_true", help="every commit between --since and --until that touches a target file"
    )
    one.add_argument("--check", action="store_true", help="also compile, prove, apply three ways and run a second time")


def _verify(commands: Commands) -> None:
    one = _command(
        commands, "verify", "verify committed patches against upstream: blob ids before and after, digests, proofs"
    )
    one.add_argument("release", nargs="*", metavar="VERSION", help="default: every release under generated/")
    one.add_argument("--generated", default="generated/comfyui", metavar="DIR", help="default: generated/comfyui")
    one.add_argument(
        "--dynamic", action="store_true", help="also import both trees against a faked torch and compare answers"
    )
    one.add_argument(
        "--python", metavar="PATH", help="interpreter with torch and ComfyUI's requirements (for --dynamic)"
    )
    one.add_argument(
        "--online", action="store_true", help="instead settle pinned hashes that are published, not computed"
    )
    one.add_argument("--pins", default="upstream/pins", metavar="DIR", help="default: upstream/pins (for --online)")


def _test(commands: Commands) -> None:
    one = _command(commands, "test", "run patched releases for real, on the GPU at hand or an emulated one")
    one.add_argument("release", nargs="*", metavar="VERSION", help="default: every release under generated/")
    one.add_argument("--generated", default="generated/comfyui", metavar="DIR", help="default: generated/comfyui")
    one.add_argument(
        "--from", dest="source", metavar="TARBALL|DIR", help="read the one release from here instead of from git"
    )
    one.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto, cuda, xpu, mps, cpu, emulated or emulated:PRESET (default: auto, CUDA before XPU before emulated)",
    )
    one.add_argument("--against-upstream", action="store_true", help="run upstream's own tree beside the patched one")
    one.add_argument(
        "--pairs",
        type=_whole(0),
        default=5,
        metavar="N",
        help="with --against-upstream on a GPU: pairs of runs to compare bits, time and memory (default: 5; 0: none)",
    )
    one.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with the torch to test (default: this one)",
    )
    one.add_argument(
        "--as-it-is", action="store_true", help="use that interpreter itself: it has the release's requirements"
    )
    one.add_argument(
        "--allow-building",
        action="store_true",
        help="let pip build requirements that have no wheel, which runs their code while they are installed",
    )
    one.add_argument(
        "--lean", action="store_true", help="do not install the front end, the templates and the embedded documentation"
    )
    one.add_argument("--session", action="append", default=[], metavar="NAME", help="only this session; repeat")
    one.add_argument("--again", action="store_true", help="run also what an earlier command has finished")
    one.add_argument(
        "--nodes", nargs="+", default=[], metavar="DIR", help="instead run these node packs, as they come and converted"
    )
    one.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help="with --nodes: a requirement of the packs that is not to be installed; repeat",
    )
    one.add_argument("--page", metavar="FILE", help="with --nodes: put the tables into this page, between their marks")
    one.add_argument("--timeout", type=_seconds, default=300.0, metavar="SECONDS", help="for one prompt (default: 300)")
    one.add_argument(
        "--out", default="trials", metavar="DIR", help="where evidence, pictures and reports go (default: trials)"
    )


def _doctor(commands: Commands) -> None:
    one = _command(
        commands, "doctor", "examine this machine: GPU, driver, torch, variables; say what to do", source=False
    )
    one.add_argument("tree", nargs="?", metavar="DIR", help="ComfyUI's folder: is it patched, and does it fit")
    one.add_argument("--python", metavar="PATH", help="interpreter whose torch is examined (default: this one)")
    one.add_argument("--root", default="/", metavar="DIR", help="examine the files under DIR instead (default: /)")
    one.add_argument(
        "--upstream",
        nargs="?",
        const="",
        metavar="PATH|URL",
        help="instead examine a clone or the address of ComfyUI (default: PATCHFORGE_UPSTREAM, else GitHub)",
    )


def _prefetch(commands: Commands) -> None:
    one = _command(commands, "prefetch", "work out the hash that Nix will find for a source, without Nix", source=False)
    one.add_argument("repository", nargs="?", metavar="OWNER/REPO", help="a repository of GitHub")
    one.add_argument("rev", nargs="?", metavar="REV", help="commit, tag or branch; of ComfyUI also a version")
    one.add_argument("--pypi", nargs=2, metavar=("NAME", "VERSION"), help="a package of pip's index instead")
    where = one.add_mutually_exclusive_group()
    where.add_argument("--upstream", metavar="PATH|URL", help="clone of the repository (default: GitHub's, cached)")
    where.add_argument("--from", dest="source", metavar="TARBALL|DIR", help="GitHub's tarball, or what it unpacks to")
    one.add_argument(
        "--submodule", action="append", metavar="PATH=CLONE", help="with its submodules (fetchSubmodules); repeat"
    )


def _pin(commands: Commands) -> None:
    one = _command(commands, "pin", "bring the pins of what is tracked up to date", source=False)
    one.add_argument(
        "kind",
        nargs="*",
        metavar="KIND",
        help="comfyui, python, torch, nodes, ollama, mordragt-nixos (default: all)",
    )
    one.add_argument(
        "--upstream", action="append", metavar="[NAME=]CLONE", help="clone of ComfyUI, or of the pin NAME; repeat"
    )
    one.add_argument("--only", action="append", metavar="PACK", help="of the node packs, this one; repeat")
    one.add_argument("--pins", default="upstream/pins", metavar="DIR", help="default: upstream/pins")
    one.add_argument("--generated", default="generated/comfyui", metavar="DIR", help="default: generated/comfyui")
    one.add_argument("--dry-run", action="store_true", help="say what would change; write nothing")


def _lock_torch(commands: Commands) -> None:
    one = _command(commands, "lock-torch", "lock the wheels of a torch version for XPU", source=False)
    one.add_argument("version", metavar="VERSION", help="such as 2.14.0")
    one.add_argument("--python", default="", metavar="X.Y", help="default: that of upstream/torch.toml")
    one.add_argument("--pins", default="upstream/pins", metavar="DIR", help="default: upstream/pins")
    one.add_argument("--online", action="store_true", help="ask PyTorch's own indexes too")


def _nix(commands: Commands) -> None:
    one = _command(commands, "nix", "write the Nix expressions, from templates and pins", source=False)
    one.add_argument(
        "--generated", default="generated", metavar="DIR", help="default: generated; flake.nix is beside it"
    )
    one.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is out of date")
    one.add_argument("--dry-run", action="store_true", help="say what would be written")
    one.add_argument("--options", metavar="LIB", help="print the options' documentation, read with this nixpkgs lib")


def _nodes(commands: Commands) -> None:
    text = "convert custom-node packs, or check them"
    one: argparse.ArgumentParser = commands.add_parser("nodes", help=text, description=text)
    actions = one.add_subparsers(dest="action", metavar="ACTION", required=True)
    apply = _command(actions, "apply", "convert a pack, prove it and write its patch", source=False)
    apply.add_argument("pack", metavar="DIR|OWNER/REPO", help="the pack's folder, or a repository")
    where = apply.add_mutually_exclusive_group()
    where.add_argument("--in-place", action="store_true", help="change the folder itself")
    where.add_argument("--out", metavar="DIR", help="where the patch goes (default: generated/nodes/NAME)")
    apply.add_argument(
        "--idiom", choices=("strict", "comfy"), default="strict", help="how devices are named (default: strict)"
    )
    apply.add_argument("--enable", action="append", default=[], metavar="NAMES", help="fp64, half, torch-load")
    apply.add_argument("--dry-run", action="store_true", help="do everything but write")
    check = _command(actions, "check", "list what is for CUDA only; status 1 when there is something", source=False)
    check.add_argument("folder", nargs="+", metavar="DIR")
    check.add_argument("--sarif", metavar="FILE", help="also write the findings for code hosts")
    check.add_argument("--figures", action="store_true", help="instead print what each rule finds, as a table")
    revert = actions.add_parser("revert", help="undo apply --in-place exactly")
    revert.add_argument("folder", nargs="+", metavar="DIR")
    revert.add_argument("--dry-run", action="store_true", help="do everything but write")


def _survey(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--upstream", metavar="PATH|URL", help="clone or address of ComfyUI (with a clone GitHub is not asked)"
    )
    one.add_argument("--generated", default="generated/comfyui", metavar="DIR", help="default: generated/comfyui")
    one.add_argument("--token-file", metavar="FILE", help="GitHub token (default: GH_TOKEN, GITHUB_TOKEN)")


def _track(commands: Commands) -> None:
    one = _command(commands, "track", "show new releases, and why others are passed over", source=False)
    one.add_argument("--nodes", action="store_true", help="instead show node packs whose branches have moved on")
    _survey(one)


def _matrix(commands: Commands) -> None:
    one = _command(commands, "matrix", "print the work of a scheduled run as a matrix of jobs", source=False)
    one.add_argument("release", nargs="?", metavar="VERSION", help="this one only")
    one.add_argument("--all", action="store_true", help="every new version, not only the newest")
    _survey(one)


def _bot(commands: Commands) -> None:
    one = _command(commands, "bot", "propose the newest release as a pull request, or report what is wrong with it")
    one.add_argument("release", nargs="?", metavar="VERSION", help="this one only (default: the newest that is new)")
    one.add_argument("--nodes", nargs="*", metavar="NAME", help="instead propose node packs that have moved on")
    one.add_argument("--repository", metavar="OWNER/NAME", help="ours on GitHub (default: GITHUB_REPOSITORY)")
    one.add_argument("--remote", metavar="URL|PATH", help="the same for git (default: its address on GitHub)")
    one.add_argument("--base", default="main", metavar="BRANCH", help="default: main")
    one.add_argument("--token-file", metavar="FILE", help="GitHub token (default: GH_TOKEN, GITHUB_TOKEN)")
    one.add_argument(
        "--dry-run", action="store_true", help="print the plan; with a clone as --upstream no network is used"
    )
    one.add_argument("--test", action="store_true", help="also run the release, on the GPU at hand or an emulated one")
    one.add_argument("--recreate", action="store_true", help="propose again what a person closed")
    one.add_argument(
        "--most-open", type=_whole(0), default=3, metavar="N", help="open pull requests at most (default: 3)"
    )


def _explain(commands: Commands) -> None:
    one = _command(
        commands, "explain", "say what a transform is for, where it applies and when it can go", source=False
    )
    one.add_argument("transform", nargs="?", metavar="TRANSFORM", help="such as T01; all are listed without it")
    one.add_argument("--markdown", action="store_true", help="the reference page of all transforms")
    one.add_argument("--nodes", action="store_true", help="the rules for custom-node packs instead, such as T8")


def _status(commands: Commands) -> None:
    text = "show what is tracked, generated and cached, or the state of a folder"
    one = _command(commands, "status", text, source=False)
    one.add_argument("folder", nargs="?", metavar="DIR", help="instead a checkout or pack: is it patched, and wholly")
    one.add_argument("--generated", default="generated/comfyui", metavar="DIR", help="default: generated/comfyui")


def _repair(commands: Commands) -> None:
    _put_right(_command(commands, "repair", "finish what is half done in a patched folder, and put back what is lost"))


def _update(commands: Commands) -> None:
    _put_right(_command(commands, "update", "patch the release that a patched checkout was updated to"))


def _put_right(one: argparse.ArgumentParser) -> None:
    one.add_argument("folder", metavar="DIR", help="the checkout of ComfyUI, or the pack")
    one.add_argument(
        "--from", dest="source", metavar="TARBALL|DIR", help="the unpatched release, where no journal and no git has it"
    )
    one.add_argument("--dry-run", action="store_true", help="list what would be written and removed")


def _completion(commands: Commands) -> None:
    one: argparse.ArgumentParser = commands.add_parser("completion", help="print a shell completion script")
    one.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Nothing that goes wrong leaves as a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with terminal.guarded():
        try:
            return _run(words)
        except (SystemExit, GeneratorExit):
            raise
        except KeyboardInterrupt:
            _say("patchforge: interrupted; nothing is half-written")
            return int(Exit.INTERRUPTED)
        except terminal.ReaderGoneError:
            return int(Exit.SYSTEM)  # not done to its end; there is nobody to tell
        except BaseException as error:  # noqa: BLE001 - the one place that turns every fault into a sentence
            return _fail(error, words)


def _run(words: Sequence[str]) -> int:
    options = parser().parse_args([word for word in words if word != _TRACEBACK])
    command = importlib.import_module(f"patchforge.commands.{options.command.replace('-', '_')}")
    run: Callable[[argparse.Namespace], int] = command.run
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
            print(document({"error": said.as_data()}), flush=True)
    _say(f"patchforge: {said}")
    return int(said.status)


def _say(text: str) -> None:
    with suppress(OSError, ValueError, terminal.ReaderGoneError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
