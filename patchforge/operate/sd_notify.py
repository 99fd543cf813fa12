"""Tells systemd how a service is (sd_notify(3)); elsewhere nothing happens."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*states: str) -> bool:
    """Sends states such as ``READY=1`` to the service manager; whether there is one that was reached."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return False
    address = f"\0{place[1:]}" if place.startswith("@") else place
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto("\n".join(states).encode(), address)
        return True
    return False


def watchdog_seconds() -> float:
    """How often systemd wants to hear ``WATCHDOG=1``; 0 where it does not."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0
