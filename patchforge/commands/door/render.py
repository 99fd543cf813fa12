"""``patchforge door render``: nginx's configuration of a door."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchforge.commands.common import show_json
from patchforge.door.render import rendered
from patchforge.door.settings import load
from patchforge.errors import Exit, PatchforgeError
from patchforge.outputs import write_document
from patchforge.paths import not_there


def run(options: argparse.Namespace) -> int:
    """Exit status 0; the configuration is printed, or written to --out."""
    path = Path(options.config)
    if not path.is_file():
        raise not_there(path, "a file about a door", do="docs/door.md has one to begin with")
    door = load(path)
    if options.part not in {"whole", "http", *door.sites}:
        raise PatchforgeError(f"{path} has no {options.part}", found=", ".join(door.sites), do="name one that it has")
    if options.part == "whole" and door.tls is None:
        raise PatchforgeError(f"{path} names no certificate", expected="tls.certificate and tls.key", do="add [tls]")
    data = rendered(door, options.part)
    if options.out:
        write_document(Path(options.out), data, inputs=[path])
    if options.json:
        show_json("door-render", {"part": options.part, "written": options.out or "", "text": data.decode()})
    elif options.out:
        print(f"written: {options.out}")
        print("to do: nginx -t && systemctl reload nginx")
    else:
        print(data.decode(), end="")
    return Exit.OK
