"""``patchforge nix``: the Nix expressions, from templates and pins."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from patchforge.atomic import write_file, write_tree
from patchforge.commands.common import show_json
from patchforge.errors import Exit
from patchforge.nix.generate import generate
from patchforge.nix.options import markdown
from patchforge.project import root


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when --check finds a difference. --options LIB prints the options' documentation instead."""
    folder = Path(options.generated)
    if options.options:
        print(markdown(Path(options.options), folder / "nix"), end="")
        return Exit.OK
    made = generate(root() / "upstream", folder)
    flake = folder.parent / "flake.nix"
    changes = _changes(folder / "nix", made.files) + _changes(flake.parent, {"flake.nix": made.flake}, whole=False)
    if not (options.check or options.dry_run):
        write_tree(folder / "nix", made.files)
        write_file(flake, made.flake)
    status = Exit.FAILED if options.check and changes else Exit.OK
    if options.json:
        show_json({"changes": changes, "left_out": list(made.left_out), "files": len(made.files) + 1})
        return status
    for one in changes:
        print(f"{one} is out of date: run patchforge nix" if options.check else one)
    for name in made.left_out:
        print(f"left out: node pack {name} has no hash")
    print(f"{len(made.files) + 1} files, {len(changes)} {'differ' if options.check or options.dry_run else 'written'}")
    return status


def _changes(folder: Path, files: Mapping[str, bytes], *, whole: bool = True) -> list[str]:
    """Paths whose content is not what it should be; with ``whole`` also those that should not be there."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} if whole else set()
    differ = {
        name for name, data in files.items() if not (path := folder / name).is_file() or path.read_bytes() != data
    }
    return sorted((folder / name).as_posix() for name in differ | (found - files.keys()))
