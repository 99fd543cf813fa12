"""fetch-models.py CONFIGURATION: downloads models by hash into a folder, and keeps the folder within a size.

A file is there under its name only when its hash is right. Standard library only: any Python will do.
"""

# ruff: noqa: INP001 - a script
from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHUNK = 1 << 20
TIMEOUT = 60  #: seconds without a byte


class SameHost(urllib.request.HTTPRedirectHandler):
    """A token is for the host that it was given for; storage that the host sends us on to gets none."""

    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        made = super().redirect_request(req, *rest)
        if made is not None and urlsplit(made.full_url)[:2] != urlsplit(req.full_url)[:2]:
            made.remove_header("Authorization")
        return made


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return "sha256-" + base64.b64encode(digest.digest()).decode()


def request_for(model: dict[str, Any], credentials: str | None) -> urllib.request.Request:
    request = urllib.request.Request(model["url"], headers={"User-Agent": "patchforge"})  # noqa: S310 - https, by its type
    if model["credential"] is not None:
        token = Path(credentials or "", model["credential"]).read_text("utf-8").strip()
        request.add_header("Authorization", f"Bearer {token}")
    return request


def fetch(model: dict[str, Any], folder: Path, credentials: str | None) -> str | None:
    """What is wrong, or None. A file that is right already is only looked at once, and marked by a file beside it."""
    target = folder / model["path"]
    mark, part = target.with_name(f".{target.name}.hash"), target.with_name(f".{target.name}.part")
    if target.is_file() and mark.is_file() and mark.read_text() == model["hash"]:
        return None
    if not (target.is_file() and digest_of(target) == model["hash"]):
        target.parent.mkdir(parents=True, exist_ok=True)
        opener = urllib.request.build_opener(SameHost)
        try:
            with opener.open(request_for(model, credentials), timeout=TIMEOUT) as answer, part.open("wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
        except (OSError, urllib.error.URLError) as error:
            return f"{model['path']}: cannot be downloaded from {model['url']}: {error}"
        if (digest := digest_of(part)) != model["hash"]:
            part.unlink()
            return f"{model['path']}: expected {model['hash']}, found {digest}"
        part.replace(target)
    mark.write_text(model["hash"])
    print(f"{model['path']}: there", flush=True)
    return None


def trim(folder: Path, listed: set[Path], limit: int) -> str | None:
    """Removes what is no longer listed, the least recently used first, until the rest fits."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    total = sum(path.stat().st_size for path in files)
    spare = [path for path in files if path not in listed and not path.name.startswith(".")]
    for path in sorted(spare, key=lambda each: (each.stat().st_atime_ns, each)):
        if total <= limit:
            return None
        total -= path.stat().st_size
        path.unlink()
        path.with_name(f".{path.name}.hash").unlink(missing_ok=True)
        print(f"{path.relative_to(folder)}: removed, to stay below {limit} bytes", flush=True)
    return None if total <= limit else f"the listed models take {total} bytes, and the limit is {limit}"


def main(configuration: str) -> int:
    about = json.loads(Path(configuration).read_text("utf-8"))
    folder = Path(about["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    problems = [problem for model in about["models"] if (problem := fetch(model, folder, credentials))]
    if about["limit"] is not None:
        listed = {folder / model["path"] for model in about["models"]}
        problems += filter(None, [trim(folder, listed, about["limit"])])
    if problems:
        print(f"{len(problems)} model(s) are not there:", *problems, sep="\n  ", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
