"""``python3 -m patchforge.bot.notify RESULT…``: an issue when the scheduled run has failed twice, closed when it works.

RESULT is what GitHub calls the result of each job of this run. It needs the standard library alone, and so still works
when what failed is the installation of everything else.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from patchforge import web
from patchforge.bot.model import read_marker, with_marker
from patchforge.bot.token import Token, find_token
from patchforge.errors import Damaged, Exit, PatchforgeError

WORKFLOW = "update.yml"
_FINE = ("success", "skipped")
_MOST = 3  #: issues that are closed; there is one, or somebody opened a second
_SAID = {"project": "update", "about": "failed twice"}
_TITLE = "The scheduled update failed twice"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


class Api:
    """What is needed of GitHub's API, for the repository that the environment names."""

    def __init__(self, token: Token, limits: web.Limits | None = None) -> None:
        address = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
        repository = os.environ.get("GITHUB_REPOSITORY", "")
        if not _REPOSITORY.fullmatch(repository):
            raise PatchforgeError(
                "GITHUB_REPOSITORY does not name a repository",
                expected="OWNER/NAME",
                do="set it, as GitHub's workflows do",
            )
        self._top, self._token = f"{address.rstrip('/')}/repos/{repository}", token
        self._limits = limits or web.Limits(8 << 20, web.SECONDS)

    def ask(self, verb: str, path: str, data: object = None) -> Any:
        """The answer, without the token. PatchforgeError for a refusal, TryAgain and Damaged as web.py has them."""
        headers = {"Accept": "application/vnd.github+json"}
        headers |= {"Authorization": f"Bearer {self._token.text}"} if self._token.text else {}
        body = None if data is None else json.dumps(self._token.hidden_in(data)).encode()
        try:
            with web.opened(
                f"{self._top}/{path}", verb=verb, headers=headers, data=body, limits=self._limits
            ) as answer:
                web.require(answer, 200, 201)
                return self._token.hidden_in(web.parsed(answer.whole(), answer.url))
        except PatchforgeError as error:
            said = self._token.hidden(f"{error.problem}: {error.found}" if error.found else error.problem)
            raise type(error)(f"GitHub did not take {verb} {path}", found=said, do=error.do) from None


def notify(api: Api, results: Sequence[str]) -> str:
    """Opens or closes the issue where that is due; what was done. Damaged for answers that are not the API's."""
    try:
        return _notify(api, results)
    except (KeyError, TypeError, AttributeError):
        raise Damaged("GitHub's answer is not what its API gives", do="look at the run's log") from None


def _notify(api: Api, results: Sequence[str]) -> str:
    known = [
        _number(row) for row in api.ask("GET", "issues?state=open&labels=patchforge&per_page=100") if _is_ours(row)
    ]
    if all(result in _FINE for result in results):
        for number in known[:_MOST]:
            api.ask("PATCH", f"issues/{number}", {"state": "closed"})
        return f"closed #{known[0]}" if known else "this run is fine"
    if known:
        return f"#{known[0]} says it already"
    runs = api.ask("GET", f"actions/workflows/{WORKFLOW}/runs?event=schedule&status=completed&per_page=1")
    before = next(iter(runs["workflow_runs"]), {"conclusion": "success"})
    if before["conclusion"] in _FINE:
        return "the run before was fine"
    logs = f"{_log(before['html_url'])} and {_runs()}{os.environ.get('GITHUB_RUN_ID', '')}"
    text = f"Nothing is tracked until it works again. The two logs: {logs}"
    issue = {"title": _TITLE, "body": with_marker(text, **_SAID), "labels": ["patchforge"]}
    return f"opened #{_number(api.ask('POST', 'issues', issue))}"


def _number(issue: dict[str, Any]) -> int:
    number = issue["number"]
    if type(number) is not int or not 0 < number < 1 << 53:
        raise TypeError
    return number


def _log(url: object) -> str:
    address = url if isinstance(url, str) else ""
    return address if re.fullmatch(rf"{re.escape(_runs())}[0-9]{{1,20}}", address) else "one that GitHub does not name"


def _runs() -> str:
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    return f"{server}/{os.environ['GITHUB_REPOSITORY']}/actions/runs/"


def _is_ours(issue: dict[str, Any]) -> bool:
    return "pull_request" not in issue and read_marker(issue["body"] or "") == _SAID


def main(results: Sequence[str]) -> int:
    try:
        print(notify(Api(find_token()), results))
    except PatchforgeError as error:
        print(error, file=sys.stderr)
        return int(error.status)
    return int(Exit.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
