"""GitHub's API: releases, pull requests, issues and comments, with everything that goes wrong on the way.

PyGithub makes the requests, over patchforge/web.py: it would follow links elsewhere, and read without end. Its own
retries are off: they repeat a POST that may have been carried out. Here a failed GET or PATCH is repeated, and a failed
POST only after a look whether it did happen. An answer that is not the API's is not asked for again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, ItemsView, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from patchforge import escape, web
from patchforge.bot.model import GitHubRelease, Issue, Pull, read_marker
from patchforge.bot.token import Token
from patchforge.errors import Damaged, PatchforgeError, TryAgain

if TYPE_CHECKING:
    from github import GithubException

LABEL = "patchforge"
API = "https://api.github.com"
_MOST_PAGES = 20
_PER_PAGE = 50  #: of the longest rows there may be, less than _SIZE
_SIZE = 8 << 20  #: bytes of an answer
_SHOWN = 300  #: characters of GitHub's reason
_LONGEST_TAG = 200
_HEADERS = ("link", "retry-after", "x-ratelimit-remaining")
_T = TypeVar("_T")
_Step = Callable[[str], None]
_Check = Callable[[Any], bool]
_LATEST = 1 << 40  #: of dates in seconds: more is not a date


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on when GitHub does not answer as it should. Times in seconds."""

    tries: int = 5
    first: float = 0.5  #: the first pause; each later one is twice as long
    timeout: float = 6.0  #: of one request, its whole answer included
    longest: float = 9.0  #: of a question, with all its pages and repetitions; a longer wait is left to the next run
    between_requests: float = 0.1
    between_writes: float = 1.0


class _UnsureError(Exception):
    """A POST may or may not have been carried out."""


class _GarbledError(Damaged):
    """An answer that is not what the API gives, such as an HTML page."""

    def __init__(self) -> None:
        super().__init__(
            "GitHub's answer is not what its API gives", do="check the address, and whether GitHub is well"
        )


class _Response:
    """An answer as PyGithub takes it, without the token in any text of it, and with no more than is used here."""

    def __init__(self, answer: web.Answer, token: Token) -> None:
        self.status = answer.status
        told = {name.lower(): value for name, value in answer.headers.items()}
        reset = web.whole_number(told.pop("x-ratelimit-reset", ""), _LATEST)
        self._headers = {name: value for name, value in told.items() if name in _HEADERS}
        self._headers |= {} if reset is None else {"x-ratelimit-reset": str(reset)}
        data = answer.whole()
        try:
            document = token.hidden_in(web.parsed(data, answer.url))
        except Damaged:
            if self.status < 400:
                raise _GarbledError from None
            document = {}
        if self.status >= 400:
            document = (
                {name: document[name] for name in ("message", "errors") if name in document}
                if _is_refusal(document)
                else {}
            )
        self._text = json.dumps(document)

    def getheaders(self) -> ItemsView[str, str]:
        return self._headers.items()

    def read(self) -> str:
        return self._text


def _is_refusal(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("message"), str)


def _transport(top: web.Origin, seconds: Callable[[], float], token: Token) -> type:
    """The class of PyGithub's connections, which lead to ``top`` alone; ``seconds``: what an answer may take."""

    class Connection:
        def __init__(self, host: str, *_: object, **__: object) -> None:
            self.host = host

        def request(self, verb: str, path: str, data: str | None, headers: dict[str, str], _: bool = False) -> None:  # noqa: FBT001, FBT002 - PyGithub's
            self._asked = (verb, path, data, headers)

        def getresponse(self) -> _Response:
            verb, path, data, headers = self._asked
            sent, limits = None if data is None else data.encode(), web.Limits(_SIZE, seconds(), patient=True)
            with web.opened(f"{top}{path}", verb=verb, headers=headers, data=sent, limits=limits) as answer:
                if answer.status < 300 and answer.status not in (200, 201):
                    raise _GarbledError
                return _Response(answer, token)

        def close(self) -> None:
            pass

    return Connection


