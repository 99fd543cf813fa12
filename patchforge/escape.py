"""One escaper for each medium that shows a stranger's text: terminal, one line, Markdown, HTML, an address.

Names of files, answers of servers and lines of requirements can hold anything. Nothing here is undone by a second call
except an ampersand; escape once, where the text enters the medium.
"""

from __future__ import annotations

import html as _html
import re
from urllib.parse import quote

#: Controls, what turns the reading direction or is not seen, line separators, and bytes that were not UTF-8.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~<>-])")


def _named(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def seen(text: str) -> str:
    r"""``text`` with what a terminal would obey, or nobody would see, as ``\x1b``; line ends and tabs stay."""
    return _UNSEEN.sub(_named, text)


def line(text: str) -> str:
    r"""``text`` as one line: also line ends and tabs become ``\n`` and ``\t``."""
    return seen(text.replace("\n", "\\n").replace("\t", "\\t"))


def markdown(text: str) -> str:
    """``text`` as one line of Markdown that says just that: no markup, no HTML, nobody mentioned, no issue linked."""
    marked = _MARKS.sub(r"\\\1", line(text)).replace("&", "&amp;")
    return re.sub(r"@(?=\w)", "@\u200b", marked)


def code(text: str) -> str:
    """``text`` as inline code of Markdown, also in a cell of a table."""
    shown = line(text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{space}{shown}{space}{fence}"


def html(text: str) -> str:
    """``text`` for HTML, in an element or in a quoted attribute."""
    return _html.escape(seen(text))


def address(path: str) -> str:
    """A relative path as a URI reference (RFC 3986); bytes that were not UTF-8 keep their values."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="/-._~")
