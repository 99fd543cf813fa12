"""``services.patchforge-bot``: the timer, the token, and wrong configurations."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from patchforge.cli import parser
from tests.nix.sandbox import Miniature
from tests.nix.test_modules import BOT, evaluation, needs_systemd, rendered, unit, words

ENOUGH = 'repository = "someone/patchforge"; tokenFile = "/run/secrets/bot";'


def config(text: str = ENOUGH) -> str:
    return f"{{ services.patchforge-bot = {{ enable = true; {text} }}; }}"


def bot(mini: Miniature, more: str = "") -> dict[str, Any]:
    return unit(mini, config(f"{ENOUGH} {more}"), BOT)


def timer(mini: Miniature, more: str = "") -> dict[str, Any]:
    rest = "config.systemd.timers.patchforge-bot"
    return dict(mini.nix.evaluate(evaluation(mini, config(f"{ENOUGH} {more}"), rest)))


def test_the_command_line_is_one_that_the_bot_takes(mini: Miniature) -> None:
    given = words(bot(mini, 'extraArgs = [ "--base" "next" "--max-open=2" ];'))
    assert given[0].endswith("/bin/patchforge")
    options = parser().parse_args(given[1:])
    assert (options.command, options.repository, options.base) == ("bot", "someone/patchforge", "next")
    assert (options.max_open, options.token_file) == (2, None)


def test_a_second_service_proposes_node_packs(mini: Miniature) -> None:
    rest = "lib.mapAttrs (_: one: { inherit (one) after serviceConfig; }) config.systemd.services"
    units = mini.nix.evaluate(evaluation(mini, config(ENOUGH + 'extraArgs = [ "--base" "next" ];'), rest))
    assert sorted(units) == ["patchforge-bot", "patchforge-bot-nodes"]
    first, second = units.values()
    options = parser().parse_args(words(second)[1:])
    assert (options.command, options.action, options.packs, options.base) == ("packs", "bot", [], "next")
    assert parser().parse_args(words(first)[1:]).command == "bot"
    assert "patchforge-bot.service" in second["after"]  # one at a time
    assert first["serviceConfig"]["CacheDirectory"] != second["serviceConfig"]["CacheDirectory"]
    same = {"LoadCredential", "DynamicUser", "SuccessExitStatus", "ProtectSystem", "SystemCallFilter"}
    assert all(first["serviceConfig"][key] == second["serviceConfig"][key] for key in same)
    timers = "lib.attrNames config.systemd.timers"
    assert mini.nix.evaluate(evaluation(mini, config(), timers)) == ["patchforge-bot", "patchforge-bot-nodes"]
    assert mini.nix.evaluate(evaluation(mini, config(ENOUGH + "nodes = false;"), timers)) == ["patchforge-bot"]


def test_the_token_is_a_credential_and_nowhere_else(mini: Miniature) -> None:
    service = bot(mini)
    assert service["serviceConfig"].pop("LoadCredential") == ["github-token:/run/secrets/bot"]
    assert "/run/secrets" not in str(service)


def test_the_clone_outlives_the_run_and_trying_later_is_no_failure(mini: Miniature) -> None:
    described = bot(mini)
    service = described["serviceConfig"]
    assert described["environment"]["PATCHFORGE_CACHE"] == f"/var/cache/{service['CacheDirectory']}"
    assert (service["Type"], service["SuccessExitStatus"]) == ("oneshot", [75])
    assert (described["wantedBy"], described["wants"], described["after"]) == ([], *[["network-online.target"]] * 2)


def test_steps_find_the_dependencies(mini: Miniature) -> None:
    """The steps run ``python -m patchforge`` in a clone; without the packages' folder that ends at its imports."""
    folder = bot(mini)["environment"]["PYTHONPATH"]
    assert folder.startswith(str(mini.nix.folder / "store"))
    assert folder.endswith("/site-packages")
    other = bot(mini, "package = pkgs.zlib;")
    assert "PYTHONPATH" not in other["environment"]


def test_the_timer(mini: Miniature) -> None:
    assert timer(mini)["wantedBy"] == ["timers.target"]
    assert timer(mini, 'schedule = "Mon 06:00";')["timerConfig"] == {
        "OnCalendar": "Mon 06:00",
        "Persistent": True,
        "RandomizedDelaySec": "30min",
    }


BAD = {
    "an owned flag": ('tokenFile = "/x"; extraArgs = [ "--token-file=/y" ];', "there are options"),
    "packs": ('tokenFile = "/x"; extraArgs = [ "--nodes" ];', "there is an option (nodes)"),
    "tests": ('tokenFile = "/x"; extraArgs = [ "--test" ];', "patchforge test"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_combinations_fail_with_advice(mini: Miniature, name: str) -> None:
    text, advice = BAD[name]
    rest = "map (x: x.message) (lib.filter (x: !x.assertion) config.assertions)"
    failed = mini.nix.evaluate(evaluation(mini, config(f'repository = "a/b"; {text}'), rest))
    assert len(failed) == 1
    assert failed[0].startswith("services.patchforge-bot: ")
    assert advice in failed[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('tokenFile = "/x";', "services.patchforge-bot.repository"),
        ('repository = "a/b";', "services.patchforge-bot.tokenFile"),
        ('repository = "https://github.com/a/b"; tokenFile = "/x";', "services.patchforge-bot.repository"),
        ('repository = "a/b"; tokenFile = "token";', "services.patchforge-bot.tokenFile"),
        ('repository = "a/b"; tokenFile = "${pkgs.zlib}/token";', "absolute path not in the Nix store"),
        (f"{ENOUGH} token = ''x'';", "services.patchforge-bot.token' does not exist"),
    ],
)
def test_what_is_missing_or_wrong_is_named(mini: Miniature, text: str, complaint: str) -> None:
    assert complaint in mini.nix.refused(evaluation(mini, config(text), f"builtins.toJSON {BOT}"))


@needs_systemd
@pytest.mark.parametrize(("schedule", "accepted"), [("*-*-* 05:17:00", True), ("Mon 06:00", True), ("soon", False)])
def test_systemd_accepts_timer_and_service(mini: Miniature, tmp_path: Path, schedule: str, *, accepted: bool) -> None:
    settings_of_timer = timer(mini, f'schedule = "{schedule}";')["timerConfig"]
    settings = [f"{key}={'true' if value is True else value}" for key, value in settings_of_timer.items()]
    (tmp_path / "one.timer").write_text("\n".join(["[Timer]", *settings, ""]))
    service = rendered(bot(mini)).replace("ExecStart=", f"ExecStart={shutil.which('true')} ")
    (tmp_path / "one.service").write_text(service)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "one.timer"],
        cwd=tmp_path,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "one." in line]
    assert (complaints == []) is accepted, done.stderr
