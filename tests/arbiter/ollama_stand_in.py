"""A stand-in for Ollama's server: its HTTP API over an engine of our own. Ollama's own program is not at hand.

As docs/api.md, api/types.go, server/routes.go and server/sched.go of ollama/ollama have it (August 2026): what a
request may say and which type it has, answers field by field, when a model is loaded and unloaded, that an answer is
never cut off by unloading, and that a model that does not fit goes to the CPU without a word (``size_vram`` is 0 then).
Its models lie in a folder like Ollama's. PyPI's ``ollama`` client is what the tests ask it with.

    python -m tests.arbiter.ollama_stand_in MODELS PORT
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import io
import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from patchforge.errors import Damaged
from patchforge.models import gguf, ollama

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_USUAL = 300.0
#: Fields of api.GenerateRequest and api.ChatRequest, and what Go's JSON takes for them.
_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("model", "prompt", "suffix", "system", "template"), (str,)),
    **dict.fromkeys(("raw", "stream", "truncate", "shift", "logprobs"), (bool,)),
    **dict.fromkeys(("context", "images", "messages", "tools"), (list,)),
    "options": (dict,),
    "keep_alive": (int, float, str),
    "format": (str, dict),
    "think": (bool, str),
}


class Engine(Protocol):
    """What computes. ``load`` and the pieces may take their time: each runs in a thread."""

    def load(self, path: Path) -> Any: ...

    def answer(self, model: Any, prompt: str, options: Mapping[str, Any]) -> Iterator[str]: ...


class Stub:
    """Answers with words that depend on the question alone."""

    def __init__(self, seconds: float = 0.0, words: int = 5) -> None:
        self.seconds, self.words = seconds, words

    def load(self, path: Path) -> str:
        time.sleep(self.seconds)
        return path.name

    def answer(self, model: str, prompt: str, options: Mapping[str, Any]) -> Iterator[str]:
        for number in range(min(self.words, options.get("num_predict") or self.words)):
            time.sleep(self.seconds / self.words)
            yield f" {model[7:11]}{len(prompt)}.{number}"


class Cyllama:
    """llama.cpp on the CPU, through PyPI's ``cyllama``."""

    def load(self, path: Path) -> Any:
        from cyllama import api

        return api.LLM(str(path), config=api.GenerationConfig(n_ctx=1024, n_gpu_layers=0))

    def answer(self, model: Any, prompt: str, options: Mapping[str, Any]) -> Iterator[str]:
        from cyllama import api

        config = api.GenerationConfig(
            max_tokens=options.get("num_predict") or 48,
            temperature=options.get("temperature", 0.0),
            seed=options.get("seed", 7),
            n_ctx=1024,
            n_gpu_layers=0,
        )
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        yield from model(text, config=config, stream=True)


@dataclass
class _Runner:
    """A model that is loaded."""

    model: Any
    size: int
    vram: int
    context: int
    until: float = math.inf
    users: int = 0
    expired: bool = False
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class _Answer:
    """What is answered. ``told`` makes fields of a piece of text; ``last`` are those of the last line alone."""

    manifest: ollama.OllamaManifest
    runner: _Runner
    prompt: str
    took: float
    told: Callable[[str], dict[str, Any]]
    last: dict[str, Any] = field(default_factory=dict)


