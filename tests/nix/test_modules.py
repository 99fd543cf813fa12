"""The modules, evaluated in many configurations; their units, judged by systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nix import sandbox
from tests.nix.sandbox import Miniature

COMFYUI = "config.systemd.services.comfyui-xpu"
OLLAMA = "config.systemd.services.ollama-xpu"
BOT = "config.systemd.services.patchforge-bot"
NIXOS = ("comfyui-xpu", "ollama-xpu", "intel-xpu", "patchforge-bot")
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze (systemd)")


def evaluation(mini: Miniature, config: str, rest: str, module: str = "nixos") -> str:
    modules = mini.project / "generated/nix/modules"
    ours = {
        "nixos": " ".join(f"{modules}/{name}.nix" for name in NIXOS),
        "home": f"{modules}/home.nix",
    }[module]
    return (
        f"let pkgs = import {mini.nixpkgs} {{ }}; inherit (pkgs) lib;"
        f" evaluated = lib.evalModules {{ specialArgs = {{ inherit pkgs; }};"
        f" modules = [ {sandbox.HERE}/stubs.nix {ours} ({{ pkgs, lib, ... }}: {config}) ]; }};"
        f" inherit (evaluated) config options; in {rest}"
    )


def unit(mini: Miniature, config: str, service: str = COMFYUI) -> dict[str, Any]:
    """The unit of a configuration without failed assertions and warnings."""
    rest = (
        f"{{ failed = lib.filter (x: !x.assertion) config.assertions; inherit (config) warnings; unit = {service}; }}"
    )
    found = mini.nix.evaluate(evaluation(mini, config, rest))
    assert (found["failed"], found["warnings"]) == ([], [])
    return dict(found["unit"])


def words(unit: dict[str, Any]) -> list[str]:
    """The command line that systemd sees."""
    text = unit["serviceConfig"]["ExecStart"].replace("%%", "%").replace("$$", "$")
    return [json.loads(word) for word in text.split(" ")]


def listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def rendered(unit: dict[str, Any]) -> str:
    """As NixOS writes it."""

    def lines(section: dict[str, Any]) -> list[str]:
        pairs = [(key, each) for key, value in sorted(section.items()) for each in listed(value)]
        return [f"{key}={str(each).lower() if isinstance(each, bool) else each}" for key, each in pairs]

    environment = [f"Environment={json.dumps(f'{key}={value}')}" for key, value in sorted(unit["environment"].items())]
    head = {"Description": unit["description"], "Documentation": unit["documentation"], "After": unit["after"]}
    parts = {"Unit": lines({**head, **unit["unitConfig"]}), "Service": environment + lines(unit["serviceConfig"])}
    return "\n".join(f"[{name}]\n" + "\n".join(each) + "\n" for name, each in parts.items())


MODEL = '{ url = "https://a.example/x.pt"; hash = "sha256-LlJHF/wEL8HhJAKw2DaxsoMltLpV3DtFWDlTW3AZZuI="; }'
OWN = "(import PROJECT/generated/nix { inherit pkgs; }).comfyui-xpu.override { python = pkgs.python3; }"
GOOD = {
    "nothing but enable": ("", ["--xpu-level", "O1"]),
    "cpu": ('backend = "cpu";', ["--cpu"]),
    "cuda": ('backend = "cuda"; device = "1";', ["--cuda-device", "1"]),
    "xpu by number": ('backend = "xpu"; device = "0,1";', ["--intel-device", "0,1"]),
    "a tile": ('backend = "xpu"; device = "0.1";', ["--intel-device", "0.1"]),
    "auto by number": ('device = "0";', ["--cuda-device", "0"]),
    "a selector": ('device = "level_zero:0";', ["--oneapi-device-selector", "level_zero:0"]),
    "levels": ('optimisation = { level = "O2"; enable = [ "compile" "fp64" ]; };', ["O2", "compile,fp64"]),
    "precision": ('precision = "bf16";', ["--xpu-precision", "bf16"]),
    "memory": ('memory = { mode = "lowvram"; reserve = 1.5; };', ["--lowvram", "--reserve-vram", "1.5"]),
    "listening": ('server = { host = "0.0.0.0"; port = 9000; }; openFirewall = true;', ["0.0.0.0", "9000"]),
    "cors": ('server.cors = "https://a.example";', ["--enable-cors-header", "https://a.example"]),
    "model paths": ('modelPaths.checkpoints = [ "/mnt/a" "/mnt/b" ];', ["--extra-model-paths-config"]),
    "downloads": (
        f'models."vae/x.pt" = {MODEL};',
        ["--extra-model-paths-config"],
    ),
    "nodes": ('nodes = [ "a-node" ];', []),
    "custom nodes": ("customNodes.x = pkgs.zlib;", ["--extra-model-paths-config"]),
    "Python packages": ("extraPythonPackages = ps: [ ps.numpy ];", []),
    "own user": ('user = "alice"; group = "users"; dataDir = "/srv/comfyui"; requiresMounts = [ "/srv" ];', []),
    "credentials": ('credentials.hf-token = "/run/secrets/hf"; network.outgoing = true;', []),
    "resources": ('resources = { memoryMax = "32G"; cpuQuota = "400%"; tasksMax = 512; };', []),
    "no limits": ("cache.maxSize = null; resources = { memoryHigh = null; memoryMax = null; };", []),
    "unconfined": ("hardening = false; autoDrivers = false;", []),
    "awkward words": (r'extraArgs = [ "a b" "50%" "$HOME" "say \"x\"" ];', []),
    "a torch of one's own": (f"package = {OWN};", []),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_configurations_evaluate_without_a_warning(mini: Miniature, name: str) -> None:
    text, expected = GOOD[name]
    text = text.replace("PROJECT", str(mini.project))
    found = unit(mini, f"{{ services.comfyui-xpu = {{ enable = true; {text} }}; services.comfyui.enable = true; }}")
    if name == "awkward words":
        assert found["serviceConfig"]["ExecStart"].endswith(r'"a b" "50%%" "$$HOME" "say \"x\""')
        return
    given = words(found)
    assert "/bin/comfyui" in given[0]
    places = [given.index(word) for word in expected]
    assert places == sorted(places)


BAD = {
    "a device of the CPU": ('backend = "cpu"; device = "0";', 'Set device = "auto"'),
    "a selector for CUDA": ('backend = "cuda"; device = "level_zero:0";', "is a selector of Intel GPUs"),
    "a tile for any": ('device = "0.1";', 'Set backend = "xpu"'),
    "opt-ins without XPU": ('backend = "cuda"; optimisation.enable = [ "fp64" ];', 'set backend = "xpu"'),
    "precision without XPU": ('backend = "cpu"; precision = "fp16";', "--force-fp16"),
    "opt-ins at O0": ('optimisation = { level = "O0"; enable = [ "fp64" ]; };', "Choose O1"),
    "int8": ('precision = "int8";', "int8 flag"),
    "a low port": ("server.port = 80;", "reverse proxy"),
    "any origin": ('server = { host = "0.0.0.0"; cors = "*"; };', "Name the one origin"),
    "an owned flag": ('extraArgs = [ "--port=1" ];', "there are options"),
    "a token": ('environment.HF_TOKEN = "x";', "Use credentials"),
    "a model without a kind": (
        f'models."x.pt" = {MODEL};',
        "named by kind and file",
    ),
    "a node twice": ('nodes = [ "a-node" ]; customNodes.a-node = pkgs.zlib;', "Keep one"),
    "a relative path": ('modelPaths.vae = [ "x" ];', "absolute"),
    "an open port for nobody": ("openFirewall = true;", 'Set server.host = "0.0.0.0"'),
    "data elsewhere": ('dataDir = "/srv/x";', "Set user"),
    "a group alone": ('group = "users";', "Set both"),
    "a token without network": ('credentials.hf-token = "/x";', "Set network.outgoing = true"),
    "models at home": ('modelPaths.vae = [ "/home/a" ];', "Move the models"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_combinations_fail_with_advice(mini: Miniature, name: str) -> None:
    text, advice = BAD[name]
    rest = "map (x: x.message) (lib.filter (x: !x.assertion) config.assertions)"
    found = mini.nix.evaluate(evaluation(mini, f"{{ services.comfyui-xpu = {{ enable = true; {text} }}; }}", rest))
    assert len(found) == 1
    assert found[0].startswith("services.comfyui-xpu: ")
    assert advice in found[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('backend = "rocm";', "services.comfyui-xpu.backend"),
        ("server.port = 70000;", "services.comfyui-xpu.server.port"),
        ('device = "the big one";', "services.comfyui-xpu.device"),
        ('models."vae/x" = { url = ""; hash = "sha256-x"; };', "hash"),
        ("prot = 1;", "services.comfyui-xpu.prot' does not exist"),
        ('nodes = [ "nobody-pinned-this" ];', "services.comfyui-xpu.nodes"),
    ],
)
def test_what_no_option_allows_is_named(mini: Miniature, text: str, complaint: str) -> None:
    config = f"{{ services.comfyui-xpu = {{ enable = true; {text} }}; }}"
    assert complaint in mini.nix.refused(evaluation(mini, config, f"builtins.toJSON {COMFYUI}"))


def test_nothing_is_set_when_nothing_is_enabled(mini: Miniature) -> None:
    rest = (
        "{ inherit (config) assertions systemd users; graphics = config.hardware.graphics;"
        " packages = config.environment.systemPackages; }"
    )
    found = mini.nix.evaluate(evaluation(mini, "{ }", rest))
    assert found["assertions"] == []
    assert found["systemd"] == {"services": {}, "timers": {}, "tmpfiles": {"rules": []}, "user": {"services": {}}}
    assert (found["users"], found["packages"], found["graphics"]["enable"]) == ({"groups": {}}, [], False)


def test_the_service_brings_its_drivers(mini: Miniature) -> None:
    config = '{ services.comfyui-xpu.enable = true; hardware.intel-xpu.users = [ "alice" ]; }'
    rest = (
        "{ graphics = config.hardware.graphics.enable; names = map lib.getName config.hardware.graphics.extraPackages;"
        " members = config.users.groups.render.members; variables = config.environment.sessionVariables; }"
    )
    assert mini.nix.evaluate(evaluation(mini, config, rest)) == {
        "graphics": True,
        "names": [
            "intel-compute-runtime",
            "intel-compute-runtime",
            "intel-graphics-compiler",
            "level-zero",
            "vpl-gpu-rt",
        ],
        "members": ["alice"],
        "variables": {"ZES_ENABLE_SYSMAN": "1"},
    }


def test_secrets_are_files_and_the_cache_is_cut_back(mini: Miniature) -> None:
    text = 'credentials.hf-token = "/run/x"; network.outgoing = true; cache.maxSize = "2G";'
    found = unit(mini, f"{{ services.comfyui-xpu = {{ enable = true; {text} }}; }}")
    assert found["serviceConfig"]["LoadCredential"] == ["hf-token:/run/x"]
    assert found["environment"]["HF_TOKEN_PATH"] == "%d/hf-token"
    assert found["serviceConfig"]["ExecStartPre"].endswith(f'"{2 << 30}"')


def test_the_cache_loses_its_oldest_files_first(mini: Miniature, tmp_path: Path) -> None:
    for age, name in enumerate(["new file", "newer", "old", "older"]):
        (tmp_path / name).write_bytes(b"x" * 1000)
        os.utime(tmp_path / name, (2_000_000_000 - age, 2_000_000_000 - age))
    script = mini.project / "generated/nix/modules/prune-cache.sh"
    subprocess.run(["sh", script, tmp_path, "2500"], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"new file", "newer"}


def test_a_folder_outside_of_state_is_made_and_writable(mini: Miniature) -> None:
    config = '{ services.comfyui-xpu = { enable = true; user = "alice"; dataDir = "/srv/c"; }; }'
    assert unit(mini, config)["serviceConfig"]["ReadWritePaths"] == ["/srv/c"]
    rules = mini.nix.evaluate(evaluation(mini, config, "config.systemd.tmpfiles.rules"))
    assert rules == ["d /srv/c 0700 alice - -"]


def test_a_setting_can_be_loosened(mini: Miniature) -> None:
    config = "{ services.comfyui-xpu.enable = true; systemd.services.comfyui-xpu.serviceConfig.ProtectHome = false; }"
    assert unit(mini, config)["serviceConfig"]["ProtectHome"] is False


SCORED = {
    "localhost": ("comfyui-xpu.enable = true;", COMFYUI, 1.4),
    "cpu": ('comfyui-xpu = { enable = true; backend = "cpu"; };', COMFYUI, 1.4),
    "downloading": ("comfyui-xpu = { enable = true; network.outgoing = true; };", COMFYUI, 1.5),
    "listening": ('comfyui-xpu = { enable = true; server.host = "0.0.0.0"; openFirewall = true; };', COMFYUI, 1.5),
    "ollama": ("ollama-xpu.enable = true;", OLLAMA, 1.5),
    "ollama localhost": ("ollama-xpu = { enable = true; network.outgoing = false; };", OLLAMA, 1.4),
    "bot": ('patchforge-bot = { enable = true; repository = "a/b"; tokenFile = "/run/token"; };', BOT, 1.5),
    "ollama listening": ('ollama-xpu = { enable = true; server.host = "::"; device = "0"; };', OLLAMA, 1.5),
}


@needs_systemd
@pytest.mark.parametrize("name", SCORED)
def test_units_are_valid_and_confined(mini: Miniature, name: str, tmp_path: Path) -> None:
    config, service, limit = SCORED[name]
    text = rendered(unit(mini, f"{{ services.{config} }}", service))
    # systemd looks for the program; the store's is not built here.
    lines = [
        f"ExecStart={shutil.which('true')}" if line.startswith("ExecStart=") else line for line in text.splitlines()
    ]
    lines = [line for line in lines if not line.startswith("ExecStartPre=")]
    file = tmp_path / "one.service"
    file.write_text("\n".join(lines) + "\n")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert [line for line in verified.stderr.splitlines() if "one.service" in line] == []
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={round(limit * 10)}",
        "--no-pager",
        str(file),
    ]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-400:]
    assert float(judged.stdout.split("exposure level for one.service:")[1].split()[0]) <= limit


@needs_systemd
def test_verify_would_see_a_misspelt_setting(tmp_path: Path) -> None:
    file = tmp_path / "one.service"
    file.write_text(f"[Service]\nExecStart={shutil.which('true')}\nProtectSytem=strict\n")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert [line for line in verified.stderr.splitlines() if "one.service" in line] != []


HOME = {
    "programs only": ("", None),
    "with a service": ("service.enable = true;", "Restart"),
    "links": (
        """
        workflows."a.json" = pkgs.zlib;
        modelLinks = { "vae/x.pt" = pkgs.zlib; "vae/y.pt" = "/data/y.pt"; };
        workspace = "/home/alice/c";
        """,
        None,
    ),
}


def test_a_model_elsewhere_is_linked_to_and_not_copied(mini: Miniature) -> None:
    config = '{ programs.comfyui-xpu = { enable = true; modelLinks."vae/x.pt" = "/data/it\'s x.pt"; }; }'
    found = evaluation(mini, config, "(lib.head (lib.attrValues config.home.file)).source", "home")
    assert mini.nix.build(found).readlink() == Path("/data/it's x.pt")


@pytest.mark.parametrize("name", HOME)
def test_home_manager(mini: Miniature, name: str) -> None:
    text, key = HOME[name]
    rest = (
        "{ failed = lib.filter (x: !x.assertion) config.assertions; services = config.systemd.user.services;"
        " files = lib.mapAttrs (_: x: toString x.source) config.home.file; inherit (config.home) sessionVariables;"
        " names = map lib.getName config.home.packages; }"
    )
    found = mini.nix.evaluate(
        evaluation(mini, f"{{ programs.comfyui-xpu = {{ enable = true; {text} }}; }}", rest, "home")
    )
    assert (found["failed"], found["names"]) == ([], ["comfyui-xpu"])
    assert ("comfyui-xpu" in found["services"]) == bool(key)
    if name == "links":
        places = ("user/default/workflows/a.json", "models/vae/x.pt", "models/vae/y.pt")
        assert set(found["files"]) == {f"/home/alice/c/{place}" for place in places}
        assert found["sessionVariables"] == {"COMFYUI_DIR": "/home/alice/c"}
    if key:
        unit = found["services"]["comfyui-xpu"]
        assert key in unit["Service"]
        assert unit["Install"] == {"WantedBy": ["default.target"]}
        # What only the system's manager can do is not asked of a user's.
        assert not {"DynamicUser", "DeviceAllow", "PrivateDevices"} & unit["Service"].keys()
