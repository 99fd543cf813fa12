"""A GitHub for tests: the parts of its REST API that the bot uses, over real HTTP, with faults on order."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

LATER = "2026-06-01T00:00:00Z"


@dataclass
class Fault:
    """What happens to requests whose ``VERB path`` matches, ``times`` times.

    ``status`` 0: the connection is cut. ``late``: the request is carried out first, and its answer is lost.
    """

    match: str
    status: int = 502
    times: int = 1
    body: str = '{"message": "Server Error"}'
    headers: dict[str, str] = field(default_factory=dict)
    late: bool = False
    pause: float = 0.0
    cut: int = 0  #: bytes that are missing at the end


@dataclass
class FakeGitHub:
    """State and server. ``branch_exists`` looks into the bare repository that stands for ours."""

    repository: str
    upstream: str
    branch_exists: Callable[[str], bool]
    releases: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)  #: completed scheduled ones, the newest last
    faults: list[Fault] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    authorized: list[str | None] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    per_page: int = 100
    moved_to: str = ""  #: upstream's new name: its old address then redirects
    issues_off: bool = False

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def writes(self) -> list[str]:
        return [line for line in self.log if not line.startswith("GET ")]

    def number(self) -> int:
        return 1 + len(self.pulls) + len(self.issues)

    def add_pull(self, branch: str, title: str, body: str, *, home: str = "", draft: bool = False) -> dict[str, Any]:
        number = self.number()
        head = {"ref": branch, "repo": {"full_name": home or self.repository}}
        text = {"title": title, "body": body, "draft": draft}
        pull = {"id": 1000 + number, "number": number, "state": "open", "merged_at": None, "head": head, **text}
        self.pulls.append(pull)
        return pull

    def answer(self, verb: str, path: str, query: dict[str, str], data: dict[str, Any]) -> tuple[int, Any]:
        """Status and content of one request."""
        for pull in self.pulls:  # GitHub closes a pull request whose branch is deleted
            if pull["state"] == "open" and pull["head"]["repo"]["full_name"] == self.repository:
                pull["state"] = "open" if self.branch_exists(pull["head"]["ref"]) else "closed"
        home = re.escape(f"/repos/{self.repository}")
        if re.fullmatch(rf"/repos/{re.escape(self.upstream)}/releases|/repositories/7/releases", path):
            return 200, self.releases
        if path == f"/repos/{self.repository}/pulls":
            return self._create_pull(data) if verb == "POST" else (200, self._listed(self.pulls, query))
        if match := re.fullmatch(rf"{home}/pulls/(\d+)", path):
            return 200, self._change(self.pulls, int(match[1]), data)
        if path == f"/repos/{self.repository}/issues":
            if self.issues_off:
                return 410, {"message": "Issues are disabled for this repo"}
            return self._create_issue(data) if verb == "POST" else (200, self._listed(self.issues, query))
        if match := re.fullmatch(rf"{home}/issues/(\d+)", path):
            return 200, self._change(self.issues, int(match[1]), data)
        if path == f"/repos/{self.repository}/actions/workflows/update.yml/runs":
            return 200, {"workflow_runs": self.runs[-1:] if query["status"] == "completed" else []}
        if match := re.fullmatch(rf"{home}/issues/(\d+)/comments", path):
            return self._comment(int(match[1]), verb, data)
        return 404, {"message": "Not Found"}

    def _listed(self, rows: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
        state, head = query.get("state", "open"), query.get("head", "").partition(":")[2]
        listed = [row for row in rows if state in {"all", row["state"]} and (not head or row["head"]["ref"] == head)]
        return listed[::-1]

    def _create_pull(self, data: dict[str, Any]) -> tuple[int, Any]:
        if not self.branch_exists(data["head"]):
            return 422, {"message": "Validation Failed", "errors": [{"field": "head", "code": "invalid"}]}
        mine = (pull for pull in self.pulls if pull["head"]["repo"]["full_name"] == self.repository)
        if any(pull["state"] == "open" and pull["head"]["ref"] == data["head"] for pull in mine):
            message = f"A pull request already exists for {data['head']}."
            return 422, {"message": "Validation Failed", "errors": [{"message": message}]}
        return 201, self.add_pull(data["head"], data["title"], data["body"], draft=data["draft"])

    def _create_issue(self, data: dict[str, Any]) -> tuple[int, Any]:
        number = self.number()
        issue = {"id": number, "number": number, "state": "open", "title": data["title"], "body": data["body"]}
        self.issues.append(issue)
        return 201, issue

    def _comment(self, number: int, verb: str, data: dict[str, Any]) -> tuple[int, Any]:
        if verb == "GET":
            return 200, self.comments.get(number, [])
        said = self.comments.setdefault(number, [])
        said.append({"id": len(said) + 1, "body": data["body"]})
        return 201, said[-1]

    @staticmethod
    def _change(rows: list[dict[str, Any]], number: int, data: dict[str, Any]) -> dict[str, Any]:
        row = next(issue for issue in rows if issue["number"] == number)
        row.update(data)
        return row


def _handler(github: FakeGitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            with github.lock:
                github.log.append(f"{self.command} {parts.path}")
                github.bodies.append(text)
                github.authorized.append(self.headers.get("Authorization"))
                fault = self.fault(f"{self.command} {parts.path}")
                if fault is None or fault.late or fault.cut:
                    status, answered = github.answer(self.command, parts.path, query, json.loads(text or "{}"))
            if fault is not None and not fault.cut:
                self.fail(fault)
            elif github.moved_to and parts.path == f"/repos/{github.upstream}/releases":
                target = f"{github.url}/repositories/7/releases?{parts.query}"
                self.send(301, {"message": "Moved Permanently"}, {"Location": target})
            else:
                self.page(status, answered, parts.path, query, cut=fault.cut if fault else 0)

        def fault(self, line: str) -> Fault | None:
            fault_now = next((fault for fault in github.faults if re.search(fault.match, line)), None)
            if fault_now:
                fault_now.times -= 1
                if fault_now.times == 0:
                    github.faults.remove(fault_now)
            return fault_now

        def fail(self, fault: Fault) -> None:
            time.sleep(fault.pause)
            if fault.status == 0:
                self.close_connection = True
                self.connection.close()
            else:
                self.send(fault.status, fault.body, fault.headers)

        def page(self, status: int, answered: Any, path: str, query: dict[str, str], cut: int) -> None:
            headers = {}
            if isinstance(answered, list):
                # After a redirect PyGithub asks without its parameters; GitHub then gives 30 to a page.
                size, number = min(github.per_page, int(query.get("per_page", 30))), int(query.get("page", 1))
                if len(answered) > size * number:
                    following = urlencode({**query, "page": number + 1})
                    headers["Link"] = f'<{github.url}{path}?{following}>; rel="next"'
                answered = answered[size * (number - 1) : size * number]
            self.send(status, answered, headers, cut)

        def send(self, status: int, answered: Any, headers: dict[str, str], cut: int = 0) -> None:
            data = (answered if isinstance(answered, str) else json.dumps(answered)).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.close_connection = bool(cut)
            self.wfile.write(data[: len(data) - cut])

        do_GET = do_POST = do_PATCH = do_DELETE = serve

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler
