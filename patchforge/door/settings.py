"""What a door is told: who comes in, through what, to which program. A TOML or JSON file without any secret in it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NewType

from patchforge import documents
from patchforge.door.roles import ROLES, Grant, Role, check, load_table
from patchforge.errors import Damaged

_DO = "correct it; docs/door.md has an example"

Domain = NewType("Domain", str)
Address = NewType("Address", str)  #: of a program, such as http://127.0.0.1:8188
Listen = NewType("Listen", str)  #: such as 0.0.0.0:443 or [::]:443
WholePath = NewType("WholePath", str)
Network = NewType("Network", str)
Size = NewType("Size", str)  #: as nginx writes it
Name = NewType("Name", str)  #: of a user or a group

_HOST = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_IP = r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\])"  #: or what looks like one


def _network(value: object, _: object) -> str:
    try:
        return str(ipaddress.ip_network(value if isinstance(value, str) else repr(value)))
    except ValueError:
        raise ValueError(f"expected a network such as 192.168.1.0/24, found {value!r}"[:160]) from None


def _reachable(pattern: str, what: str) -> Callable[[Any, Any], str]:
    """A hook for a text of one form, with a ``host``, and perhaps a ``port``, that there can be."""

    def check(value: Any, _: Any) -> str:
        told = re.fullmatch(pattern, value) if isinstance(value, str) else None
        if told is None or not _is_host(told["host"]) or not 0 < int(told.groupdict().get("port", 1)) < 1 << 16:
            raise ValueError(f"expected {what}, found {repr(value)[:80]}")
        return str(value)

    return check


def _is_host(text: str) -> bool:
    """Whether what looks like an address is one; no name of a host ends in a number."""
    try:
        if text.startswith("["):
            ipaddress.IPv6Address(text.strip("[]"))
        elif text.rpartition(".")[2].isdecimal():
            ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


for _place, _pattern, _what in (
    (Domain, f"(?P<host>{_HOST})", "a domain in small letters, such as studio.example.org"),
    (Address, rf"http://(?P<host>{_HOST}|{_IP}):(?P<port>\d{{1,5}})", "an address such as http://127.0.0.1:8188"),
    (Listen, rf"(?P<host>{_IP}):(?P<port>\d{{1,5}})", "an address and a port, such as 0.0.0.0:443"),
):
    documents.register(_place, _reachable(_pattern, _what))
for _kind, _pattern, _what in (
    (WholePath, r"/[A-Za-z0-9._/@+-]+", "the whole path of a file, without spaces"),
    (Size, r"[1-9]\d{0,6}[kmg]", "a size such as 200m"),
    (Name, r"[a-z0-9][a-z0-9._@-]{0,63}", "a name of small letters, digits and ._@-"),
):
    documents.register(_kind, documents.matching(_pattern, _what))
documents.register(Network, _network)


@dataclass(frozen=True, slots=True)
class ProxiedProgram:
    """A program behind the door: at which domain it is shown, and where it listens."""

    domain: Domain
    address: Address


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a certificate with its chain, and of its key."""

    certificate: WholePath
    key: WholePath


