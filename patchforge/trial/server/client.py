"""Talks to a running ComfyUI server through its own API, and tells how a prompt went.

The server is the release's code and that of packs. What it answers is bounded, and read as what it should be or not at
all.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from patchforge import web
from patchforge.errors import Damaged, PatchforgeError
from patchforge.trial.model import Ending, Execution, Failure, JsonObject, NodeStep, Output, Workflow
from patchforge.trial.server.log import ServerLog

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

HOST = "127.0.0.1"
_LOG_LINES = 40
_LOOK_EVERY = 1.0  # seconds between looks at /history while the socket is silent
_SETTLE = 10.0  # seconds that /history may take after the end was told
_ANSWER = 256 << 20  # bytes; a picture with 8192 pixels a side as PNG has less
_MESSAGE = 64 << 20  # bytes of one message on the socket, previews among them
_MOST = 10_000  # messages, events, outputs or lines of one prompt that are kept
_LATEST = 1e12  # seconds
_TEXT = 20_000  # characters of one text that are kept
_ENDS = {
    "execution_success": Ending.SUCCESS,
    "execution_error": Ending.ERROR,
    "execution_interrupted": Ending.INTERRUPTED,
}


class Rejected(ValueError):
    """/prompt did not take a graph."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Unanswered(OSError):
    """The server answered with an error, or with something else than JSON."""


class _Begin(NamedTuple):
    time: float
    printed: int  #: how much the log had


