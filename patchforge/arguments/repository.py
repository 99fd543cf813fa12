"""What commands take that write patchforge's own files, and what is about no release."""

from __future__ import annotations

from patchforge.arguments.parser import Parser
from patchforge.arguments.shared import (
    GENERATED,
    add_dry_run,
    add_generated,
    add_json,
    add_pins,
)


def pin(parser: Parser) -> None:
    """``patchforge pin``."""
    add_json(parser)
    parser.add_argument(
        "kind",
        nargs="*",
        metavar="KIND",
        help="comfyui, python, torch, nodes, ollama, mordragt-nixos (default: all)",
    )
    parser.add_argument(
        "--upstream", action="append", metavar="[NAME=]CLONE", help="clone of ComfyUI, or of the pin NAME; repeat"
    )
    parser.add_argument("--only", action="append", metavar="PACK", help="of the node packs, this one; repeat")
    add_pins(parser)
    add_generated(parser)
    add_dry_run(parser, "say what would change; write nothing")


def lock_torch(parser: Parser) -> None:
    """``patchforge lock-torch``."""
    add_json(parser)
    parser.add_argument("version", metavar="VERSION", help="such as 2.14.0")
    parser.add_argument("--python", default="", metavar="X.Y", help="default: the first of upstream/torch.toml")
    add_pins(parser)
    parser.add_argument("--online", action="store_true", help="ask PyTorch's own indexes too")


def prefetch(parser: Parser) -> None:
    """``patchforge prefetch``."""
    add_json(parser)
    parser.add_argument("repository", nargs="?", metavar="OWNER/REPO", help="a repository of GitHub")
    parser.add_argument("rev", nargs="?", metavar="REV", help="commit, tag or branch; of ComfyUI also a version")
    parser.add_argument("--pypi", nargs=2, metavar=("NAME", "VERSION"), help="a package of pip's index instead")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--upstream", metavar="PATH|URL", help="clone of the repository (default: GitHub's, cached)")
    where.add_argument("--from", dest="source", metavar="TARBALL|DIR", help="GitHub's tarball, or what it unpacks to")
    parser.add_argument(
        "--submodule", action="append", metavar="PATH=CLONE", help="with its submodules (fetchSubmodules); repeat"
    )


def nix(parser: Parser) -> None:
    """``patchforge nix``."""
    add_json(parser)
    add_generated(parser, GENERATED, "; flake.nix is beside it")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is out of date")
    add_dry_run(parser, "say what would be written")
    parser.add_argument("--options", metavar="LIB", help="print the options' documentation, read with this nixpkgs lib")
    parser.add_argument(
        "--units",
        metavar="LIB",
        help="write generated/systemd: the services for systems without Nix, made with this lib",
    )


def completion(parser: Parser) -> None:
    """``patchforge completion``."""
    parser.add_argument("shell", choices=("bash", "fish", "zsh", "tcsh"))
