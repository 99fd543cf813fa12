"""``patchforge cache``: what the cache holds, and how to be rid of it."""

from __future__ import annotations

import argparse

from patchforge import caches
from patchforge.commands.common import show_json, shown_size, table
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.started import program


def run(options: argparse.Namespace) -> int:
    """Exit status 0. Nothing in the cache is needed: it is fetched or worked out again when it is wanted."""
    refusal = caches.refusal()
    parts = {} if refusal and not options.clean else caches.parts()
    removed = caches.clean() if options.clean else []
    if options.json:
        told = {"folder": str(caches.place()), "parts": [{"name": name, "bytes": size} for name, size in parts.items()]}
        told["problem"] = refusal.problem if refusal else ""
        show_json("cache", {**told, **({"removed": removed} if options.clean else {})})
        return Exit.OK
    if refusal:
        print(f"{line(str(caches.place()))} is not patchforge's: nothing is kept there, and --clean removes nothing")
        print(f"  found: {line(refusal.found)}\n  to do: {line(refusal.do)}")
        return Exit.OK
    print(f"{line(str(caches.place()))}: {shown_size(sum(parts.values()))}")
    if parts:
        table([(f"  {name}", shown_size(size), "removed" if name in removed else "") for name, size in parts.items()])
    if options.clean and len(removed) < len(parts):
        print("what another run of patchforge uses stays")
    elif parts and not options.clean:
        print(f"{program()} cache --clean removes it; what is needed comes again")
    return Exit.OK