@dataclass(frozen=True, slots=True)
class Oidc:
    """An oauth2-proxy that signs people in: where it listens, and which of its groups have which role."""

    address: Address
    groups: Mapping[Role, tuple[Name, ...]]

    def with_role(self, role: Role) -> tuple[str, ...]:
        """The groups that have a role or a greater one."""
        return tuple(name for higher in ROLES[ROLES.index(role) :] for name in self.groups.get(higher, ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A whole door. Who comes in shows a password, a token, a certificate or a session of ``oidc``."""

    comfyui: ProxiedProgram | None = None
    ollama: ProxiedProgram | None = None
    users: Mapping[Name, Role] = field(default_factory=dict)  #: who somebody is, whatever they show
    passwords: WholePath | None = None  #: as htpasswd writes it
    tokens: WholePath | None = None  #: lines of ``TOKEN NAME;``
    client_ca: WholePath | None = None  #: certificates that sign users' own, which name them as CN
    oidc: Oidc | None = None
    tls: Tls | None = None  #: None: nginx gets it from elsewhere
    listen: tuple[Listen, ...] = (Listen("0.0.0.0:443"), Listen("[::]:443"))
    redirect: tuple[Listen, ...] = (Listen("0.0.0.0:80"), Listen("[::]:80"))  #: plain HTTP, to be sent to the door
    networks: tuple[Network, ...] | None = None  #: where requests may come from; None: from everywhere
    rate: int = 20  #: requests in a second that one address may make
    upload: Size = Size("200m")  #: the largest body of a request
    packs: tuple[str, ...] = ()  #: node packs of the table whose routes are open
    routes: tuple[Grant, ...] = ()  #: more of ComfyUI, for packs that the table does not know

    @property
    def sites(self) -> dict[str, ProxiedProgram]:
        """Those that there are, by program."""
        sites = {"comfyui": self.comfyui, "ollama": self.ollama}
        return {name: site for name, site in sites.items() if site}

    def grants(self, program: str) -> tuple[Grant, ...]:
        """What may be done with a program, the table's lines first."""
        return (*load_table().all_for(program, self.packs), *(self.routes if program == "comfyui" else ()))


_FORMAT = documents.Format(Door, 1)


def load(path: Path) -> Door:
    """The door of a file. Damaged where it is none, or one that nobody or everybody could come through."""
    door = _FORMAT.checked(json_or_toml(path), str(path), do=_DO)
    if problem := _empty(door) or _problem(door):
        raise Damaged(f"{path} is not a door: {problem}", do=_DO)
    for program in door.sites:
        check(door.grants(program), str(path))
    return door


def json_or_toml(path: Path) -> dict[str, Any]:
    """The values of a file, by how its name ends."""
    if path.suffix != ".json":
        return documents.read_toml(path)
    values = documents.parse_json(documents.read_bytes(path), dict[str, Any], str(path), do=_DO)
    return {key: value for key, value in values.items() if value is not None}


def _empty(door: Door) -> str:
    """What is wrong with a list that is given and empty, which reads as nobody and would be everybody, or nothing."""
    if door.networks == ():
        return "networks is empty, so nobody could come in; name some (192.168.1.0/24), or leave it out for everywhere"
    if not door.listen:
        return (
            "listen is empty, so it would listen nowhere; name addresses such as 0.0.0.0:443, or leave it out for these"
        )
    for grant in door.routes:
        if not grant.routes:
            return "one of its routes names no route; name some, such as GET /queue, or leave it out"
        if grant.only == ():
            return f"only is empty for {', '.join(grant.routes)[:200]}; name paths, or leave it out for all of them"
    return ""


def _problem(door: Door) -> str:
    domains = [site.domain for site in door.sites.values()]
    known = load_table().pack
    strange = [name for name in door.packs if name not in known]
    wrong = [role for role in door.users.values() if role is Role.NOBODY]
    if not domains:
        return "it has neither comfyui nor ollama"
    if len(set(domains)) < len(domains):
        return "comfyui and ollama need a domain each"
    if not (door.passwords or door.tokens or door.client_ca or door.oidc):
        return "nobody could sign in; name passwords, tokens, client_ca or oidc"
    if not (door.users or door.oidc):
        return "nobody has a role; name users"
    if wrong or (door.oidc and Role.NOBODY in door.oidc.groups):
        return "nobody is not a role that somebody can have"
    if door.oidc and not any(door.oidc.groups.values()):
        return "no group has a role; name oidc.groups"
    if strange:
        return (
            f"it names packs without routes of their own: {', '.join(strange)[:200]}; known: {', '.join(sorted(known))}"
        )
    if len({*door.listen, *door.redirect}) < len((*door.listen, *door.redirect)):
        return "listen and redirect name an address twice"
    if not 0 < door.rate <= 100_000:
        return "rate is not a number from 1 to 100000"
    return ""
