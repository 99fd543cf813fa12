"""Of a long function only the functions with a needle are parsed, and edits stand where they would stand anyhow."""

from __future__ import annotations

import libcst as cst
import pytest

from patchforge.engine.blocks import SourceFile
from patchforge.rules import transforms
from tests.support import converted

LOST_DEVICE = next(rule for rule in transforms() if rule.id == "lost-device")
ROUTE = """\
        @routes.get("/system_stats")
        async def system_stats(request):
            stats = {}
            return web.json_response(stats)
"""
FILLING = "".join(f"        x{number} = '\N{SNOWMAN}'\n" for number in range(150))


def server(before: str, behind: str) -> str:
    return f"class Server:\n    @decorated\n    def __init__(\n        self, routes\n    ):\n{before}{ROUTE}{behind}"


@pytest.mark.parametrize("before", ["", FILLING])
@pytest.mark.parametrize("behind", ["", FILLING])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_edit_stands_in_its_place(before: str, behind: str, end: str) -> None:
    text = server(before, behind)
    result = converted("server.py", text.replace("\n", end).encode(), (LOST_DEVICE,)).decode()
    wanted = text.replace("json_response(stats)", "json_response(patchforge_xpu.lost_device(stats))")
    assert result == f"from comfy import patchforge_xpu\n{wanted}".replace("\n", end)


def test_the_rest_of_a_long_function_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    original = cst.parse_module

    def parse(text: str) -> cst.Module:
        parsed.append(text)
        return original(text)

    monkeypatch.setattr(cst, "parse_module", parse)
    converted("server.py", server(FILLING, FILLING).encode(), (LOST_DEVICE,))
    assert "x1 =" not in "".join(parsed)
    assert "json_response" in "".join(parsed)


def test_what_stands_outside_of_the_functions_in_it_is_looked_at() -> None:
    text = server(FILLING, "        routes.get('/system_stats')\n")
    (block,) = SourceFile(text.encode()).blocks
    (init,) = block.functions
    assert b"/system_stats" in SourceFile(text.encode()).rest(init)
    assert [inner.header for inner in init.functions] == [
        "class Server:\n    def __init__(\n        self, routes\n    ):\n"
    ]