class Client:
    """One client of the server on a loopback port, or at ``url``.

    ``alive`` says whether the server's process is there, ``log`` is what it prints. Requests raise OSError when the
    server does not answer in ``timeout`` seconds.
    """

    def __init__(
        self,
        port: int,
        *,
        alive: Callable[[], bool] = lambda: True,
        log: ServerLog | None = None,
        timeout: float = 30.0,
        url: str = "",
    ) -> None:
        self.port, self.url = port, url or f"http://{HOST}:{port}"
        self.name = uuid.uuid4().hex
        self._alive, self._log, self._timeout = alive, log or ServerLog(Path(os.devnull)), timeout
        self._limits = web.Limits(_ANSWER, timeout, redirects=0, patient=True)

    def system_stats(self) -> JsonObject:
        return self._get("/system_stats")

    def object_info(self) -> JsonObject:
        return self._get("/object_info")

    def queue(self) -> JsonObject:
        return self._get("/queue")

    def history(self, prompt: str) -> JsonObject:
        """What is known of a prompt that has ended; empty before."""
        return _object(self._get(f"/history/{urllib.parse.quote(prompt, safe='')}").get(prompt))

    def interrupt(self, prompt: str = "") -> None:
        """Interrupts what runs; in newer releases only if it is that prompt, where one is named."""
        self._request("POST", "/interrupt", {"prompt_id": prompt} if prompt else {})

    def free(self) -> None:
        """Asks for models and cached results to be dropped; the worker does it when it next has nothing to do."""
        self._request("POST", "/free", {"unload_models": True, "free_memory": True})

    def state(self) -> JsonObject:
        """Torch, devices, memory, threads: see pack/observer.py."""
        return self._get("/patchforge/state")

    def journal(self, prompt: str) -> list[JsonObject]:
        """What happened to a prompt so far: event, node, operations, time in seconds."""
        events = _list(self._get(f"/patchforge/journal?prompt={urllib.parse.quote(prompt, safe='')}").get("events"))
        return [_kept(str(event.get("event")), event) for event in events if isinstance(event, dict)]

    def count(self, *, wanted: bool) -> None:
        """Whether the prompts that begin from now on are counted; see pack/counting.py. Counting takes time."""
        self._request("POST", "/patchforge/count", {"wanted": wanted})

    def counters(self, prompt: str) -> JsonObject | None:
        """What was counted of a prompt, by node; None for one that was not. As the server says it, unchecked."""
        nodes = self._get(f"/patchforge/counters?prompt={urllib.parse.quote(prompt, safe='')}").get("nodes")
        return nodes if isinstance(nodes, dict) else None

    def fault(self, name: str, **arguments: object) -> None:
        """Sets a fault of the emulated XPU, such as ``fault("fail", error="out-of-resources", after=3)``."""
        status, data = self._ask("POST", "/patchforge/fault", {"name": name, "arguments": arguments})
        if status != http.client.OK:
            raise PatchforgeError(
                f"the fault {name} cannot be set",
                expected="an emulated XPU and a fault that it has",
                found=data.decode(errors="replace"),
                do="run the test on the emulated XPU",
            )

    def submit(self, graph: Mapping[str, JsonObject], prompt: str = "") -> str:
        """Queues a graph and returns the prompt's id; Rejected if the server does not take it.

        ``prompt``: the id that it should have, a UUID; releases before v0.3.40 or so give one of their own.
        """
        wanted = {"prompt_id": prompt} if prompt else {}
        status, data = self._ask("POST", "/prompt", {"prompt": dict(graph), "client_id": self.name, **wanted})
        if status != http.client.OK:
            raise Rejected(_rejection(status, data))
        given = _json(data).get("prompt_id")
        if not isinstance(given, str):
            raise Unanswered("/prompt gave no prompt_id")
        return given

    def run(self, graph: Workflow | Mapping[str, JsonObject], timeout: float) -> Execution:
        """A graph from /prompt to its end. Never raises for what the server does: the ending says it."""
        graph = graph.graph if isinstance(graph, Workflow) else graph
        begin = _Begin(time.monotonic(), self._log.end())
        try:
            with self._socket() as socket:
                return self._follow(self.submit(graph), graph, socket, begin, timeout)
        except Rejected as error:
            return self._execution("", Ending.REJECTED, begin, failure=error.failure)
        except OSError as error:
            ending = Ending.TIMEOUT if isinstance(error, TimeoutError) else Ending.GONE
            return self._execution("", ending, begin, failure=_unanswered(error))

    def wait(self, prompt: str, timeout: float) -> Execution:
        """The same for a prompt that was submitted."""
        return self._follow(prompt, {}, None, _Begin(time.monotonic(), self._log.end()), timeout)

    def _follow(
        self,
        prompt: str,
        graph: Mapping[str, JsonObject],
        socket: ClientConnection | None,
        begin: _Begin,
        timeout: float,
    ) -> Execution:
        messages = list(self._messages(prompt, socket, begin.time + timeout))
        ending = messages[-1][0]
        if ending == Ending.TIMEOUT:
            self.give_up(prompt)
        history = self._history_after(prompt) if ending not in {Ending.TIMEOUT, Ending.GONE} else {}
        status = _object(history.get("status"))
        told = [*messages, *_recorded(_list(status.get("messages")))]
        endings = [_ENDS[name] for name, _ in told if name in _ENDS]
        if ending not in {Ending.TIMEOUT, Ending.GONE}:
            success = status.get("status_str") == "success"
            ending = endings[-1] if endings else Ending.SUCCESS if success else Ending.ERROR
        failure = _failure(told)
        outputs: tuple[Output, ...] = ()
        try:
            outputs = self._outputs(history)
        except OSError as error:
            ending, failure = Ending.ERROR, failure or _unanswered(error)
        parts = {"steps": self._steps(prompt, graph or _graph(history), messages), "outputs": outputs}
        return self._execution(prompt, Ending(ending), begin, failure=failure, **parts)

    def _execution(self, prompt: str, ending: Ending, begin: _Begin, **parts: Any) -> Execution:
        log = self._log.lines(begin.printed)[-_LOG_LINES:]
        return Execution(prompt, ending, time.monotonic() - begin.time, log=log, **parts)

    def _messages(
        self, prompt: str, socket: ClientConnection | None, deadline: float
    ) -> Iterator[tuple[str, JsonObject]]:
        """What the server says of a prompt; the last one's name is ``ended``, Ending.GONE or Ending.TIMEOUT."""
        kept = 0
        while time.monotonic() < deadline:
            if not self._alive():
                yield Ending.GONE, {}
                return
            message, socket = _receive(socket)
            if message is None:
                if self._ended(prompt):
                    yield "ended", {}
                    return
                if self._worker_gone():
                    yield Ending.GONE, {}
                    return
            elif message[1].get("prompt_id") == prompt:
                over = message[0] in _ENDS or (message[0] == "executing" and message[1].get("node") is None)
                kept += 1
                if over or kept < _MOST:
                    yield message[0], _kept(*message)
                if over:
                    yield "ended", {}
                    return
        yield Ending.TIMEOUT, {}

    def _ended(self, prompt: str) -> bool:
        try:
            return bool(self.history(prompt))
        except OSError:  # it may be busy
            return False

    def _worker_gone(self) -> bool:
        """Whether the server lives without the thread that works through the queue."""
        try:
            threads = self.state().get("threads")
        except OSError:
            return False
        return isinstance(threads, list) and not any("prompt_worker" in str(name) for name in threads)

    def _history_after(self, prompt: str) -> JsonObject:
        deadline = time.monotonic() + _SETTLE
        while time.monotonic() < deadline and self._alive():
            try:
                if history := self.history(prompt):
                    return history
            except OSError:
                pass
            time.sleep(0.05)
        return {}

    def give_up(self, prompt: str) -> None:
        """Takes a prompt that ran out of time off the queue, and interrupts it."""
        try:
            self.forget(prompt)
            self.interrupt(prompt)
        except OSError:
            pass

    def erase(self, prompt: str) -> None:
        """Takes a prompt that has ended out of the history."""
        self._request("POST", "/history", {"delete": [prompt]})

    def forget(self, prompt: str) -> None:
        """Takes a prompt that waits off the queue."""
        self._request("POST", "/queue", {"delete": [prompt]})

    def _steps(
        self, prompt: str, graph: Mapping[str, JsonObject], messages: Iterable[tuple[str, JsonObject]]
    ) -> tuple[NodeStep, ...]:
        try:
            events = self.journal(prompt)
        except OSError:
            events = []
        kinds = {node: str(_object(value).get("class_type", ""))[:_TEXT] for node, value in graph.items()}
        return steps_of(events or [{**data, "event": name} for name, data in messages], kinds)

    def _outputs(self, history: JsonObject) -> tuple[Output, ...]:
        files = (
            (node, file)
            for node, kinds in _object(history.get("outputs")).items()
            for listed in _object(kinds).values()
            for file in _list(listed)
            if isinstance(file, dict) and isinstance(file.get("filename"), str)
        )
        outputs: list[Output] = []
        left = _ANSWER
        for node, file in islice(files, _MOST):
            outputs.append(Output(node, str(file["filename"]), self._view(file)))
            left -= len(outputs[-1].data)
            if left < 0:
                raise Unanswered(f"the outputs have more than {_ANSWER >> 20} MiB together")
        return tuple(outputs)

    def _view(self, file: JsonObject) -> bytes:
        wanted = {"filename": file["filename"], "subfolder": file.get("subfolder", ""), "type": file.get("type", "")}
        return self._request("GET", f"/view?{urllib.parse.urlencode(wanted)}")

    def _get(self, path: str) -> JsonObject:
        return _json(self._request("GET", path))

    def _request(self, method: str, path: str, body: object = None) -> bytes:
        status, data = self._ask(method, path, body)
        if status != http.client.OK:
            raise Unanswered(f"{method} {path}: status {status}, {data[:300].decode(errors='replace')}")
        return data

    def _ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        address = f"{self.url}{path}"
        try:
            with web.opened(address, verb=method, headers=headers, data=data, limits=self._limits) as answer:
                return answer.status, answer.whole()
        except PatchforgeError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise Unanswered(f"{method} {path}: {error.found or error.problem}") from error

    @contextmanager
    def _socket(self) -> Iterator[ClientConnection]:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - only a trial needs it
        from websockets.sync.client import connect  # noqa: PLC0415

        address = f"ws://{HOST}:{self.port}/ws?clientId={self.name}"
        try:
            made = connect(address, open_timeout=self._timeout, close_timeout=1, max_size=_MESSAGE, proxy=None)
        except (WebSocketException, ValueError, EOFError) as error:
            raise Unanswered(f"/ws: {str(error)[:_TEXT]}") from error
        try:
            with made as socket:
                yield socket
        except WebSocketException as error:
            raise Unanswered(f"/ws: {str(error)[:_TEXT]}") from error


