# SPDX-License-Identifier: GPL-3.0-or-later
"""A device that its driver has given up: nothing brings it back but a new process."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from .devices import active
from .error_texts import says_lost
from .settings import log, state

#: EX_UNAVAILABLE of sysexits.h: not 0, so that Restart=on-failure starts ComfyUI anew.
STATUS = 69
ADVICE = "The Intel GPU is lost (its driver reset it): every prompt will fail until ComfyUI is restarted"


def note_loss(text: str) -> bool:
    """Whether an error's text says that the device is lost. The first time that is logged and remembered.

    With the opt-in exit-when-lost the process ends, so that what started it can start it anew.
    """
    if not says_lost(text):
        return False
    if not state.lost:
        state.lost = text
        log.error("%s. It said: %s", ADVICE, text)
        if active("exit-when-lost"):
            _leave()
    return True


def _leave() -> None:
    """End the process from whatever thread this is; a lost device may hang an orderly end."""
    log.error("ComfyUI ends with status %d, since exit-when-lost is on.", STATUS)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(STATUS)


def lost_device(stats: Any) -> Any:
    """``stats``, what /system_stats answers; after a loss with a line that says so in each XPU's entry."""
    if not state.lost:
        return stats
    devices = [{**entry, "lost": f"{ADVICE}."} if entry.get("type") == "xpu" else entry for entry in stats["devices"]]
    return {**stats, "devices": devices}
