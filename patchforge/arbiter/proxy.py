"""The way through: requests to ComfyUI and Ollama are passed on as they are, and those that need the card wait first.

Bytes are passed on as they come, both ways, so that a streamed answer stays one. aiohttp speaks HTTP here, as
it does in ComfyUI itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, ClientWebSocketResponse, TCPConnector, WSMsgType, web
from yarl import URL

from patchforge.arbiter.turns import Absent, CardSide, Closing, Turns

#: What means one connection and not the other (RFC 9110, 7.6.1).
_HOP = frozenset(
    [
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    ]
)
_MOST = 512 << 20  #: bytes of a request that waits: pictures come in it
_CONNECT = ClientTimeout(total=None, sock_connect=10)
_DRAIN = 900.0  #: seconds that answers may take to their end, when the arbiter ends
#: What makes each program load a model (server.py of ComfyUI; server/routes.go of ollama/ollama).
_GATED: Mapping[CardSide, frozenset[str]] = {
    CardSide.COMFYUI: frozenset(["/prompt", "/api/prompt"]),
    CardSide.OLLAMA: frozenset(
        [f"/api/{name}" for name in ("generate", "chat", "embed", "embeddings")]
        + [f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "responses", "messages")]
        + ["/v1/audio/transcriptions"]
    ),
}
_OWN = "/patchforge-arbiter/"  #: ComfyUI's packs of ours have /patchforge/
_DONE = b'"done":true'


class Proxy:
    """One side's door. ``address``: of the program, without a slash at its end."""

    def __init__(self, turns: Turns, side: CardSide, address: str, session: ClientSession) -> None:
        self._turns, self._side, self._address, self._session = turns, side, address, session

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        if not request.raw_path.startswith("/"):
            return self._refusal(400, "expected a path of this server")
        if request.path.startswith(_OWN):
            return self._own(request.path.removeprefix(_OWN))
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._socket(request)
            if request.method == "POST" and request.path in _GATED[self._side]:
                return await self._gated(request)
            return await self._pass_on(request, request.content if request.can_read_body else None)
        except Closing:
            return self._refusal(503, "the arbiter is ending; ask again in a moment")
        except Absent:
            return self._refusal(502, f"{self._side} is not there: nobody listens at {self._address}; start it")
        except (ClientError, TimeoutError) as error:
            return self._refusal(502, f"{self._side} does not answer at {self._address}: {type(error).__name__}")

    async def _gated(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        document = _document(body)
        model = str(document.get("model") or "")
        if self._side is CardSide.COMFYUI:
            async with self._turns.turn(self._side, graph=document.get("prompt")):
                return await self._pass_on(request, body)
        if _is_unload(document):
            return await self._pass_on(request, body)
        if model and (guest := await self._turns.is_guest(model, str(document.get("prompt") or ""))):
            async with self._turns.guest(guest) as leave:
                return await self._pass_on(request, body, before_end=leave)
        async with self._turns.turn(self._side, model=model):
            return await self._pass_on(request, body)

    async def _pass_on(
        self, request: web.Request, body: Any, before_end: Callable[[], Awaitable[None]] | None = None
    ) -> web.StreamResponse:
        """``before_end`` is awaited before the last bytes of the answer go on."""
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP]
        async with self._session.request(
            request.method,
            URL(self._address + request.raw_path, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
        ) as answer:
            made = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP:
                    made.headers.add(name, value)
            await made.prepare(request)
            kept = b""
            async for block in answer.content.iter_any():
                if before_end is None:
                    await made.write(block)
                elif answer.content_length is None and _DONE not in kept + block:
                    await made.write(kept + block)
                    kept = b""
                else:
                    kept += block
            if before_end is not None:
                await before_end()
                await made.write(kept)
            await made.write_eof()
            return made

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _HOP and not name.lower().startswith("sec-websocket-")
        ]
        protocols = [
            protocol.strip()
            for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(",")
            if protocol.strip()
        ]
        address = URL(self._address + request.raw_path, encoded=True)
        async with self._session.ws_connect(address, headers=headers, protocols=protocols, max_msg_size=0) as there:
            here = web.WebSocketResponse(protocols=[there.protocol] if there.protocol else (), max_msg_size=0)
            await here.prepare(request)
            tasks = {asyncio.create_task(_relay(here, there)), asyncio.create_task(_relay(there, here))}
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await here.close()
        return here

    def _own(self, name: str) -> web.Response:
        if name == "metrics":
            return web.Response(body=self._turns.metrics.text(), content_type="text/plain", charset="utf-8")
        if name == "status":
            return web.json_response(self._turns.status())
        return self._refusal(404, f"there are {_OWN}metrics and {_OWN}status")

    def _refusal(self, status: int, said: str) -> web.Response:
        """An error as each program tells one."""
        error: object = f"patchforge arbiter: {said}"
        if self._side is CardSide.COMFYUI:
            error = {"type": "patchforge_arbiter", "message": error, "details": "", "extra_info": {}}
        body = {"error": error} | ({"node_errors": {}} if self._side is CardSide.COMFYUI else {})
        return web.json_response(body, status=status, headers={"Retry-After": "2"} if status == 503 else None)


@contextlib.asynccontextmanager
async def serving(turns: Turns, listen: Mapping[CardSide, tuple[str, int]]) -> Any:
    """Both doors are open inside; what is yielded are their ports. OSError where one cannot listen.

    At the end nobody new comes in, who waits is sent away, and answers come to their end.
    """
    async with ClientSession(
        auto_decompress=False,
        timeout=_CONNECT,
        connector=TCPConnector(limit=0, force_close=True),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    ) as session:
        runners, sites = [], {}
        addresses = {CardSide.COMFYUI: turns.comfyui.address, CardSide.OLLAMA: turns.ollama.address}
        loop = asyncio.create_task(turns.run())
        try:
            for side, (host, port) in listen.items():
                app = web.Application(client_max_size=_MOST)
                app.router.add_route("*", "/{path:.*}", Proxy(turns, side, addresses[side], session).handle)
                runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_DRAIN)
                await runner.setup()
                runners.append(runner)
                site = web.TCPSite(runner, host, port)
                await site.start()
                sites[side] = runner.addresses[0][1]
            yield sites
        finally:
            turns.close()
            await asyncio.gather(*(runner.cleanup() for runner in runners))
            await loop


async def _relay(
    source: web.WebSocketResponse | ClientWebSocketResponse, target: web.WebSocketResponse | ClientWebSocketResponse
) -> None:
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)


def _document(body: bytes) -> Mapping[str, Any]:
    """What a request says, as far as it is JSON; the program itself refuses what is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_unload(document: Mapping[str, Any]) -> bool:
    """Whether Ollama is only to unload a model (docs/api.md of ollama/ollama, "Unload a model")."""
    keep = document.get("keep_alive")
    return not document.get("prompt") and not document.get("messages") and keep in (0, "0", "0s", "0m", "0h")