class OllamaStandIn:
    """``take(bytes)`` says whether the card has room and takes it, ``give(bytes)`` gives it back.

    ``loads`` counts loads by name, ``on_cpu`` those that found no room.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        take: Callable[[int], bool] = lambda _: True,
        give: Callable[[int], None] = lambda _: None,
        *,
        factor: float = 1.0,
    ) -> None:
        self.folder, self.engine, self.take, self.give, self.factor = folder, engine, take, give, factor
        self.running: dict[str, _Runner] = {}
        self.loads: dict[str, int] = {}
        self.on_cpu = 0
        self.broken_off = 0
        self.answered = 0
        self.answers: list[str] = []
        self.lie: Callable[[list[Any]], object] | None = None
        self.delay = 0.0
        self._loading = asyncio.Lock()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20, middlewares=[self._slow])
        app.router.add_get("/", self._root)
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/api/ps", self._ps)
        app.router.add_post("/api/show", self._show)
        app.router.add_post("/api/generate", self._generate)
        app.router.add_post("/api/chat", self._chat)
        return app

    @web.middleware
    async def _slow(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.delay:
            await asyncio.sleep(self.delay)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _root(self, _: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.0.0"})

    async def _tags(self, _: web.Request) -> web.Response:
        rows = [
            {
                "name": manifest.name,
                "model": manifest.name,
                "modified_at": _time(manifest.path.stat().st_mtime),
                "size": int(sum(layer.size for layer in manifest.layers) * self.factor),
                "digest": manifest.layers[0].digest,
                "details": self._details(manifest),
            }
            for manifest in self._manifests().values()
        ]
        return web.json_response({"models": rows})

    async def _ps(self, _: web.Request) -> web.Response:
        self._expire()
        rows = [
            {
                "name": name,
                "model": name,
                "size": model.size,
                "digest": self._manifests()[name].layers[0].digest,
                "details": self._details(self._manifests()[name]),
                "expires_at": _time(time.time() + min(model.until - time.monotonic(), 9e9)),
                "size_vram": model.vram,
                "context_length": model.context,
            }
            for name, model in sorted(self.running.items(), key=lambda pair: -pair[1].until)
        ]
        return web.json_response({"models": rows} if self.lie is None else self.lie(rows))

    async def _show(self, request: web.Request) -> web.Response:
        body = await _body(request)
        manifest = self._known(str(body.get("model") or ""))
        head = gguf.read(self._blob(manifest))
        capabilities = ["completion", *(["vision"] if _sees(manifest) else [])]
        told = {"details": self._details(manifest), "model_info": dict(head.values), "capabilities": capabilities}
        return web.json_response(told)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        manifest = self._known(str(body.get("model") or ""))
        prompt, keep = body.get("prompt") or "", _duration(body)
        if not prompt and keep == 0:
            self._let_go(manifest.name)
            return web.json_response(_answer(manifest, response="", done=True, done_reason="unload"))
        images = [_image(image) for image in body.get("images") or ()]
        if images and not _sees(manifest):
            raise _refused(400, f'"{manifest.name}" does not support image input')
        runner, took = await self._use(manifest, keep)
        try:
            if not prompt:
                return web.json_response(_answer(manifest, response="", done=True, done_reason="load"))
            whole = "\n".join(part for part in (body.get("system") or "", *images, prompt) if part)
            made = [*whole.encode()][:256]
            said = _Answer(manifest, runner, whole, took, lambda text: {"response": text}, {"context": made})
            return await self._answered(request, body, said)
        finally:
            self._done(manifest.name, runner, keep)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        manifest = self._known(str(body.get("model") or ""))
        messages, keep = body.get("messages") or [], _duration(body)
        empty = {"message": {"role": "assistant", "content": ""}, "done": True}
        if not messages and keep == 0:
            self._let_go(manifest.name)
            return web.json_response(_answer(manifest, **empty, done_reason="unload"))
        runner, took = await self._use(manifest, keep)
        try:
            if not messages:
                return web.json_response(_answer(manifest, **empty, done_reason="load"))
            whole = "\n".join(str(message.get("content", "")) for message in messages)
            said = _Answer(
                manifest, runner, whole, took, lambda text: {"message": {"role": "assistant", "content": text}}
            )
            return await self._answered(request, body, said)
        finally:
            self._done(manifest.name, runner, keep)

    async def _answered(self, request: web.Request, body: Mapping[str, Any], said: _Answer) -> web.StreamResponse:
        manifest, told, prompt = said.manifest, said.told, said.prompt
        began, pieces = time.monotonic(), list[str]()
        streams = body.get("stream") is not False
        made = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        if streams:
            await made.prepare(request)
        try:
            async with said.runner.busy:
                async for piece in self._pieces(said.runner, prompt, body.get("options") or {}):
                    pieces.append(piece)
                    if streams:
                        await made.write(_line(_answer(manifest, **told(piece), done=False)))
        except (asyncio.CancelledError, ConnectionError):
            self.broken_off += 1
            raise
        spent = int((time.monotonic() - began) * 1e9)
        ended = {
            **_answer(manifest, **told("" if streams else "".join(pieces)), done=True, done_reason="stop", **said.last),
            "total_duration": spent + int(said.took * 1e9),
            "load_duration": int(said.took * 1e9),
            "prompt_eval_count": len(prompt.split()),
            "prompt_eval_duration": 1,
            "eval_count": len(pieces),
            "eval_duration": spent,
        }
        self.answered += 1
        self.answers.append("".join(pieces))
        if not streams:
            return web.json_response(ended)
        await made.write(_line(ended))
        await made.write_eof()
        return made

    async def _pieces(self, runner: _Runner, prompt: str, options: Mapping[str, Any]) -> AsyncIterator[str]:
        ended = object()
        pieces = iter(self.engine.answer(runner.model, prompt, options))
        while (piece := await asyncio.to_thread(next, pieces, ended)) is not ended:
            yield str(piece)

    async def _use(self, manifest: ollama.OllamaManifest, keep: float | None) -> tuple[_Runner, float]:
        """A loaded model, and seconds that it took to load; one that was loaded is not loaded again."""
        self._expire()
        began = time.monotonic()
        async with self._loading:
            runner = self.running.get(manifest.name)
            if runner is None:
                size = int(manifest.layers[0].size * self.factor)
                fits = self.take(size)
                self.on_cpu += not fits
                self.loads[manifest.name] = self.loads.get(manifest.name, 0) + 1
                try:
                    model = await asyncio.to_thread(self.engine.load, self._blob(manifest))
                except BaseException:
                    self.give(size if fits else 0)
                    raise
                runner = self.running[manifest.name] = _Runner(model, size, size if fits else 0, 1024)
            runner.users += 1
            runner.expired = False
        return runner, time.monotonic() - began

    def _done(self, name: str, runner: _Runner, keep: float | None) -> None:
        runner.users -= 1
        runner.until = time.monotonic() + (_USUAL if keep is None else keep)
        if keep == 0:
            runner.expired = True
        self._expire()

    def _let_go(self, name: str) -> None:
        if name in self.running:
            self.running[name].expired = True
        self._expire()

    def _expire(self) -> None:
        """Unloads what nobody uses and nobody wants kept; what answers comes to its end first."""
        for name, model in list(self.running.items()):
            if not model.users and (model.expired or model.until <= time.monotonic()):
                del self.running[name]
                if hasattr(model.model, "close"):
                    model.model.close()
                self.give(model.vram)

    def _manifests(self) -> dict[str, ollama.OllamaManifest]:
        return {
            manifest.name: manifest for manifest in ollama.manifests(self.folder) if not isinstance(manifest, Damaged)
        }

    def _known(self, name: str) -> ollama.OllamaManifest:
        manifest = self._manifests().get(name if ":" in name.rpartition("/")[2] else f"{name}:latest")
        if manifest is None:
            raise _refused(404, f"model '{name}' not found")
        return manifest

    def _blob(self, manifest: ollama.OllamaManifest) -> Path:
        return ollama.blob(self.folder, manifest.layers[0].digest)

    def _details(self, manifest: ollama.OllamaManifest) -> dict[str, Any]:
        config = json.loads(ollama.blob(self.folder, manifest.layers[-1].digest).read_bytes())
        return {
            "parent_model": "",
            "format": config["model_format"],
            "family": config["model_family"],
            "families": config["model_families"],
            "parameter_size": config["model_type"],
            "quantization_level": config["file_type"],
        }


def _sees(manifest: ollama.OllamaManifest) -> bool:
    """A model by this name gets pictures, told in words: no model that sees is small enough for a test."""
    return "vision" in manifest.name


def _image(text: object) -> str:
    """What a picture shows, in a sentence that says as much as can be said without a model that sees."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(base64.b64decode(str(text), validate=True))) as image:
            small = image.convert("RGB").resize((1, 1))
            red, green, blue = small.getpixel((0, 0))  # type: ignore[misc]
            colours = sorted([(red, "red"), (green, "green"), (blue, "blue")], reverse=True)
            return f"The picture is {image.width} by {image.height}, mostly {colours[0][1]}, then {colours[1][1]}."
    except (binascii.Error, UnidentifiedImageError, OSError):
        raise _refused(400, "invalid image input") from None