class Forge:
    """One GitHub. ``step`` is called with a name before and after each write; ``requests`` and ``writes`` count."""

    def __init__(
        self, token: Token, *, api: str = API, patience: Patience | None = None, step: _Step = lambda _: None
    ) -> None:
        from github import Auth, Github, Requester  # noqa: PLC0415 - slow to import

        self.patience = patience or Patience()
        self._token, self._api, self._step = token, api.rstrip("/"), step
        self._end = 0.0  #: of the question that is being asked, on the monotonic clock; 0.0 when none is
        self._gave_up = False  #: on this GitHub, which took too long
        transport = _transport(web.origin(api), lambda: min(self._left(), self.patience.timeout), token)
        Requester.Requester.injectConnectionClasses(transport, transport)
        self._github = Github(
            auth=Auth.Token(token.text) if token.text else None,
            base_url=api,
            retry=None,
            seconds_between_requests=self.patience.between_requests,
            seconds_between_writes=self.patience.between_writes,
        )
        Requester.Requester.resetConnectionClasses()
        self.requests = self.writes = 0

    def releases(self, repository: str) -> list[GitHubRelease]:
        """The published releases, newest first; drafts are left out. An odd one says so and stops no other."""
        rows = self._pages(f"/repos/{repository}/releases", lambda _: True)
        return [_published(row) for row in rows if row.get("draft") is not True]

    def open_pulls(self, repository: str) -> list[Pull]:
        """Open pull requests from branches of the repository itself, not from forks."""
        return list(self._pulls(repository, state="open"))

    def pulls_of(self, repository: str, branch: str) -> list[Pull]:
        """Every pull request that a branch of the repository has or had, newest first."""
        head = f"{repository.partition('/')[0]}:{branch}"
        return [pull for pull in self._pulls(repository, state="all", head=head) if pull.branch == branch]

    def open_pull(self, repository: str, base: str, branch: str, title: str, body: str, *, draft: bool) -> Pull:
        """The open pull request of a branch, which may have been opened in the meantime."""
        data = {"title": title, "body": body, "head": branch, "base": base, "draft": draft}

        def there() -> Pull | None:
            return next((pull for pull in self.pulls_of(repository, branch) if pull.state == "open"), None)

        created = self._create(f"/repos/{repository}/pulls", data, there, f"open {branch}")
        return created if isinstance(created, Pull) else _pull(created)

    def edit_pull(self, repository: str, number: int, **data: str) -> None:
        self._write("PATCH", f"/repos/{repository}/pulls/{number}", data, f"edit #{number}")

    def comment(self, repository: str, number: int, text: str) -> None:
        """Says it once: a comment whose marker is there already is not written again."""
        marker = read_marker(text)
        if self.has_comment(repository, number, marker):
            return
        path = f"/repos/{repository}/issues/{number}/comments"
        self._create(
            path, {"body": text}, lambda: self.has_comment(repository, number, marker), f"comment on #{number}"
        )

    def has_comment(self, repository: str, number: int, marker: Mapping[str, Any]) -> bool:
        """Whether a comment with this marker is there."""
        rows = self._pages(f"/repos/{repository}/issues/{number}/comments", _is_comment)
        return any(read_marker(row["body"] or "") == marker for row in rows)

    def issues(self, repository: str) -> list[Issue]:
        """The issues with the bot's label, open and closed, newest first."""
        rows = self._pages(f"/repos/{repository}/issues", _is_issue, state="all", labels=LABEL)
        return [_issue(row) for row in rows if "pull_request" not in row]

    def open_issue(self, repository: str, title: str, body: str) -> Issue:
        marker = read_marker(body)

        def there() -> Issue | None:
            matching = (issue for issue in self.issues(repository) if issue.state == "open" and issue.marker == marker)
            return next(matching, None)

        data = {"title": title, "body": body, "labels": [LABEL]}
        created = self._create(f"/repos/{repository}/issues", data, there, "open issue")
        return created if isinstance(created, Issue) else _issue(created)

    def edit_issue(self, repository: str, number: int, **data: str) -> None:
        self._write("PATCH", f"/repos/{repository}/issues/{number}", data, f"edit issue #{number}")

    def _pulls(self, repository: str, **parameters: str) -> Iterator[Pull]:
        for row in self._pages(f"/repos/{repository}/pulls", _is_pull, **parameters):
            home = (row["head"].get("repo") or {}).get("full_name")
            if isinstance(home, str) and home.lower() == repository.lower():
                yield _pull(row)

    def _pages(self, path: str, check: _Check, **parameters: str) -> list[dict[str, Any]]:
        """The rows of all pages. The next page is where GitHub says: a number would be lost over a redirect."""
        asked: dict[str, Any] | None = {**parameters, "per_page": _PER_PAGE}
        where = path
        pages: list[dict[str, Any]] = []
        with self._asking():
            for _ in range(_MOST_PAGES):
                headers, rows = self._ask("GET", where, parameters=asked, check=lambda rows: _are_rows(rows, check))
                pages += rows
                if (more := self._next(headers)) is None:
                    return pages
                where, asked = more, None
        raise PatchforgeError(f"{path} has more than {_MOST_PAGES} pages", do="clear away what is not needed")

    def _create(self, path: str, data: Mapping[str, Any], there: Callable[[], _T | None], name: str) -> Any:
        """POSTs once: after a failure that leaves it open, ``there`` says whether it did happen."""
        with self._asking():
            for attempt in range(1, self.patience.tries + 1):
                try:
                    return self._write("POST", path, data, name)
                except _UnsureError as error:
                    if existing := there():
                        return existing
                    if isinstance(error.__cause__, Damaged):
                        raise error.__cause__ from None
                    said = str(error)
                if not self._waited(self._pause(attempt)):
                    break
        raise self._later("POST", path, said)

    def _write(self, verb: str, path: str, data: Mapping[str, Any], name: str) -> Any:
        """What became of one write. The token is in nothing that is written, whatever a stranger put in."""
        check = _is_pull if path.endswith("/pulls") else _is_issue if path.endswith("/issues") else _has_id
        self._step(f"before: {name}")
        self.writes += 1
        _, document = self._ask(verb, path, data=self._token.hidden_in(dict(data)), check=check)
        self._step(f"after: {name}")
        return document

    def _next(self, headers: Mapping[str, Any]) -> str | None:
        """The path of the next page. Damaged when that is outside of the API: the token would go there."""
        from requests.utils import parse_header_links  # noqa: PLC0415 - slow to import

        links = parse_header_links(headers.get("link", ""))
        following = next((link["url"] for link in links if link.get("rel") == "next"), None)
        if following is None:
            return None
        url, top = web.followed(f"{self._api}/", following, secret=True), f"{self._api}/"
        if not url.startswith(top) or self._token.hidden(url) != url:
            raise Damaged(
                f"{web.shown(top)} says that its next page is outside of the API", do="look at what answers there"
            )
        return url.removeprefix(self._api)

    def _ask(
        self,
        verb: str,
        path: str,
        *,
        check: Callable[[Any], bool],
        parameters: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """Headers and content of an answer that ``check`` accepts; Damaged when it does not."""
        from github import GithubException  # noqa: PLC0415 - slow to import

        with self._asking():
            for attempt in range(1, self.patience.tries + 1):
                self.requests += 1
                try:
                    headers, document = self._github.requester.requestJsonAndCheck(verb, path, parameters, input=data)
                    if check(document):
                        return headers, document
                    raise _GarbledError
                except GithubException as refused:
                    error: Exception = refused
                    pause = self._refused(refused, verb, path, attempt)
                except Damaged as garbled:
                    if verb == "POST":
                        raise _UnsureError from garbled
                    raise
                except TryAgain as broken:
                    error = broken
                    pause = self._pause(attempt)
                limited = isinstance(error, GithubException) and error.status in (403, 429)
                if verb == "POST" and not limited:
                    raise _UnsureError(self._said(error)) from error
                if attempt < self.patience.tries and not self._waited(pause):
                    break
        raise self._later(verb, path, self._said(error)) from error

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """One question, however many requests it takes: the outermost call begins its time."""
        if self._end:
            yield
            return
        if self._gave_up:
            raise TryAgain("GitHub took too long before", do="run this again later")
        self._end = time.monotonic() + self.patience.longest
        try:
            yield
        finally:
            self._gave_up = time.monotonic() >= self._end
            self._end = 0.0

    def _left(self) -> float:
        """Seconds that are left for the question."""
        return max(self._end - time.monotonic(), 0.001)

    def _waited(self, seconds: float) -> bool:
        """Waits, unless no time would be left afterwards."""
        if seconds >= self._left():
            return False
        time.sleep(seconds)
        return True

    def _refused(self, error: GithubException, verb: str, path: str, attempt: int) -> float:
        """Seconds to wait before trying again; raises when waiting would not help, or not within patience."""
        if error.status >= 500 or (error.status == 422 and verb == "POST" and "already exists" in str(error.data)):
            return self._pause(attempt)
        wait = _asked_to_wait(error)
        if wait is None:
            raise PatchforgeError(
                f"GitHub refuses {verb} {path}",
                found=self._said(error),
                do=_ADVICE.get(error.status, "read its reason"),
            ) from None
        if wait >= self._left():
            until = datetime.fromtimestamp(time.time() + wait, UTC).strftime("%H:%M:%S UTC")
            raise self._later(verb, path, f"its rate limit is used up until {until}") from None
        return max(wait, self._pause(attempt))

    def _pause(self, attempt: int) -> float:
        return float(self.patience.first * 2 ** (attempt - 1))

    def _later(self, verb: str, path: str, found: str) -> TryAgain:
        return TryAgain(
            f"GitHub did not answer {verb} {path}", found=self._token.hidden(found), do="run this again later"
        )

    def _said(self, error: Exception) -> str:
        """Why something did not work, in GitHub's words where it has some: hidden first, and cut then."""
        data = getattr(error, "data", None)
        text = data.get("message", "") if isinstance(data, dict) else ""
        if not text:
            text = error.found if isinstance(error, PatchforgeError) else "an answer that is not JSON of the API"
        told = self._token.hidden(f"{getattr(error, 'status', '') if data is not None else ''} {text}".strip())
        return escape.line(told[:_SHOWN])


_ADVICE = {
    401: "renew the token",
    403: "give the token these permissions: contents, pull requests and issues, read and write",
    404: "check the repository's name, and that the token may see it",
    410: "switch issues on in the repository's settings",
}


def _asked_to_wait(error: GithubException) -> float | None:
    """Seconds until a rate limit ends; None when the refusal is about something else."""
    headers = error.headers or {}
    text = str(error.data).lower()
    if error.status not in (403, 429):
        return None
    if (wait := web.seconds_until(headers.get("retry-after", ""))) is not None:
        return wait
    if headers.get("x-ratelimit-remaining") == "0" and "x-ratelimit-reset" in headers:
        return min(max(0.0, int(headers["x-ratelimit-reset"]) - time.time()) + 1, web.DAY)
    if "rate limit" in text or error.status == 429:
        return 60.0
    return None


def _are_rows(rows: Any, check: _Check) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) and check(row) for row in rows)


