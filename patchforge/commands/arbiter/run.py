"""``patchforge arbiter run``: the service that ComfyUI and Ollama share a card by."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from patchforge import faults
from patchforge.arbiter import card
from patchforge.arbiter.proxy import serving
from patchforge.arbiter.services import SharedComfyUI, SharedOllama
from patchforge.arbiter.turns import CardSide, Policy, Turns
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import line
from patchforge.operate.sd_notify import notify
from patchforge.operate.server import address
from patchforge.paths import need_folder

_HERE = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on


def run(options: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT; exit status 0. PatchforgeError where it cannot listen."""
    comfyui, ollama = SharedComfyUI(options.comfyui, options.timeout), SharedOllama(options.ollama, options.timeout)
    listen = {
        CardSide.COMFYUI: address(options.listen_comfyui, "--listen-comfyui"),
        CardSide.OLLAMA: address(options.listen_ollama, "--listen-ollama"),
    }
    for side, service in ((CardSide.COMFYUI, options.comfyui), (CardSide.OLLAMA, options.ollama)):
        _need_another(service, listen.values(), side)
    need_folder(Path(options.root))
    seen = card.kernel(Path(options.root), options.memory or "")
    _say(f"policy {options.policy}; memory as {'the kernel counts it' if seen else 'ComfyUI sees it'}")
    turns = Turns(
        comfyui,
        ollama,
        seen or card.of_comfyui(comfyui),
        Policy(options.policy),
        by_kernel=seen is not None,
        patience=options.patience,
        say=_say,
    )
    asyncio.run(_serve(turns, listen))
    return Exit.OK


def _need_another(service: str, listen: Iterable[tuple[str, int]], side: CardSide) -> None:
    """PatchforgeError where a program is looked for at the arbiter's own address: requests would go round for ever."""
    asked = urlsplit(service)
    for host, port in listen:
        same = asked.hostname == host or {asked.hostname, host} <= _HERE
        if same and (asked.port or 80) == port:
            raise PatchforgeError(
                f"the arbiter cannot ask itself at {service}",
                expected=f"where {side} itself listens",
                found=f"where the arbiter is to listen, {host}:{port}",
                do=f"correct --{side}, or have the arbiter listen elsewhere",
            )


async def _serve(turns: Turns, listen: dict[CardSide, tuple[str, int]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with serving(turns, listen) as ports:
            for side, port in ports.items():
                _say(f"listening for {side} on {listen[side][0]}:{port}")
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
            _say("ending: who waits is sent away, answers come to their end")
    except OSError as error:
        raise PatchforgeError(
            "the arbiter cannot listen",
            expected="free ports on addresses of this machine",
            found=faults.reason(error),
            do="name others with --listen-comfyui and --listen-ollama",
        ) from None


def _say(text: str) -> None:
    print(line(text), flush=True)