def steps_of(events: Sequence[JsonObject], kinds: Mapping[str, str]) -> tuple[NodeStep, ...]:
    """The nodes of a prompt from its events: a node runs from its ``executing`` to the next one's or to the end.

    A node that runs in several goes (lazy inputs, loops) gives one step. Where nothing was counted, operations are 0.
    """
    cached = [str(node) for event in events if event["event"] == "execution_cached" for node in event["nodes"]]
    steps = {node: NodeStep(node, kinds.get(node, ""), cached=True, operations=0, seconds=0.0) for node in cached}
    for now, then in _spans([event for event in events if event["event"] != "executed"]):
        node = str(now["node"])
        before = steps.get(node)
        counted = (then.get("operations") or 0) - (now.get("operations") or 0)
        seconds = then.get("time", 0.0) - now.get("time", 0.0)
        if before is not None and not before.cached:
            counted, seconds = counted + before.operations, seconds + before.seconds
        steps[node] = NodeStep(node, kinds.get(node, ""), cached=False, operations=counted, seconds=seconds)
    return tuple(steps.values())


def _spans(events: Sequence[JsonObject]) -> Iterator[tuple[JsonObject, JsonObject]]:
    for now, then in zip(events, [*events[1:], None], strict=True):
        if now["event"] == "executing" and now.get("node") is not None:
            yield now, then if then is not None else now


