"""Which role may use which route: the table ``upstream/routes.toml``, and what stands in none of its lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

from patchforge import documents, resources
from patchforge.door.routes import TWIN, Route
from patchforge.errors import Damaged

_FORMAT = 1
_WRITTEN = re.compile(r"(GET|HEAD|POST|PUT|PATCH|DELETE) ((\[/api\])?/[A-Za-z0-9/._{}:*-]*)")
_PLACE = re.compile(r"\{(\w+)(:\.[*+])?\}")


class Role(StrEnum):
    """Who somebody is; each may do what those before may, and ``nobody`` is what no one is."""

    VIEWER = "viewer"
    USER = "user"
    ADMIN = "admin"
    NOBODY = "nobody"


#: The roles that somebody can have, the least first.
ROLES = (Role.VIEWER, Role.USER, Role.ADMIN)


class Does(StrEnum):
    """What a request does."""

    PAGE = "page"
    READ = "read"
    RUN = "run"
    UPLOAD = "upload"
    EDIT = "edit"
    SETTINGS = "settings"
    DELETE = "delete"
    FREE = "free"
    INTERRUPT = "interrupt"
    DOWNLOAD = "download"
    LOGS = "logs"
    USERS = "users"


@dataclass(frozen=True, slots=True)
class Grant:
    """A line of the table. ``only``: the paths that are meant where a route takes any; None: all of them."""

    role: Role
    does: Does
    routes: tuple[str, ...]
    only: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RoleTable:
    """All lines: of ComfyUI, of node packs by name, and of Ollama."""

    comfyui: tuple[Grant, ...]
    ollama: tuple[Grant, ...]
    pack: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict)

    def all_for(self, program: str, packs: Iterable[str] = ()) -> tuple[Grant, ...]:
        """The lines of a program, ``comfyui`` or ``ollama``, and of some packs; a pack without a line has none."""
        of_packs = [grant for name in packs for grant in self.pack.get(name, ())]
        return (*(self.comfyui if program == "comfyui" else self.ollama), *of_packs)


@cache
def load_table(path: Path | None = None) -> RoleTable:
    """The table of a file; ours unless given. Damaged where a route is not as routes are written, or stands twice."""
    path = path or resources.path("upstream/routes.toml")
    said = documents.read_toml(path)
    if said.pop("format", None) != _FORMAT:
        raise Damaged(f"{path} does not say which format it has", expected=f"format = {_FORMAT}", do=documents.RESTORE)
    table = documents.structured(said, RoleTable, str(path), do="correct the file")
    for grants in (table.comfyui, table.ollama, *table.pack.values()):
        check(grants, str(path))
    return table


def check(grants: Sequence[Grant], origin: str) -> None:
    """Damaged where a route is not written as routes are, or is granted twice."""
    routes = [route for grant in grants for route in grant.routes]
    wrong = [route for route in routes if not is_route(route)]
    wrong += [path for grant in grants for path in grant.only or () if not is_route(f"GET {path}")]
    if wrong:
        raise Damaged(
            f"{origin} has what is not a route",
            expected="such as GET /queue, POST [/api]/userdata/{file} or GET /docs/{path:.*}",
            found=", ".join(wrong[:4])[:200],
            do="correct it",
        )
    if twice := sorted({route for route in routes if routes.count(route) > 1}):
        raise Damaged(f"{origin} decides twice about {', '.join(twice)[:200]}", do="delete one of the two")


def is_route(text: str) -> bool:
    """Whether a text is a route as it is written in tables."""
    written = _WRITTEN.fullmatch(text)
    return written is not None and not set(_PLACE.sub("", written[2].removeprefix("[/api]"))) & set("{}:*")


def decided(route: Route, grants: Iterable[Grant]) -> Grant | None:
    """The line that is about a route. None: nobody has decided, and the door refuses it.

    What is decided about a route and its twin below /api is decided about the route alone, too.
    """
    known = {_plain(f"{route.method} {twin}{route.path}") for twin in ("", TWIN)}
    return next((grant for grant in grants if not known.isdisjoint(map(_plain, grant.routes))), None)


def undecided(routes: Iterable[Route], grants: Sequence[Grant]) -> tuple[Route, ...]:
    """The routes that no line is about."""
    return tuple(route for route in routes if decided(route, grants) is None)


def _plain(route: str) -> str:
    """A route without the names of its places, which upstream may change as it likes."""
    return _PLACE.sub(lambda place: "{:.*}" if place[2] else "{}", route)
