"""One escaper for each medium that shows a stranger's text: terminal, one line, Markdown, HTML, an address.

Names of files, answers of servers and lines of requirements can hold anything. Nothing here is undone by a second call
except an ampersand; escape once, where the text enters the medium.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

#: Controls, what turns the reading direction or is not seen, line separators, and bytes that were not UTF-8.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
CUT = "[... cut here]"
_MARKS = r"[\\`*\[\]<>|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
#: What means something at the start of a line only: headings, lists, rules, quotes, code.
_START = r"^(\d*)([.)](?=\s|$)|#|[+-](?=\s)|[=-](?=[\s=-]+$))"
#: Inside what GitHub makes links of, and messages to others: names, numbers of issues, addresses.
_LINKED = r"(?<=@)(?=\w)|(?<=#)(?=\w)|(?<=\b[Gg][Hh])(?=-\d)|(?<=[A-Za-z])(?=://)|(?<=\b[Ww]{3})(?=\.)"


def _named(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # what Python makes of such a byte
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def seen(text: str) -> str:
    r"""``text`` with what a terminal would obey, or nobody would see, as ``\x1b``; line ends and tabs stay."""
    return _UNSEEN.sub(_named, text)


def uncoloured(text: str) -> str:
    """``text`` without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def line(text: str) -> str:
    r"""``text`` as one line: also line ends and tabs become ``\n`` and ``\t``."""
    return seen(text.replace("\n", "\\n").replace("\t", "\\t"))


def markdown(text: object) -> str:
    """``text`` as one line of Markdown that says just that: no markup, no HTML, nobody mentioned, nothing linked."""
    marked = re.sub(_MARKS, r"\\\g<0>", line(str(text)).strip()).replace("&", "&amp;")
    return re.sub(_LINKED, "\u200b", re.sub(_START, r"\1\\\2", marked))


def code(text: object, longest: int = 0) -> str:
    """``text`` as inline code of Markdown, also in a cell of a table; cut behind ``longest`` characters, if any."""
    shown = _cut(line(str(text)), longest, " ").replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{space}{shown or ' '}{space}{fence}"


def block(text: object, longest: int = 3000) -> str:
    """``text`` as a fenced block of Markdown. Its fence is longer than any run of backticks in it."""
    shown = _cut(seen(str(text).replace("\r\n", "\n").replace("\r", "\n")), longest, "\n")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", shown)), 3)
    return f"{fence}text\n{shown}\n{fence}"


def _cut(text: str, longest: int, between: str) -> str:
    return text if not longest or len(text) <= longest else f"{text[:longest]}{between}{CUT}"


def document(value: Any) -> str:
    """``value`` as JSON in ASCII that no terminal and no CI service obeys anything in."""
    import json  # noqa: PLC0415 - help is not JSON

    return re.sub("#(?=#)", r"\\u0023", json.dumps(value, indent=1, sort_keys=True)).replace("\x7f", "\\u007f")


def html(text: str) -> str:
    """``text`` for HTML, in an element or in a quoted attribute."""
    from html import escape  # noqa: PLC0415 - help is not HTML

    return escape(seen(text))


def address(path: str) -> str:
    """A relative path as a URI reference (RFC 3986); bytes that were not UTF-8 keep their values."""
    from urllib.parse import quote  # noqa: PLC0415 - help has no addresses

    return quote(path.encode("utf-8", "surrogateescape"), safe="/-._~")


def without_password(address: str) -> str:
    """An address to be shown: stars stand in place of a user and password, but a plain user of ssh stays."""
    scheme, separator, rest = address.partition("://")
    user, at, place = rest.split("/", 1)[0].rpartition("@") if separator else ("", "", "")
    if not at or (scheme.lower() == "ssh" and ":" not in user):
        return address
    return f"{scheme}://*****:*****@{place}{rest[len(user) + 1 + len(place) :]}"


#: By the names that templates know them by.
FILTERS: dict[str, Callable[..., str]] = {
    "cell": markdown,
    "code": code,
    "block": block,
    "line": line,
    "seen": seen,
    "link": address,
}