def _receive(
    socket: ClientConnection | None,
) -> tuple[tuple[str, JsonObject] | None, ClientConnection | None]:
    """The next text message, None after a silence; a socket that was closed is used no more."""
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - only a trial needs it

    if socket is None:
        time.sleep(_LOOK_EVERY / 5)
        return None, None
    try:
        text = socket.recv(timeout=_LOOK_EVERY)
    except TimeoutError:
        return None, socket
    except ConnectionClosed:
        return None, None
    if isinstance(text, bytes):  # a preview
        return ("", {}), socket
    try:
        message = _object(web.parsed(text.encode("utf-8", "replace"), "/ws"))
    except Damaged:
        message = {}
    return (str(message.get("type")), _object(message.get("data"))), socket


def _json(data: bytes) -> JsonObject:
    try:
        answer = web.parsed(data, "/")
    except Damaged:
        raise Unanswered(f"expected JSON, found {data[:200]!r}") from None
    if not isinstance(answer, dict):
        raise Unanswered(f"expected an object, found {data[:200]!r}")
    return answer


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value[:_MOST] if isinstance(value, list) else []


def _text(value: object) -> str:
    return str(value)[:_TEXT] if isinstance(value, str | int | float) else ""


def _kept(name: str, data: JsonObject) -> JsonObject:
    """What is used of a message or event, each thing as what it should be."""
    node, count, when = data.get("node"), data.get("operations"), data.get("time")
    kept: JsonObject = {
        "event": name[:_TEXT],
        "node": None if node is None else _text(node),
        "nodes": [_text(node) for node in _list(data.get("nodes"))],
        "operations": count if type(count) is int else 0,
        "time": float(when) if isinstance(when, int | float) and abs(when) < _LATEST else 0.0,
    }
    if _ENDS.get(name) is Ending.ERROR:
        kept |= {key: _text(data.get(key)) for key in ("node_id", "node_type", "exception_type", "exception_message")}
        kept["traceback"] = [_text(line) for line in _list(data.get("traceback"))]
    return kept


def _recorded(messages: Iterable[Any]) -> Iterator[tuple[str, JsonObject]]:
    for message in messages:
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            yield str(message[0]), _kept(str(message[0]), message[1])


def _graph(history: JsonObject) -> Mapping[str, JsonObject]:
    """The graph as the history has it, after a number and the prompt's id."""
    prompt = _list(history.get("prompt"))
    return _object(prompt[2]) if len(prompt) > 2 else {}


def _failure(told: Iterable[tuple[str, JsonObject]]) -> Failure | None:
    for name, data in told:
        if name == "execution_error":
            node, kind = data["node_id"], data["node_type"]
            return Failure(node, kind, data["exception_type"], data["exception_message"], tuple(data["traceback"]))
    return None


def _rejection(status: int, data: bytes) -> Failure:
    """Why /prompt refused: the first node with an error, or the error of the whole graph."""
    try:
        answer = _json(data)
    except Unanswered as unread:
        return Failure("", "", str(status), str(unread))
    told = answer.get("error")
    error = told if isinstance(told, dict) else {"message": _text(told)}
    for node, what in _object(answer.get("node_errors")).items():
        listed = [_object(error) for error in _list(_object(what).get("errors"))]
        errors = "; ".join(f"{_text(error.get('message'))}: {_text(error.get('details'))}" for error in listed)
        kind = _text(_object(what).get("class_type"))
        return Failure(str(node), kind, _text(error.get("type")), errors)
    details = f": {_text(error['details'])}" if error.get("details") else ""
    return Failure("", "", _text(error.get("type")) or str(status), f"{_text(error.get('message'))}{details}")


def _unanswered(error: OSError) -> Failure:
    return Failure("", "", type(error).__name__, str(error))