async def _body(request: web.Request) -> dict[str, Any]:
    data = await request.read()
    if not data:
        raise _refused(400, "missing request body")
    try:
        body = json.loads(data)
    except ValueError as error:
        raise _refused(400, f"invalid character: {error}") from None
    if not isinstance(body, dict):
        raise _refused(400, "json: cannot unmarshal into Go value of type api.GenerateRequest")
    for name, value in body.items():
        kinds = _FIELDS.get(name)
        if (
            kinds
            and value is not None
            and (not isinstance(value, kinds) or (type(value) is bool and bool not in kinds))
        ):
            raise _refused(400, f"json: cannot unmarshal {type(value).__name__} into Go struct field .{name}")
    return body


def _duration(body: Mapping[str, Any]) -> float | None:
    """``keep_alive`` in seconds, as api.Duration reads it; None where it is not said."""
    value = body.get("keep_alive")
    if value is None:
        return None
    if isinstance(value, str):
        parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)", value)
        if value not in ("0", "-0") and (not parts or "".join(map("".join, parts)) != value.lstrip("-+")):
            raise _refused(400, f'time: missing unit in duration "{value}"')
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        return math.inf if value.startswith("-") and seconds else seconds
    return math.inf if value < 0 else float(value)


def _refused(status: int, said: str) -> web.HTTPException:
    kinds = {400: web.HTTPBadRequest, 404: web.HTTPNotFound}
    return kinds[status](text=json.dumps({"error": said}), content_type="application/json")


def _answer(manifest: ollama.OllamaManifest, **fields: Any) -> dict[str, Any]:
    return {"model": manifest.name, "created_at": _time(time.time()), **fields}


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _time(seconds: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    web.run_app(OllamaStandIn(options.models, Cyllama()).app(), host="127.0.0.1", port=options.port, print=None)


if __name__ == "__main__":
    main()
