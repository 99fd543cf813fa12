"""Disks and certificates: what runs out while nobody looks."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from patchforge import bounded
from patchforge.errors import PatchforgeError
from patchforge.operate.metrics import Sample

_SECONDS = 5.0
_MOST = 1 << 20


def disks(folders: Sequence[Path]) -> Iterator[Sample]:
    """Of each folder that is there."""
    for folder in folders:
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            yield Sample("patchforge_filesystem_size_bytes", usage.total, (str(folder),))
            yield Sample("patchforge_filesystem_avail_bytes", usage.free, (str(folder),))


def certificates(named: Sequence[str]) -> Iterator[Sample]:
    """Of each file, or server as HOST:PORT."""
    for name in named:
        try:
            ends = expiry(name)
        except (OSError, ValueError, PatchforgeError):
            yield Sample("patchforge_certificate_error", 1, (name,))
        else:
            yield Sample("patchforge_certificate_error", 0, (name,))
            yield Sample("patchforge_certificate_expiry_timestamp_seconds", ends, (name,))


def expiry(named: str) -> float:
    """When a certificate ends, in seconds since 1970: of a PEM file the first, or what HOST:PORT shows.

    OSError or ValueError where there is none.
    """
    host, colon, port = named.rpartition(":")
    if not is_file_name(named) and colon and port.isdigit():
        return x509.load_der_x509_certificate(_shown_by(host.strip("[]"), int(port))).not_valid_after_utc.timestamp()
    data = bounded.file(Path(named), _MOST)
    return x509.load_pem_x509_certificates(data)[0].not_valid_after_utc.timestamp()


def is_file_name(named: str) -> bool:
    """Whether a file is named, and not HOST:PORT: it has a slash or no colon, or is there."""
    return "/" in named or "\\" in named or ":" not in named or Path(named).is_file()


def check_certificate(named: str) -> None:
    """PatchforgeError for what is neither the name of a file nor HOST:PORT."""
    host, _, port = named.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    if not named or not (is_file_name(named) or (host and is_port)):
        raise PatchforgeError(
            f"{named!r} is not where a certificate is",
            expected="a file, or HOST:PORT such as studio.example.org:443",
            do="correct --certificate",
        )


def _shown_by(host: str, port: int) -> bytes:
    """Whoever it is made for: its end is asked for, not whether it can be trusted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, port), _SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""