def _has_id(row: Any) -> bool:
    return isinstance(row, dict) and type(row.get("id")) is int


def _is_comment(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("body", 0), str | None)


def _is_issue(row: Any) -> bool:
    texts = isinstance(row, dict) and isinstance(row.get("state"), str) and isinstance(row.get("body", 0), str | None)
    number = row.get("number") if texts else None
    return type(number) is int and 0 < number < 1 << 53 and isinstance(row.get("title"), str | None)


def _is_pull(row: Any) -> bool:
    head = row.get("head") if _is_issue(row) and isinstance(row.get("title"), str) else None
    return isinstance(head, dict) and isinstance(head.get("ref"), str) and isinstance(head.get("repo"), dict | None)


def _published(row: Mapping[str, Any]) -> GitHubRelease:
    """A release; with what is odd about it where something is, and then without its text."""
    tag, title, notes, flag = (row.get(key) for key in ("tag_name", "name", "body", "prerelease"))
    shown = escape.line(str(tag))[:_LONGEST_TAG]
    when = _date(row.get("published_at") or row.get("created_at"))
    odd = ""
    if not isinstance(tag, str) or tag != shown or not tag.strip():
        odd = "its name is not one that a tag can have"
    elif not isinstance(title, str | None) or not isinstance(notes, str | None) or not isinstance(flag, bool):
        odd = "GitHub's answer about it is malformed"
    elif when is None:
        odd = "GitHub does not say when it was published"
    if odd or when is None:
        return GitHubRelease(shown, "", "", prerelease=True, published=datetime.fromtimestamp(0, UTC), odd=odd)
    return GitHubRelease(shown, str(title or ""), str(notes or ""), bool(flag), when)


def _date(stamp: object) -> datetime | None:
    """A date of this century and the next; None for anything else."""
    try:
        when = datetime.fromisoformat(str(stamp))
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)) if 2000 <= when.year < 2200 else None


def _pull(row: Mapping[str, Any]) -> Pull:
    return Pull(
        int(row["number"]),
        row["head"]["ref"],
        row["state"],
        bool(row.get("merged_at")),
        row["title"],
        row["body"] or "",
    )


def _issue(row: Mapping[str, Any]) -> Issue:
    return Issue(int(row["number"]), row["state"], row.get("title") or "", row["body"] or "")
