"""``patchforge nix``: the Nix expressions, from templates and pins."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from patchforge import bounded, resources
from patchforge.commands.common import in_repository, show_json
from patchforge.errors import Exit
from patchforge.nix.generate import NIX, generate, is_our_flake
from patchforge.nix.options import markdown
from patchforge.nix.units import UNITS, units
from patchforge.outputs import check_document, check_folder, listed, write_document, write_folder

_GENERATED = "generated"


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when --check finds a difference. --options LIB and --units LIB write what is made of them."""
    folder = in_repository(options.generated, _GENERATED)
    if options.options:
        print(markdown(Path(options.options), folder / "nix"), end="")
        return Exit.OK
    if options.units:
        files = units(Path(options.units), folder / "nix")
        write_folder(folder / "systemd", files, UNITS, inputs=[folder / "nix"])
        print(f"{len(files)} units written to {folder / 'systemd'}")
        return Exit.OK
    made = generate(resources.path("upstream"), folder)
    flake = folder.parent / "flake.nix"
    files = listed(made.files)
    changes = _changes(folder / "nix", files) + _changes(flake.parent, {"flake.nix": made.flake}, whole=False)
    if not (options.check or options.dry_run):
        read = [resources.path("upstream"), resources.path("templates"), folder / "comfyui", folder / "nodes"]
        check_document(flake, is_our_flake, read)
        check_folder(folder / "nix", NIX, read)
        write_document(flake, made.flake, is_our_flake, inputs=read)
        write_folder(folder / "nix", made.files, NIX, inputs=read)
    status = Exit.FAILED if options.check and changes else Exit.OK
    if options.json:
        show_json("nix", {"changes": changes, "left_out": list(made.left_out), "files": len(files) + 1})
        return status
    for change in changes:
        print(f"{change} is out of date: run patchforge nix" if options.check else change)
    for name in made.left_out:
        print(f"left out: node pack {name} has no hash")
    print(f"{len(files) + 1} files, {len(changes)} {'differ' if options.check or options.dry_run else 'written'}")
    return status


def _changes(folder: Path, files: Mapping[str, bytes], *, whole: bool = True) -> list[str]:
    """Paths whose content is not what it should be; with ``whole`` also those that should not be there."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} if whole else set()
    differ = {
        name for name, data in files.items() if not (path := folder / name).is_file() or bounded.file(path) != data
    }
    return sorted((folder / name).as_posix() for name in differ | (present - files.keys()))
