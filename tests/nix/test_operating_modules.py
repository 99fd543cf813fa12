"""The door, monitoring, health, validation and upkeep on NixOS: what the options become."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from patchforge.cli import parser
from patchforge.door import render, settings
from tests.door.nginx import needs_nginx
from tests.nix.sandbox import Miniature
from tests.nix.test_modules import cases, evaluation, good, words  # noqa: F401 - fixtures
from tests.support import ROOT

DOOR = """{ services.comfyui-xpu = { enable = true; server.port = 9000; proxy = { enable = true;
  domain = "studio.example.org"; passwordsFile = "/run/secrets/passwords"; tokensFile = "/run/secrets/tokens";
  users = { alice = "admin"; bob = "viewer"; }; %s }; }; }"""
#: This checkout's own patchforge as a package.
PACKAGE = (
    "package = pkgs.writeShellScriptBin ''patchforge'' "
    f"''exec env PYTHONPATH={':'.join([str(ROOT), *sys.path])} {sys.executable} -m patchforge \"$@\"'';"
)


def given(unit: dict[str, Any]) -> Any:
    """What patchforge makes of the command line of a unit: no option that it does not know."""
    line = words(unit)
    assert line[0].endswith("/bin/patchforge")
    return parser().parse_args(line[1:])


def door(mini: Miniature, more: str = "") -> dict[str, Any]:
    rest = (
        "{ failed = lib.filter (x: !x.assertion) config.assertions;"
        " inherit (config.networking.firewall) allowedTCPPorts;"
        " credentials = config.systemd.services.nginx.serviceConfig.LoadCredential;"
        " inherit (config.services.nginx) commonHttpConfig mapHashBucketSize; hosts = lib.mapAttrs (_: host: {"
        " inherit (host) forceSSL enableACME sslTrustedCertificate extraConfig; })"
        " config.services.nginx.virtualHosts; }"
    )
    return dict(mini.nix.evaluate(evaluation(mini, DOOR % more, rest)))


def test_the_door_is_nginx_with_secrets_that_systemd_reads(mini: Miniature) -> None:
    nginx = door(mini)
    assert nginx["failed"] == []
    assert nginx["allowedTCPPorts"] == [80, 443]
    assert nginx["credentials"] == ["door-passwords:/run/secrets/passwords", "door-tokens:/run/secrets/tokens"]
    host = nginx["hosts"]["studio.example.org"]
    assert (host["forceSSL"], host["enableACME"], host["sslTrustedCertificate"]) == (True, True, None)
    assert host["extraConfig"].endswith("-patchforge-door/comfyui.conf;")
    assert "/run/secrets" not in json.dumps({**nginx, "credentials": []})
    by_certificate = door(mini, 'clientCA = "/etc/studio-ca.pem"; openFirewall = false;')
    # With ACME, nixpkgs would have nginx trust users' certificates of the CA that signed the server's.
    assert by_certificate["hosts"]["studio.example.org"]["sslTrustedCertificate"] == "/etc/studio-ca.pem"
    assert by_certificate["allowedTCPPorts"] == []


@needs_nginx
def test_the_door_is_what_the_command_writes(mini: Miniature, tmp_path: Path) -> None:
    """Built by Nix, with the settings that lie in the store; nginx takes it where NixOS puts it."""
    more = f'rate = 5; packs = [ "video-helper-suite" ]; {PACKAGE}'
    included = "pkgs.writeText ''included'' config.services.nginx.commonHttpConfig"
    line = mini.nix.build(evaluation(mini, DOOR % more, included)).read_text()
    folder = Path(line.removeprefix("include ").removesuffix("/http.conf;"))
    assert {path.name for path in folder.iterdir()} == {"http.conf", "comfyui.conf"}
    said = {
        "format": 1,
        "comfyui": {"domain": "studio.example.org", "address": "http://127.0.0.1:9000"},
        "passwords": "/run/credentials/nginx.service/door-passwords",
        "tokens": "/run/credentials/nginx.service/door-tokens",
        "rate": 5,
        "packs": ["video-helper-suite"],
        "users": {"alice": "admin", "bob": "viewer"},
    }
    (tmp_path / "door.json").write_text(json.dumps(said))
    made = settings.load(tmp_path / "door.json")
    parts = {part: (folder / f"{part}.conf").read_bytes() for part in ("http", "comfyui")}
    assert parts == {part: render.rendered(made, part) for part in parts}
    for name in ("door-passwords", "door-tokens"):
        (tmp_path / name).write_text("")
    for part, data in parts.items():
        (tmp_path / f"{part}.conf").write_bytes(data.replace(b"/run/credentials/nginx.service", str(tmp_path).encode()))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; events {{ }}\nhttp {{ map_hash_bucket_size 128; access_log off;"
        f" include {tmp_path}/http.conf; server {{ listen 127.0.0.1:1443; include {tmp_path}/comfyui.conf; }} }}\n"
    )
    command = ["nginx", "-t", "-p", str(tmp_path), "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wrong_door_fails_when_the_system_is_built(mini: Miniature) -> None:
    more = f'networks = [ "everywhere" ]; {PACKAGE}'
    included = "pkgs.writeText ''included'' config.services.nginx.commonHttpConfig"
    assert "expected a network" in mini.nix.failing(evaluation(mini, DOOR % more, included))


def test_health_is_watched_and_a_failure_starts_it_again(good: dict[str, Any]) -> None:  # noqa: F811
    units = good["watched"]["units"]
    unit, options = units["comfyui-xpu-health"], given(units["comfyui-xpu-health"])
    assert (options.command, options.deep, options.watch, options.failures) == ("health", True, 20.0, 9)
    assert (options.url, options.state) == ("http://127.0.0.1:8188", "/var/lib/comfyui-xpu-watch")
    assert options.disk == ["/var/lib/comfyui-xpu"]
    service = unit["serviceConfig"]
    assert service["BindReadOnlyPaths"] == ['-"/var/lib/private/comfyui-xpu"']
    assert (service["UMask"], service["StateDirectoryMode"]) == ("0022", "0755")
    main = units["comfyui-xpu"]["serviceConfig"]
    assert main["StateDirectory"] == ['"comfyui-xpu"', '"comfyui-xpu-watch"']
    assert main["ReadOnlyPaths"] == ['"/var/lib/private/comfyui-xpu-watch"']
    assert (service["Type"], service["Restart"]) == ("notify", "on-success")
    # It ends, or is ended, later than its looks find a failure; and only what it found is one.
    assert service["WatchdogSec"] > 20 * 9
    assert service["SuccessExitStatus"] == ["2 65 69 70 74 75"]
    assert unit["unitConfig"] == {"BindsTo": "comfyui-xpu.service", "OnFailure": "comfyui-xpu-recover.service"}
    assert (unit["wantedBy"], unit["after"]) == (["comfyui-xpu.service"], ["comfyui-xpu.service"])
    recover = words(units["comfyui-xpu-recover"])
    assert recover[-3:] == ["--no-block", "try-restart", "comfyui-xpu.service"]
    assert units["comfyui-xpu-recover"]["unitConfig"] == {"StartLimitIntervalSec": "1h", "StartLimitBurst": 5}


def test_each_start_is_validated(good: dict[str, Any]) -> None:  # noqa: F811
    units = good["watched"]["units"]
    options = given(units["comfyui-xpu-validate"])
    assert (options.command, options.allow_cpu, options.state) == ("validate", False, "/var/lib/comfyui-xpu-watch")
    assert options.python.endswith("/bin/python")
    assert units["comfyui-xpu-validate"]["wantedBy"] == ["comfyui-xpu.service"]
    # A process that was killed is started again, and with it what its start wants.
    assert units["comfyui-xpu"]["serviceConfig"]["Restart"] == "on-failure"
    small = good["watched, on the CPU of a small network"]["units"]
    options = given(small["comfyui-xpu-validate"])
    assert (options.allow_cpu, options.url) == (True, "http://192.168.1.2:8188")
    assert "192.168.1.2" in small["comfyui-xpu-health"]["serviceConfig"]["IPAddressAllow"]
    assert "DeviceAllow" not in small["comfyui-xpu-health"]["serviceConfig"]


def test_those_who_watch_are_the_user_that_is_watched(good: dict[str, Any]) -> None:  # noqa: F811
    """So that they see its processes, and write into one folder."""
    for case in ("watched", "kept tidy", "monitoring", "the exporter alone"):
        units = {name: each for name, each in good[case]["units"].items() if name.startswith("comfyui-xpu")}
        for name, each in units.items():
            if name not in {"comfyui-xpu-recover", "comfyui-xpu-second"}:
                assert each["serviceConfig"]["User"] == "comfyui-xpu", (case, name)
            if name not in {"comfyui-xpu", "comfyui-xpu-recover", "comfyui-xpu-second"}:
                assert any("comfyui-xpu-watch" in folder for folder in each["serviceConfig"]["StateDirectory"])


def test_upkeep_runs_by_a_timer(good: dict[str, Any]) -> None:  # noqa: F811
    machine = good["kept tidy"]
    options = given(machine["units"]["comfyui-xpu-maintenance"])
    assert (options.folder, options.output_age, options.output_size) == ("/var/lib/comfyui-xpu", 90, 200 << 30)
    assert (options.cache, options.model_age, options.remove_models) == (["/var/cache/comfyui-xpu"], 180, False)
    timer = machine["timers"]["comfyui-xpu-maintenance"]
    assert (timer["wantedBy"], timer["timerConfig"]["Persistent"]) == (["timers.target"], True)
    home = machine = good["kept tidy at home"]["units"]["comfyui-xpu-maintenance"]["serviceConfig"]
    assert home["BindPaths"] == ['"/home/alice/comfyui"']
    assert machine["User"] == "alice"


def test_monitoring_is_nixpkgs_own_with_ours(good: dict[str, Any]) -> None:  # noqa: F811
    machine = good["monitoring"]
    options = given(machine["units"]["comfyui-xpu-exporter"])
    assert options.comfyui == ["http://127.0.0.1:8188", "http://127.0.0.1:8189"]
    assert options.state == ["/var/lib/comfyui-xpu-watch", "/var/lib/comfyui-xpu-second-watch"]
    assert options.disk == ["/var/lib/comfyui-xpu", "/var/lib/comfyui-xpu-second"]
    service = machine["units"]["comfyui-xpu-exporter"]["serviceConfig"]
    assert service["BindReadOnlyPaths"] == [
        f"-/var/lib/private/comfyui-xpu{name}" for name in ("-watch", "", "-second-watch", "-second")
    ]
    assert {"comfyui-xpu.service", "comfyui-xpu-second.service"} <= set(
        machine["units"]["comfyui-xpu-exporter"]["after"]
    )
    assert (options.listen, options.prometheus, options.ollama) == ("127.0.0.1:9188", "http://127.0.0.1:9090", [])
    prometheus = machine["prometheus"]
    assert [job["static_configs"][0]["targets"] for job in prometheus["scrapeConfigs"]] == [
        ["127.0.0.1:9188"],
        ["127.0.0.1:9100"],
    ]
    assert prometheus["ruleFiles"][0].endswith("rules.yml")
    assert prometheus["alertmanager"]["configuration"]["route"] == {"receiver": "nobody"}
    assert {prometheus["listenAddress"], prometheus["alertmanager"]["listenAddress"]} == {"127.0.0.1"}
    assert prometheus["exporters"]["node"]["listenAddress"] == "127.0.0.1"
    assert (
        machine["grafana"]["provision"]["datasources"]["settings"]["datasources"][0]["url"] == "http://127.0.0.1:9090"
    )
    alone = good["the exporter alone"]
    assert (alone["prometheus"]["enable"], alone["prometheus"]["ruleFiles"]) == (False, [])
    both = given(good["a door to both"]["units"]["comfyui-xpu-exporter"])
    assert (both.ollama, both.certificate) == (["http://127.0.0.1:11434"], ["studio.example.org:443"])


def test_the_pack_is_there_where_somebody_looks(good: dict[str, Any]) -> None:  # noqa: F811
    for case, there in (("watched", True), ("monitoring", True), ("kept tidy", False), ("nothing but enable", False)):
        line = words(good[case]["units"]["comfyui-xpu"])
        assert any("custom-nodes.yaml" in word for word in line) is there, case


def test_rules_and_dashboard_are_where_the_module_looks() -> None:
    assert {"rules.yml", "dashboard.json"} <= {path.name for path in (ROOT / "generated" / "monitoring").iterdir()}
