"""``patchforge arbiter run``: the service that ComfyUI and Ollama share a card by."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from patchforge.arbiter import card
from patchforge.arbiter.proxy import serving
from patchforge.arbiter.services import ComfyUI, Ollama
from patchforge.arbiter.turns import Policy, Side, Turns
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import line
from patchforge.operate.sd_notify import notify
from patchforge.operate.server import address


def run(options: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT; exit status 0. PatchforgeError where it cannot listen."""
    comfyui, ollama = ComfyUI(options.comfyui, options.timeout), Ollama(options.ollama, options.timeout)
    listen = {Side.COMFYUI: address(options.listen_comfyui), Side.OLLAMA: address(options.listen_ollama)}
    seen = card.kernel(Path(options.root), options.memory or "")
    _say(f"policy {options.policy}; memory as {'the kernel counts it' if seen else 'ComfyUI sees it'}")
    turns = Turns(
        comfyui,
        ollama,
        seen or card.of_comfyui(comfyui),
        Policy(options.policy),
        patience=options.patience,
        say=_say,
    )
    asyncio.run(_serve(turns, listen))
    return Exit.OK


async def _serve(turns: Turns, listen: dict[Side, tuple[str, int]]) -> None:
    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(one, stop.set)
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
            found=error.strerror or str(error),
            do="name others with --listen-comfyui and --listen-ollama",
        ) from None


def _say(text: str) -> None:
    print(line(text), flush=True)
