"""No secret leaves its origin; no link or redirect leads where it should not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchforge import web
from patchforge.bot.notify import Api, notify
from patchforge.bot.repository import Repository
from patchforge.bot.token import Token, refuse_secrets
from patchforge.errors import Damaged, PatchforgeError
from patchforge.hashes.pypi import downloaded_hash, listed_files, package_files
from tests.web.clients import CLIENTS, TOKEN, WITH_TOKEN, forge, limited
from tests.web.hostile import Hostile, answers, http, in_turn, leads, serving

ELSEWHERE = (
    "http://127.0.0.1:{port}/x",  # another port
    "http://localhost:{port}/x",  # another name of the same machine
    "//127.0.0.1:{port}/x",
    "http://LOCALHOST:{port}/x",
    "http://[::1]:{port}/x",
    "https://127.0.0.1:{port}/x",  # another scheme
    "http://someone@127.0.0.1:{port}/x",
)
PAGE = '<a href="{url}/kit-1.0.zip">kit-1.0.zip</a>'


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch)


@pytest.fixture
def second() -> Iterator[Hostile]:
    """The origin that nothing should reach with a secret."""
    with serving(answers([])) as server:
        yield server


def none_sent(second: Hostile) -> None:
    assert second.asked == []


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
@pytest.mark.parametrize("client", WITH_TOKEN)
def test_a_redirect_elsewhere_gets_no_token(
    client: str, status: str, second: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in ELSEWHERE:
        with serving(leads(target.format(port=second.port), status)) as first, pytest.raises(Damaged):
            CLIENTS[client](first.url, monkeypatch)
        assert f"Authorization: {'Bearer' if client == 'notify' else 'token'} {TOKEN}" in first.asked[0]
    none_sent(second)


@pytest.mark.parametrize("target", [*ELSEWHERE, "file:///etc/passwd", "http://127.0.0.1:0/", "\\\\127.0.0.1:{port}\\x"])
def test_a_next_page_elsewhere_is_not_asked_for(target: str, second: Hostile) -> None:
    link = f'Link: <{target.format(port=second.port)}>; rel="next"'
    with serving(answers([], link)) as first, pytest.raises(Damaged):
        forge(first.url).releases("a/b")
    none_sent(second)


@pytest.mark.parametrize("target", ["/other", "/api/v3x/y", "/api/../secret"])
def test_a_next_page_outside_of_the_api_is_not_asked_for(target: str) -> None:
    with serving(answers([], f'Link: <{target}>; rel="next"')) as first:
        with pytest.raises(Damaged, match="outside of the API"):
            forge(f"{first.url}/api/v3").releases("a/b")
        assert len(first.asked) == 1


@pytest.mark.parametrize(
    "link", ["", ";;;,,<", '<>; rel="next"', 'rel="next"', '<x; rel="next"', '<a>; rel="next"' * 500]
)
def test_odd_links(link: str) -> None:
    with serving(answers([], f"Link: {link}")) as first:
        try:
            assert forge(first.url).releases("a/b") == []
        except PatchforgeError as error:
            assert "\n" not in error.problem  # noqa: PT017
        assert len(first.asked) < 200


def test_a_redirect_inside_the_origin_keeps_the_token_and_the_query() -> None:
    """GitHub's answer for a repository that was renamed."""
    moved = in_turn(leads("/repositories/7/releases?per_page=50&page=2", "301 Moved"), answers([]))
    with serving(moved) as first:
        assert forge(first.url).releases("a/b") == []
    assert first.asked[1].startswith("GET /repositories/7/releases?per_page=50&page=2 ")
    assert TOKEN in first.asked[1]


def test_a_write_to_a_renamed_repository_is_made_again_as_it_is() -> None:
    moved = in_turn(leads("/repositories/7/pulls/1", "307 Moved"), answers({"id": 1}))
    with serving(moved) as first:
        forge(first.url).edit_pull("a/b", 1, body="x")
    assert [line.split()[0] for line in first.asked] == ["PATCH", "PATCH"]


@pytest.mark.parametrize("status", ["301 A", "302 B", "307 D"])
def test_an_indexs_password_goes_along_no_redirect(status: str, second: Hostile) -> None:
    with serving(leads(second.url, status)) as first:
        secret = first.url.replace("//", "//me:s%40crt@")
        with pytest.raises(Damaged) as caught:
            listed_files(f"{secret}/simple", "kit")
    assert "Authorization: Basic" in first.asked[0]
    assert "crt" not in str(caught.value)
    none_sent(second)


def test_an_indexs_password_goes_to_no_file_elsewhere(second: Hostile) -> None:
    second.speech = http(b"data")
    with serving(http(PAGE.format(url=second.url).encode(), kind="text/html")) as first:
        secret = first.url.replace("//", "//me:s%40crt@")
        (file,) = package_files("kit", "1.0", [f"{secret}/simple"])
    assert "crt" not in file.url
    assert len(second.asked) == 1
    assert "authorization" not in second.asked[0].lower()


