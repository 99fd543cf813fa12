"""``patchforge status``: what is tracked, generated and cached."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchforge import __version__, caches, manifest
from patchforge.commands.common import again, edited, generated_folder, generated_versions, show_json
from patchforge.engine.cache import rule_set_digest
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.project import load_project, release_index

if TYPE_CHECKING:
    from patchforge.checkout.examine import Examined


def run(options: argparse.Namespace) -> int:
    """Exit status 0. Reads no network and parses nothing. With a folder: 1 where something is to be put right."""
    if options.folder:
        return _folder(options)
    project = load_project()
    index = release_index(project)
    folder = generated_folder(options.generated)
    status: dict[str, Any] = {
        "patchforge": __version__,
        "rules": rule_set_digest(),
        "upstream": os.environ.get("PATCHFORGE_UPSTREAM") or project.url,
        "releases": {"indexed": len(index), "newest": str(max(index, key=lambda release: release.version).version)},
        "cache": {"folder": str(caches.place()), "bytes": sum(caches.parts().values())},
        "generated": [_generated(folder / name) for name in generated_versions(folder)],
    }
    if options.json:
        show_json("status", status)
        return Exit.OK
    print(f"patchforge {__version__}, rule set {status['rules'][:16]}")
    print(f"upstream   {status['upstream']}")
    print(f"releases   {len(index)} in the index, newest {status['releases']['newest']}")
    print(f"cache      {status['cache']['folder']} ({status['cache']['bytes'] / 1e6:.1f} MB)")
    for release in status["generated"]:
        print(f"generated  {release['release']}: {_said(release, folder / release['release'])}")
    return Exit.OK


def _folder(options: argparse.Namespace) -> int:
    from patchforge.checkout.change import way_on  # noqa: PLC0415 - git and the journal are slow to import
    from patchforge.checkout.examine import look  # noqa: PLC0415

    examined = look(Path(options.folder))
    do = way_on(examined)
    told = {
        "folder": options.folder,
        "state": examined.state,
        "says": examined.says,
        "do": do,
        "release": examined.stated,
        "files": {file.path: file.part.name.lower() for file in examined.seen},
        "leftovers": list(examined.leftovers),
    }
    if options.json:
        show_json("folder", told)
    else:
        print(f"{line(options.folder)}: {line(examined.says)}")
        for name in examined.leftovers:
            print(f"  left by a killed run: {line(name)}")
        if do:
            print(f"  {_asked(examined)}: {line(do)}")
    return Exit.OK if examined.in_order else Exit.FAILED


def _asked(examined: Examined) -> str:
    """What is asked of the user: nothing needs to be done where all is in order."""
    if not examined.in_order:
        return "to do"
    return "to update it" if examined.is_copy else "to patch it"


def _said(release: dict[str, Any], folder: Path) -> str:
    if release["current"] and not release["edited"]:
        return "current"
    return f"{'edited since' if release['edited'] else 'by other rules'}; to do: {again(folder)}"


def _generated(folder: Path) -> dict[str, Any]:
    document = manifest.load(folder)
    return {
        "release": document.release,
        "commit": document.commit,
        "current": document.rules == rule_set_digest(),
        "edited": edited(folder),
    }
