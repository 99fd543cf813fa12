"""``patchforge door routes``: every route of a release or a pack, and who may use it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from patchforge import progress
from patchforge.commands.common import show_json, table
from patchforge.door import routes
from patchforge.door.roles import Grant, decided, load_table
from patchforge.errors import Exit, PatchforgeError
from patchforge.paths import need_folder
from patchforge.sources import FolderTree, Upstream, open_upstream


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when somebody must decide about a route: add it to ``upstream/routes.toml``."""
    if options.pack and (options.release or options.all):
        found = "--all" if options.all else " ".join(options.release)
        raise PatchforgeError(
            "--pack is about a pack, instead of releases", expected="one of them", found=found, do="leave one out"
        )
    if options.all and options.release:
        found = " ".join(options.release)
        raise PatchforgeError("--all is every release", expected="no VERSION", found=found, do="leave one out")
    if options.pack:
        results = [_pack(Path(options.pack))]
    else:
        with open_upstream(options.upstream) as upstream:
            results = list(_releases(upstream, options))
    open_ones = [row for result in results for row in result["routes"] if not row["role"]]
    if options.json:
        show_json("door-routes", results)
    else:
        for result in results:
            _show(result, all_of_them=not options.all)
        if open_ones:
            print(f"{len(open_ones)} to be decided about, which the door refuses")
            print("to do: decide in upstream/routes.toml, or in the door's own routes")
        else:
            print("every route has a role")
    return Exit.FAILED if open_ones else Exit.OK


def _releases(upstream: Upstream, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    named = options.release or ["latest"]
    releases = upstream.releases() if options.all else [upstream.resolve(name) for name in named]
    for release in progress.each(releases, "reading", len(releases)):
        yield _result(str(release.version), routes.of_comfyui(upstream.tree(release)), load_table().comfyui)


def _pack(folder: Path) -> dict[str, Any]:
    need_folder(folder, "the folder of a custom-node pack")
    grants = [grant for grants_of_pack in load_table().pack.values() for grant in grants_of_pack]
    return _result(folder.resolve().name, routes.of_pack(FolderTree(folder)), grants)


def _result(name: str, declared: Sequence[routes.Route], grants: Sequence[Grant]) -> dict[str, Any]:
    rows = []
    for route in declared:
        grant = decided(route, grants)
        said = {"role": str(grant.role), "does": str(grant.does)} if grant else {"role": "", "does": ""}
        rows.append({"method": route.method, "path": route.path, "place": route.place, **said})
    return {"name": name, "routes": rows}


def _show(result: dict[str, Any], *, all_of_them: bool) -> None:
    rows = [row for row in result["routes"] if all_of_them or not row["role"]]
    if rows:
        print(f"{result['name']}: {len(result['routes'])} routes")
        table([(row["role"] or "to decide", row["does"], row["method"], row["path"], row["place"]) for row in rows])
