"""``patchforge status``: what is tracked, generated and cached."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from patchforge import __version__, caches, manifest
from patchforge.commands.common import again, edited, generated_versions, show_json
from patchforge.engine.cache import rule_set_digest
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.project import load_project, release_index


def run(options: argparse.Namespace) -> int:
    """Exit status 0. Reads no network and parses nothing. With a folder: 1 where something is to be put right."""
    if options.folder:
        return _folder(options)
    project = load_project()
    index = release_index(project)
    folder = Path(options.generated)
    status: dict[str, Any] = {
        "patchforge": __version__,
        "rules": rule_set_digest(),
        "upstream": os.environ.get("PATCHFORGE_UPSTREAM") or project.url,
        "releases": {"indexed": len(index), "newest": str(max(index, key=lambda one: one.version).version)},
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
    for one in status["generated"]:
        print(f"generated  {one['release']}: {_said(one, folder / one['release'])}")
    return Exit.OK


def _folder(options: argparse.Namespace) -> int:
    from patchforge.checkout.examine import look  # noqa: PLC0415 - git and the journal are slow to import

    found = look(Path(options.folder))
    told = {
        "folder": options.folder,
        "state": found.state,
        "says": found.says,
        "do": found.do,
        "release": found.stated,
        "files": {one.path: one.part.name.lower() for one in found.seen},
        "leftovers": list(found.leftovers),
    }
    if options.json:
        show_json("folder", told)
    else:
        print(f"{line(options.folder)}: {line(found.says)}")
        for name in found.leftovers:
            print(f"  left by a killed run: {line(name)}")
        if found.do and not (found.in_order and found.state is found.state.UNTOUCHED):
            print(f"  to do: {line(found.do)}")
    return Exit.OK if found.in_order else Exit.FAILED


def _said(one: dict[str, Any], folder: Path) -> str:
    if one["current"] and not one["edited"]:
        return "current"
    return f"{'edited since' if one['edited'] else 'by other rules'}; to do: {again(folder)}"


def _generated(folder: Path) -> dict[str, Any]:
    found = manifest.load(folder)
    return {
        "release": found.release,
        "commit": found.commit,
        "current": found.rules == rule_set_digest(),
        "edited": edited(folder),
    }
