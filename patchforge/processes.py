"""Child processes: what of this process's environment they get, and how they are run.

A child gets an allow-list. Secrets of the user (tokens, passwords, keys, whatever they are called) are not on it, so
code of a release, a pack or a package that is installed cannot read them from its environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

#: Where programs, home, temporary files and locale are; what Windows needs to start a program at all.
_BASE = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TMPDIR",
        "TEMP",
        "TMP",
        "TERM",
        "COLUMNS",
        "LINES",
        "LANG",
        "LANGUAGE",
        "TZ",
        "NO_COLOR",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "USERPROFILE",
        "USERNAME",
        "APPDATA",
        "LOCALAPPDATA",
        "PROGRAMDATA",
        "PROGRAMFILES",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NIX_SSL_CERT_FILE",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LOCPATH",
        "LOCALE_ARCHIVE",
    ]
)
_BASE_PATTERN = re.compile(r"LC_[A-Z]+")
#: What reaches the network through a proxy. An address with a password in it is left out.
NETWORK = frozenset(
    ["http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"]
)


def environment(
    extra: Mapping[str, str] | None = None, *, allow: Iterable[str] = (), inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a child: the base, the variables named in ``allow``, and ``extra`` over both.

    ``inherited`` stands for this process's own.
    """
    allowed = _BASE | set(allow)
    kept = {
        name: value
        for name, value in (os.environ if inherited is None else inherited).items()
        if (name in allowed or _BASE_PATTERN.fullmatch(name)) and not (name in NETWORK and "@" in value)
    }
    return {**kept, **(extra or {})}