def test_an_indexs_password_goes_to_its_own_files() -> None:
    with serving(in_turn(http(PAGE.format(url="/files").encode(), kind="text/html"), http(b"data"))) as first:
        (file,) = package_files("kit", "1.0", [f"{first.url.replace('//', '//me:s%40crt@')}/simple"])
    assert ["Authorization: Basic" in request for request in first.asked] == [True, True]
    assert "crt" not in file.url


def test_without_a_secret_a_redirect_is_followed(second: Hostile) -> None:
    second.speech = answers({"files": []})
    with serving(leads(f"{second.url}/kit/")) as first:
        assert listed_files(f"{first.url}/simple", "kit") == []
    assert len(second.asked) == 1


def test_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password nEtRc\ndefault login me password nEtRc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(answers([])) as first:
        forge(first.url).releases("a/b")
        forge(first.url, token="").releases("a/b")
        first.speech = answers({"files": []})
        listed_files(first.url, "kit")
    assert f"Authorization: token {TOKEN}" in first.asked[0]
    assert not [request for request in first.asked[1:] if "authorization" in request.lower()]


def test_what_is_on_this_machine_is_not_asked_through_a_proxy(second: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, second.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(answers([])) as first:
        forge(first.url).releases("a/b")
    assert len(first.asked) == 1
    none_sent(second)


def test_elsewhere_is_asked_through_the_proxy_and_the_proxy_sees_no_token(
    second: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    second.speech = http(b"", "403 No")
    monkeypatch.setenv("https_proxy", second.url)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(PatchforgeError):
        forge("https://forge.invalid").releases("a/b")
    assert [request.split()[:2] for request in second.asked] == [["CONNECT", "forge.invalid:443"]]
    assert "SeCrEt" not in "".join(second.asked)


ADDRESSES = [
    "http://api.example.org",
    "http://192.0.2.1/api",
    "http://10.0.0.1",
    "http://127.0.0.1.example.org",
    "http://localhost.example.org",
    "http://0.0.0.0:8080",
    "http://127.1",
    "ftp://127.0.0.1",
    "file:///tmp/x",
    "https://me:password@example.org",
    "https://ghp_token@example.org",
    "https://@example.org",
    "https://",
    "https:///x",
    "api.example.org",
    "",
    "https://exa mple.org",
    "https://example.org\r\nX: y",
    "https://example.org\\@other.org",
    "https://exämple.org",
    "https://example.org:70000",
    "https://example.org:x",
    "https://[::1",
    "https://-example.org",
    "https://" + "a" * 300,
    "javascript:alert(1)",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_no_token_goes_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PatchforgeError) as caught:
        forge(address)
    assert "password" not in caught.value.problem
    monkeypatch.setenv("GITHUB_API_URL", address)
    if address:  # not set, for GitHub's own
        with pytest.raises(PatchforgeError):
            notify(Api(Token(TOKEN)), ["failure"])


@pytest.mark.parametrize(
    "address", ["https://api.github.com", "https://ghe.example:8443/api/v3", "http://127.0.0.1:8", "http://[::1]:8"]
)
def test_addresses_that_may_be_asked(address: str) -> None:
    assert address.startswith(str(web.origin(address)))


@pytest.mark.parametrize(
    "remote",
    [
        "https://me:p%40ss@h/x.git",
        "https://ghp_abc@h/x.git",
        "HTTPS://ghp_abc@h/x",
        "http://:pass@h/x",
        "ssh://me:pass@h/x",
    ],
)
def test_a_remote_with_a_secret_in_it(remote: str, tmp_path: Path) -> None:
    with pytest.raises(PatchforgeError, match="is not accepted as an address") as caught:
        Repository(remote, "main", tmp_path / "x")
    assert "pass" not in str(caught.value).replace("password", "")
    assert "ghp_abc" not in str(caught.value)


@pytest.mark.parametrize("remote", ["ssh://git@h/x.git", "git@h:x.git", "/a@b:c/x", "https://h/a@b:c", "."])
def test_a_remote_with_no_secret_in_it(remote: str) -> None:
    refuse_secrets(remote, Token())


@pytest.mark.parametrize(
    ("base", "reference"),
    [
        ("https://a.example/x", "http://a.example/x"),
        ("https://a.example/x", "http://127.0.0.1/x"),
        ("https://a.example/x", "https://127.0.0.1/x"),
        ("https://a.example/x", "https://localhost/x"),
        ("https://a.example/x", "https://sub.localhost./x"),
        ("https://a.example/x", "https://10.1.2.3/x"),
        ("https://a.example/x", "https://192.168.0.1/x"),
        ("https://a.example/x", "https://169.254.169.254/x"),
        ("https://a.example/x", "https://[fd00::1]/x"),
        ("https://a.example/x", "https://[::ffff:127.0.0.1]/x"),
        ("https://a.example/x", "https://2130706433/x"),
        ("https://a.example/x", "https://0177.0.0.1/x"),
        ("https://a.example/x", "https://0.0.0.0/x"),
        ("https://10.0.0.1/x", "https://127.0.0.1/x"),
        ("https://a.example/x", "file:///etc/passwd"),
        ("https://a.example/x", "data:text/plain,x"),
        ("https://a.example/x", "https://me@b.example/x"),
        ("https://a.example/x", "https://b.exämple/x"),
    ],
)
def test_where_a_strangers_address_may_not_lead(base: str, reference: str) -> None:
    with pytest.raises(Damaged, match="not followed"):
        web.followed(base, reference, secret=False)


@pytest.mark.parametrize(
    ("reference", "address"),
    [
        ("https://files.example/x#sha256=1", "https://files.example/x"),
        ("../y b", "https://a.example/y%20b"),
        ("/ü?q=1", "https://a.example/%C3%BC?q=1"),
        ("HTTPS://A.example:443/z", "https://A.example:443/z"),
    ],
)
def test_where_a_strangers_address_may_lead(reference: str, address: str) -> None:
    assert web.followed("https://a.example/x/", reference, secret=False) == address


@pytest.mark.parametrize("page", ["html", "json"])
@pytest.mark.parametrize(
    "link",
    [
        "file:///etc/kit-1.0.zip",
        "file:/etc/kit-1.0.zip",
        "FILE:///etc/kit-1.0.zip",
        "file://127.0.0.1/kit-1.0.zip",
        "ftp://127.0.0.1/kit-1.0.zip",
        "http://192.0.2.1/kit-1.0.zip",
        "http://me:secret@127.0.0.1/kit-1.0.zip",
        "http://[/kit-1.0.zip",
    ],
)
def test_links_of_an_index_page(page: str, link: str) -> None:
    if page == "html":
        speech = http(f'<a href="{link}">x</a>'.encode(), kind="text/html")
    else:
        speech = answers({"files": [{"filename": "kit-1.0.zip", "url": link, "hashes": {}}]}, "X: y")
    with serving(speech) as server, pytest.raises(Damaged) as caught:
        package_files("kit", "1.0", [server.url])
    assert server.url in caught.value.problem
    assert "secret" not in str(caught.value)


def test_a_file_index_leads_to_its_own_files_alone(tmp_path: Path) -> None:
    (tmp_path / "simple" / "kit").mkdir(parents=True)
    page = tmp_path / "simple" / "kit" / "index.html"
    (tmp_path / "outside-1.0.zip").write_bytes(b"x")
    (tmp_path / "simple" / "kit-1.0.zip").write_bytes(b"x")
    (tmp_path / "simple" / "link-1.0.zip").symlink_to(tmp_path / "outside-1.0.zip")
    index = (tmp_path / "simple").as_uri()
    outside = (tmp_path / "outside-1.0.zip").as_uri()
    up = ("../../outside-1.0.zip", "../%2e%2e/outside-1.0.zip", "../link-1.0.zip", "../a%00b/x-1.0.zip")
    for link in (*up, outside, "file:///etc/x-1.0.zip", "file://elsewhere/x-1.0.zip"):
        page.write_text(f'<a href="{link}">x</a>')
        with pytest.raises(PatchforgeError):
            listed_files(index, "kit")
    page.write_text('<a href="../kit-1.0.zip">x</a><a href="https://files.example/other-1.0.zip">x</a>')
    assert package_files("kit", "1.0", [index])[0].provenance == "computed"


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would wait for ever, a device would never end."""
    (tmp_path / "kit").mkdir()
    os.mkfifo(tmp_path / "kit" / "index.html")
    with pytest.raises(PatchforgeError, match="cannot be read"):
        listed_files(tmp_path.as_uri(), "kit")
    with pytest.raises(PatchforgeError, match="cannot be read"):
        downloaded_hash("file:///dev/zero")
    (tmp_path / "kit" / "index.html").unlink()
    (tmp_path / "kit" / "index.html").write_bytes(b" " * (1 << 17))
    with pytest.raises(Damaged, match="too much"):
        listed_files(tmp_path.as_uri(), "kit")


def test_names_that_a_page_may_not_give(tmp_path: Path) -> None:
    odd = [
        "../kit-1.0.zip",
        "a/kit-1.0.zip",
        "kit-1.0\n.zip",
        "kit-1.0\x1b[31m.zip",
        "",
        "k" * 300 + ".zip",
        "kit\\1.0.zip",
    ]
    files = [{"filename": name, "url": f"x/{number}.zip", "hashes": {}} for number, name in enumerate(odd)]
    with serving(
        http(json.dumps({"files": [*files, {"filename": "kit-2.0.zip", "url": "x", "hashes": {}}]}).encode())
    ) as server:
        assert [each["filename"] for each in listed_files(server.url, "kit")] == ["kit-2.0.zip"]
