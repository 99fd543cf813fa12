"""nginx's configuration of a door, as a whole or in the parts that NixOS puts together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from patchforge import outputs, templating
from patchforge.door.roles import ROLES, Grant, Role
from patchforge.door.routes import TWIN
from patchforge.door.settings import Door

#: A character of one segment of a path as it comes over the wire: no slash, and no percent sign for a dot, a backslash
#: or a control character, which programs undo at different times.
_CHARACTER = (
    r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]"
    r"|%(?:2[0-9A-DFa-df]|[346][0-9A-Fa-f]|5[0-9ABDEFabdef]|7[0-9A-Ea-e]|[89A-Fa-f][0-9A-Fa-f]))"
)
_PLACE = re.compile(r"\{\w+(:\.[*+])?\}")


def rendered(door: Door, part: str = "whole") -> bytes:
    """The configuration, with a mark. ``part``: ``whole``, ``http``, or the inside of a ``server`` by its program."""
    environment = templating.environment("door")
    values = {
        "door": door,
        "mark": outputs.mark(),
        "routes": {name: list(_lines(door.grants(name))) for name in door.sites},
        "ports": sorted({text.rpartition(":")[2] for text in door.listen}),
        "groups": {role: ",".join(door.oidc.with_role(role)) for role in ROLES} if door.oidc else {},
    }
    if part in door.sites:
        text = environment.get_template("server.conf.j2").render(values, name=part, site=door.sites[part])
        return outputs.marked(f"# {outputs.mark()}\n{text}")
    return outputs.marked(environment.get_template(f"{part}.conf.j2").render(values))


def _lines(grants: tuple[Grant, ...]) -> Iterator[tuple[str, str]]:
    """Patterns of ``METHOD PATH`` and what they get, ``ROLE:DOES``; the first that fits counts."""
    for grant in grants:
        if grant.role is Role.NOBODY:
            continue
        for route in grant.routes:
            method, _, path = route.partition(" ")
            for allowed in (path,) if grant.only is None else grant.only:
                yield pattern(method, allowed), f"{grant.role}:{grant.does}"


def pattern(method: str, path: str) -> str:
    """A route as a regular expression over a request's method and path as they came, for PCRE and for Python."""
    twin, rest = ("(?:/api)?", path.removeprefix(TWIN)) if path.startswith(TWIN) else ("", path)
    parts = []
    at = 0
    for place in _PLACE.finditer(rest):
        parts += [re.escape(rest[at : place.start()]), _several(place[1]) if place[1] else f"{_CHARACTER}+"]
        at = place.end()
    parts.append(re.escape(rest[at:]))
    methods = "(?:GET|HEAD)" if method == "GET" else method
    return f"^{methods} {twin}{''.join(parts)}$".replace(r"\-", "-")


def _several(written: str) -> str:
    return f"(?:{_CHARACTER}|/){written[-1]}"
