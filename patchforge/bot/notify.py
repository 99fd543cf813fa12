"""``python3 -m patchforge.bot.notify RESULT…``: an issue when the scheduled run has failed twice, closed when it works.

RESULT is what GitHub calls the result of each job of this run. It needs the standard library alone, and so still works
when what failed is the installation of everything else.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from patchforge.bot.token import Token, find_token
from patchforge.bot.words import read_marker, with_marker
from patchforge.errors import Exit, PatchforgeError, TryAgain

WORKFLOW = "update.yml"
_FINE = ("success", "skipped")
_SAID = {"project": "update", "about": "failed twice"}
_TITLE = "The scheduled update failed twice"
_SECONDS = 30


class Api:
    """What is needed of GitHub's API, for the repository that the environment names."""

    def __init__(self, token: Token) -> None:
        address = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
        self._top, self._token = f"{address}/repos/{os.environ['GITHUB_REPOSITORY']}", token

    def ask(self, verb: str, path: str, data: object = None) -> Any:
        """The answer. PatchforgeError for a refusal, TryAgain for anything else that goes wrong."""
        headers = {"Accept": "application/vnd.github+json", "Authorization": f"Bearer {self._token.text}"}
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"{self._top}/{path}", body, headers, method=verb)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - GitHub's own address
                return json.load(answer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = self._token.hidden(str(error))
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            raise (PatchforgeError if refused else TryAgain)(f"GitHub did not take {verb} {path}", found=said) from None


def notify(api: Api, results: Sequence[str]) -> str:
    """Opens or closes the issue where that is due; what was done."""
    known = [one for one in api.ask("GET", "issues?state=open&labels=patchforge&per_page=100") if _is_ours(one)]
    if all(one in _FINE for one in results):
        for issue in known:
            api.ask("PATCH", f"issues/{issue['number']}", {"state": "closed"})
        return f"closed #{known[0]['number']}" if known else "this run is fine"
    if known:
        return f"#{known[0]['number']} says it already"
    found = api.ask("GET", f"actions/workflows/{WORKFLOW}/runs?event=schedule&status=completed&per_page=1")
    before = next(iter(found["workflow_runs"]), {"conclusion": "success"})
    if before["conclusion"] in _FINE:
        return "the run before was fine"
    server, name, number = (os.environ[f"GITHUB_{part}"] for part in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    run = f"{server}/{name}/actions/runs/{number}"
    text = f"Nothing is tracked until it works again. The two logs: {before['html_url']} and {run}"
    issue = {"title": _TITLE, "body": with_marker(text, **_SAID), "labels": ["patchforge"]}
    return f"opened #{api.ask('POST', 'issues', issue)['number']}"


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
