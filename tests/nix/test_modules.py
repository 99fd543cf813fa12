"""The modules, evaluated in many configurations; their units, judged by systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nix import sandbox
from tests.nix.sandbox import Miniature

COMFYUI = "config.systemd.services.comfyui-xpu"
BOT = "config.systemd.services.patchforge-bot"
NIXOS = (
    "comfyui-xpu",
    "ollama-xpu",
    "intel-xpu",
    "intel-xpu-share",
    "patchforge-bot",
    "legacy-names",
    "proxy",
    "monitoring",
)
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze (systemd)")
#: What is looked at of a configuration. Folders of units are those of the service's own.
RESULT = """{
  failed = map (x: x.message) (lib.filter (x: !x.assertion) config.assertions);
  inherit (config) warnings;
  units = lib.mapAttrs (_: unit: removeAttrs unit [ "path" ]) config.systemd.services;
  paths = lib.mapAttrs (_: unit: map toString unit.path) config.systemd.services;
  tmpfiles = config.systemd.tmpfiles.settings;
  users = config.users;
  ports = config.networking.firewall.allowedTCPPorts;
  graphics = config.hardware.graphics.enable;
  kernel = config.boot.kernelParams;
  udev = config.services.udev.extraRules;
  ollama = removeAttrs config.services.ollama [ "package" ];
  timers = config.systemd.timers;
  inherit (config.services) prometheus;
  grafana = if config.services.grafana.enable then config.services.grafana else { enable = false; };
  nginx = config.services.nginx // {
    # With ACME, nixpkgs says itself where the certificate is.
    virtualHosts = lib.mapAttrs (
      _: host: if host.enableACME then removeAttrs host [ "sslCertificate" "sslCertificateKey" ] else host
    ) config.services.nginx.virtualHosts;
  };
  programs = map lib.getName config.environment.systemPackages;
}"""


def evaluator(mini: Miniature, module: str = "nixos") -> str:
    """The beginning of an expression: ``evaluate CONFIGURATION`` gives config and options."""
    modules = mini.project / "generated/nix/modules"
    ours = " ".join(f"{modules}/{name}.nix" for name in NIXOS) if module == "nixos" else f"{modules}/{module}.nix"
    return (
        f"let pkgs = import {mini.nixpkgs} {{ }}; inherit (pkgs) lib;"
        f" cases = import {modules}/../checks/configurations.nix {{ inherit lib pkgs; }};"
        " evaluate = configuration: lib.evalModules { specialArgs = { inherit pkgs; };"
        f" modules = [ {sandbox.HERE}/stubs.nix {ours} configuration ]; }};"
        f" resultOf = configuration: let inherit (evaluate configuration) config; in {RESULT};"
    )


def evaluation(mini: Miniature, config: str, rest: str, module: str = "nixos") -> str:
    start = evaluator(mini, module)
    return f"{start} inherit (evaluate ({{ pkgs, lib, ... }}: {config})) config options; in {rest}"


def unit(mini: Miniature, config: str, service: str = COMFYUI) -> dict[str, Any]:
    """The unit of a configuration without failed assertions and warnings."""
    rest = (
        "{ failed = lib.filter (x: !x.assertion) config.assertions; inherit (config) warnings;"
        f' unit = removeAttrs {service} [ "path" ]; }}'
    )
    evaluated = mini.nix.evaluate(evaluation(mini, config, rest))
    assert (evaluated["failed"], evaluated["warnings"]) == ([], [])
    return dict(evaluated["unit"])


def words(unit: dict[str, Any]) -> list[str]:
    """The command line that systemd sees."""
    text = unit["serviceConfig"]["ExecStart"].replace("%%", "%").replace("$$", "$")
    return [json.loads(word) for word in re.findall(r'"(?:[^"\\]|\\.)*"', text)]


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


#: Words of the command line, in order, by configuration.
WORDS = {
    "nothing but enable": ["--listen", "127.0.0.1", "--xpu-level", "O1"],
    "cpu": ["--cpu"],
    "cuda": ["--cuda-device", "1"],
    "xpu by number": ["--intel-device", "0,1"],
    "a tile": ["--intel-device", "0.1"],
    "auto by number": ["--cuda-device", "0"],
    "a selector": ["--oneapi-device-selector", "level_zero:0"],
    "levels": ["O2", "compile,fp64"],
    "levels by name": ["O2", "--xpu-enable", "compile"],
    "precision": ["--xpu-precision", "bf16"],
    "memory": ["--lowvram", "--reserve-vram", "1.5"],
    "listening": ["0.0.0.0", "9000"],
    "several addresses": ["127.0.0.2,::1"],
    "cors": ["--enable-cors-header", "https://a.example"],
    "settings": [
        "--cache-lru",
        "3",
        "--disable-smart-memory",
        "--fast",
        "fp16_accumulation",
        "--preview-method",
        "auto",
    ],
    "model paths": ["--extra-model-paths-config"],
    "downloads": ["--extra-model-paths-config"],
    "gated downloads": ["--extra-model-paths-config"],
    "custom nodes": ["--extra-model-paths-config"],
    "awkward words": ["a b", "50%", "$HOME", 'say "x"'],
}


@pytest.fixture(scope="module")
def cases(mini: Miniature) -> dict[str, Any]:
    """All configurations, evaluated at once: what the accepted ones give, and what the bad ones fail with."""
    advice = (
        "lib.mapAttrs (_: bad: { inherit (bad) advice;"
        " found = map (x: x.message) (lib.filter (x: !x.assertion) (evaluate bad.config).config.assertions); })"
    )
    return dict(
        mini.nix.evaluate(
            f"{evaluator(mini)} in {{ good = lib.mapAttrs (_: resultOf) cases.good;"
            f" renamed = lib.mapAttrs (_: resultOf) cases.renamed; bad = {advice} cases.bad; }}"
        )
    )


@pytest.fixture(scope="module")
def good(cases: dict[str, Any]) -> dict[str, Any]:
    return dict(cases["good"])


def service(good: dict[str, Any], name: str, unit: str = "comfyui-xpu") -> dict[str, Any]:
    return dict(good[name]["units"][unit])


def test_good_configurations_pass_without_a_warning(good: dict[str, Any]) -> None:
    assert len(good) >= 30
    assert {
        name: (each["failed"], each["warnings"]) for name, each in good.items() if each["failed"] + each["warnings"]
    } == {}


def test_their_command_lines(good: dict[str, Any]) -> None:
    for name, expected in WORDS.items():
        given = words(service(good, name))
        assert "/bin/comfyui" in given[0]
        places = [given.index(word) for word in expected]
        assert places == sorted(places), name


def test_wrong_configurations_fail_with_advice(cases: dict[str, Any]) -> None:
    assert len(cases["bad"]) >= 35
    for name, each in cases["bad"].items():
        assert len(each["found"]) == 1, (name, each["found"])
        assert each["found"][0].startswith("services.comfyui-xpu"), name
        assert each["advice"] in each["found"][0], (name, each["found"])


def test_the_flakes_check_of_modules_finds_nothing_and_would_find_something(mini: Miniature) -> None:
    """A good configuration that is refused, and a bad one that is not."""
    check = f"import {mini.project}/generated/nix/checks/modules.nix"
    given = "inherit lib; evaluate = configuration: (evaluate configuration).config;"
    swapped = "{ good.x = cases.bad.int8.config; bad.y = { config = cases.good.cpu; advice = ''none''; }; }"
    findings = mini.nix.evaluate(
        f"{evaluator(mini)} in {{ now = {check} {{ {given} inherit cases; }};"
        f" later = {check} {{ {given} cases = {swapped}; }}; }}"
    )
    assert findings["now"] == []
    refused, accepted = findings["later"]
    assert refused.startswith("x: services.comfyui-xpu: no pinned")
    assert accepted == 'y: expected "none", found nothing'


def test_older_names_work_with_a_note(cases: dict[str, Any]) -> None:
    renamed = cases["renamed"]
    comfyui = renamed["comfyui-ipex"]
    assert comfyui["failed"] == []
    assert len(comfyui["warnings"]) == 3
    assert "`services.comfyui-ipex.server.port'" in str(comfyui["warnings"])
    assert "renamed to `services.comfyui-xpu.server.port'" in str(comfyui["warnings"])
    assert {"O2", "8190"} <= set(words(comfyui["units"]["comfyui-xpu"]))
    assert renamed["ollama-ipex"]["ollama"]["enable"]
    assert "1" in words(renamed["ipex"]["units"]["comfyui-xpu"])
    assert renamed["ipex"]["warnings"] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('backend = "rocm";', "services.comfyui-xpu.backend"),
        ("server.port = 70000;", "services.comfyui-xpu.server.port"),
        ('device = "the big one";', "services.comfyui-xpu.device"),
        ('models."vae/x" = { url = ""; hash = "sha256-x"; };', "hash"),
        ("prot = 1;", "services.comfyui-xpu.prot' does not exist"),
        ('nodes = [ "nobody-pinned-this" ];', "services.comfyui-xpu.nodes"),
        ('cache.maxSize = "08G";', "services.comfyui-xpu.cache.maxSize"),
        ('directoryMode = "rwx";', "services.comfyui-xpu.directoryMode"),
        ("server.host = [ ];", "services.comfyui-xpu.server.host"),
        ("credentials.x = ./file;", "services.comfyui-xpu.credentials.x"),
        ('credentials.x = "${pkgs.zlib}/x";', "absolute path not in the Nix store"),
        ('environmentFile = "${pkgs.zlib}/x";', "absolute path not in the Nix store"),
        ('modelPaths.vae = [ "x" ];', "services.comfyui-xpu.modelPaths.vae"),
        (
            'models = { cache = "x"; autoDownload = [ { path = "v/x"; url = "https://x"; hash = lib.fakeHash; } ]; };',
            "services.comfyui-xpu.models.cache",
        ),
        ('models.autoDownload = [ { path = "vae/x"; url = "http://x"; hash = ""; } ];', "autoDownload"),
        ("instances.x.prot = 1;", "prot' does not exist"),
    ],
)
def test_what_no_option_allows_is_named(mini: Miniature, text: str, complaint: str) -> None:
    config = f"{{ services.comfyui-xpu = {{ enable = true; {text} }}; }}"
    assert complaint in mini.nix.refused(evaluation(mini, config, "builtins.toJSON (config.systemd.services)"))


def test_whom_it_runs_as(good: dict[str, Any]) -> None:
    dynamic = service(good, "nothing but enable")["serviceConfig"]
    assert (dynamic["DynamicUser"], dynamic["StateDirectory"]) == (True, ['"comfyui-xpu"'])
    assert good["nothing but enable"]["users"]["users"] == {}
    own = good["the module's user"]
    assert own["users"]["users"]["comfyui-xpu"]["isSystemUser"]
    assert own["users"]["groups"]["comfyui-xpu"] == {"members": []}
    lasting = service(good, "the module's user")["serviceConfig"]
    assert (lasting["User"], lasting["Group"], "DynamicUser" in lasting) == ("comfyui-xpu", "comfyui-xpu", False)
    assert good["data at home"]["users"]["users"] == {}
    assert service(good, "data at home")["serviceConfig"]["Group"] == "users"
    assert service(good, "groups")["serviceConfig"]["SupplementaryGroups"] == ["render", "video", "media"]


def test_data_is_bound_wherever_it_is(good: dict[str, Any]) -> None:
    """ProtectHome would hide what is only said to be writable."""
    home = service(good, "data at home")["serviceConfig"]
    assert (home["ProtectHome"], home["BindPaths"]) == ("tmpfs", ['"/home/alice/comfyui"'])
    assert "ReadWritePaths" not in home
    spaced = good["the module's user"]
    assert service(good, "the module's user")["serviceConfig"]["BindPaths"] == ['"/srv/comfy ui"']
    rule = spaced["tmpfiles"]["10-comfyui-xpu"]["/srv/comfy ui"]["d"]
    assert (rule["mode"], rule["user"], rule["group"]) == ("0750", "comfyui-xpu", "comfyui-xpu")
    assert service(good, "the module's user")["serviceConfig"]["UMask"] == "0027"
    models = service(good, "models at home")["serviceConfig"]
    assert (models["ProtectHome"], models["BindReadOnlyPaths"]) == ("tmpfs", ['-"/home/alice/models/vae"'])
    assert service(good, "another disk")["unitConfig"] == {"RequiresMountsFor": ['"/mnt/big"']}
    assert good["nothing but enable"]["tmpfiles"] == {}


def test_folders_elsewhere_are_made_and_bound(good: dict[str, Any]) -> None:
    """For the service and for its downloads alike."""
    gallery = good["a gallery of gated models"]
    assert gallery["tmpfiles"]["10-comfyui-xpu"].keys() == {"/srv/comfyui", "/srv/models"}
    for unit in ("comfyui-xpu", "comfyui-xpu-models"):
        bound = service(good, "a gallery of gated models", unit)["serviceConfig"]["BindPaths"]
        assert bound == ['"/srv/comfyui"', '"/srv/models"']


def test_whom_it_may_talk_to(good: dict[str, Any]) -> None:
    def addresses(name: str) -> tuple[list[str] | None, list[str] | None]:
        settings = service(good, name)["serviceConfig"]
        return settings.get("IPAddressAllow"), settings.get("IPAddressDeny")

    assert addresses("nothing but enable") == addresses("several addresses") == (["localhost"], ["any"])
    allowed, denied = addresses("listening")
    assert allowed is not None
    assert {"localhost", "192.168.0.0/16", "fc00::/7"} <= set(allowed)
    assert denied == ["any"]
    assert addresses("a network") == (["localhost", "192.168.1.0/24"], ["any"])
    assert addresses("listening, and on the internet") == (None, None)


def test_what_is_said_as_text_stays_text(good: dict[str, Any]) -> None:
    harmless = service(good, "harmless variables")["environment"]
    assert (harmless["FORMAT"], harmless["TOKENIZERS_PARALLELISM"]) == ("100%%", "false")
    assert service(good, "awkward words")["serviceConfig"]["ExecStart"].endswith(r'"a b" "50%%" "$$HOME" "say \"x\""')


def test_lists_are_added_to_and_settings_are_changed_without_force(good: dict[str, Any]) -> None:
    settings = service(good, "lists are added to")["serviceConfig"]
    assert settings["SupplementaryGroups"] == ["render", "video", "media"] or settings["SupplementaryGroups"] == [
        "media",
        "render",
        "video",
    ]
    assert (settings["Restart"], settings["ReadOnlyPaths"]) == ("always", ["/mnt"])


def test_threads_may_be_bound_to_processors(good: dict[str, Any]) -> None:
    """What OpenMP and TBB call is in @resources."""
    filters = service(good, "nothing but enable")["serviceConfig"]["SystemCallFilter"]
    assert filters == ["@system-service", "~@privileged"]


def test_instances_are_services_of_their_own(good: dict[str, Any]) -> None:
    units = good["several"]["units"]
    assert set(units) == {"comfyui-xpu", "comfyui-xpu-second"}
    second = units["comfyui-xpu-second"]
    assert second["serviceConfig"]["StateDirectory"] == ['"comfyui-xpu-second"']
    assert {"8189", "O2"} <= set(words(second))
    assert set(good["one instance alone"]["units"]) == {"comfyui-xpu-only"}
    assert good["one instance alone"]["graphics"]


def test_models_are_downloaded_by_a_service_of_their_own(good: dict[str, Any]) -> None:
    """It has the network and the token; ComfyUI stays without the network, and reads what is there."""
    units = good["gated downloads"]["units"]
    main, models = units["comfyui-xpu"]["serviceConfig"], units["comfyui-xpu-models"]["serviceConfig"]
    assert main["IPAddressDeny"] == ["any"]
    assert "IPAddressDeny" not in models
    assert models["LoadCredential"] == ["hf-token:/run/secrets/hf-token"]
    shared = ("User", "DynamicUser", "StateDirectory", "UMask")
    assert [main[key] for key in shared] == [models[key] for key in shared]
    program, script, about = words(units["comfyui-xpu-models"])
    assert (Path(program).name, Path(script).name.endswith("fetch-models.py"), about[0]) == ("python3", True, "/")


def test_fonts_and_programs(good: dict[str, Any]) -> None:
    assert "fonts.conf" in service(good, "nothing but enable")["environment"]["FONTCONFIG_FILE"]
    assert "FONTCONFIG_FILE" not in service(good, "programs and fonts")["environment"]
    assert "-git-" in good["programs and fonts"]["paths"]["comfyui-xpu"][0]


def test_ollama_is_nixpkgs_service_with_what_a_gpu_needs(good: dict[str, Any]) -> None:
    assert good["ollama"]["ollama"]["enable"]
    assert good["ollama"]["graphics"]
    chosen = good["ollama by device"]
    assert chosen["ollama"]["environmentVariables"] == {"GGML_VK_VISIBLE_DEVICES": "0"}
    assert chosen["ollama"]["loadModels"] == ["gemma3"]
    assert chosen["units"]["ollama"]["serviceConfig"] == {"IPAddressAllow": ["localhost"], "IPAddressDeny": ["any"]}


def test_tuning(good: dict[str, Any]) -> None:
    tuned = good["tuning"]
    assert tuned["kernel"] == ["xe.force_probe=e20b"]
    assert 'ATTR{queue/scheduler}="none"' in tuned["udev"]
    assert tuned["units"]["intel-xpu-resizable-bar"]["serviceConfig"]["Type"] == "oneshot"


def test_a_small_bar_is_named(mini: Miniature, tmp_path: Path) -> None:
    """Cards only: what has no memory of its own has no size to choose."""
    script = mini.project / "generated/nix/modules/resizable-bar.sh"
    for name, size, resizable in (
        ("0000:03:00.0", 256 << 20, True),
        ("0000:04:00.0", 16 << 30, True),
        ("0000:00:02.0", 256 << 20, False),
    ):
        device = tmp_path / name
        device.mkdir()
        (device / "vendor").write_text("0x8086\n")
        (device / "class").write_text("0x030000\n")
        (device / "resource").write_text(
            f"0x{1 << 40:016x} 0x{(1 << 40) + size - 1:016x} 0x1\n{'0x' + '0' * 16} {'0x' + '0' * 16} 0x0\n"
        )
        if resizable:
            (device / "resource2_resize").write_text("")
    done = subprocess.run(["bash", script, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("<4>0000:03:00.0: only 256 MiB")
    assert lines[1].startswith("0000:04:00.0: 16384 MiB")


def test_nothing_is_set_when_nothing_is_enabled(mini: Miniature) -> None:
    rest = (
        "{ inherit (config) assertions systemd users; graphics = config.hardware.graphics;"
        " packages = config.environment.systemPackages; }"
    )
    nothing = mini.nix.evaluate(evaluation(mini, "{ }", rest))
    assert nothing["assertions"] == []
    assert nothing["systemd"] == {"services": {}, "timers": {}, "tmpfiles": {"settings": {}}, "user": {"services": {}}}
    assert (nothing["users"], nothing["packages"], nothing["graphics"]["enable"]) == (
        {"groups": {}, "users": {}},
        [],
        False,
    )


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
    started = unit(mini, f"{{ services.comfyui-xpu = {{ enable = true; {text} }}; }}")
    assert started["serviceConfig"]["LoadCredential"] == ["hf-token:/run/x"]
    assert started["environment"]["HF_TOKEN_PATH"] == "%d/hf-token"
    assert started["serviceConfig"]["ExecStartPre"][0].endswith(f'"{2 << 30}"')


def test_the_cache_loses_its_oldest_files_first(mini: Miniature, tmp_path: Path) -> None:
    for age, name in enumerate(["new file", "newer", "old", "older"]):
        (tmp_path / name).write_bytes(b"x" * 1000)
        os.utime(tmp_path / name, (2_000_000_000 - age, 2_000_000_000 - age))
    script = mini.project / "generated/nix/modules/prune-cache.sh"
    subprocess.run(["sh", script, tmp_path, "2500"], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"new file", "newer"}


def test_a_setting_can_be_loosened(mini: Miniature) -> None:
    config = "{ services.comfyui-xpu.enable = true; systemd.services.comfyui-xpu.serviceConfig.ProtectHome = false; }"
    assert unit(mini, config)["serviceConfig"]["ProtectHome"] is False


#: By configuration: how exposed systemd may judge its service.
SCORED = {
    "nothing but enable": 1.4,
    "cpu": 1.4,
    "data at home": 1.4,
    "several addresses": 1.4,
    "listening": 1.5,
    "listening, and on the internet": 1.5,
    "credentials": 1.5,
}


def written(unit: dict[str, Any], file: Path) -> Path:
    """As a file. systemd looks for programs; the store's are not built here."""
    lines = [
        f"ExecStart={shutil.which('true')}" if line.startswith("ExecStart=") else line
        for line in rendered(unit).splitlines()
        if not line.startswith("ExecStartPre=")
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def exposure(folder: Path, units: dict[str, dict[str, Any]]) -> dict[str, float]:
    for name, each in units.items():
        written(each, folder / f"{name}.service")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    done = subprocess.run(
        [*command, *(str(folder / f"{name}.service") for name in units)], capture_output=True, text=True, check=False
    )
    levels = re.findall(r"exposure level for (\S+)\.service: ([0-9.]+)", done.stdout)
    return {name: float(level) for name, level in levels}


@needs_systemd
def test_services_are_confined(good: dict[str, Any], tmp_path: Path) -> None:
    units = {re.sub(r"[^a-z]", "-", name): service(good, name) for name in SCORED}
    limits = {re.sub(r"[^a-z]", "-", name): limit for name, limit in SCORED.items()}
    units["bot"], limits["bot"] = service(good, "the bot", "patchforge-bot"), 1.5
    units["models"], limits["models"] = service(good, "gated downloads", "comfyui-xpu-models"), 1.5
    for case in (
        "watched",
        "watched, on the CPU of a small network",
        "kept tidy",
        "kept tidy at home",
        "monitoring",
        "a shared card",
    ):
        for name, each in good[case]["units"].items():
            if name not in {"comfyui-xpu", "ollama"} and "ExecStart" in each["serviceConfig"]:
                key = f"{re.sub('[^a-z]', '-', case)}--{name}"
                units[key], limits[key] = each, 1.5
    levels = exposure(tmp_path, units)
    assert levels.keys() == limits.keys()
    assert {name: level for name, level in levels.items() if level > limits[name]} == {}


@needs_systemd
def test_every_unit_is_valid(good: dict[str, Any], tmp_path: Path) -> None:
    """Each configuration's together, as one may name another."""
    count = 0
    for number, case in enumerate(good.values()):
        (folder := tmp_path / str(number)).mkdir()
        units = {name: unit for name, unit in case["units"].items() if "ExecStart" in unit["serviceConfig"]}
        files = [written(unit, folder / f"{name}.service") for name, unit in units.items()]
        for name, timer in case["timers"].items():
            settings = [f"{key}={'true' if value is True else value}" for key, value in timer["timerConfig"].items()]
            files.append(folder / f"{name}.timer")
            files[-1].write_text("\n".join(["[Timer]", *settings, ""]))
        count += len(files)
        if files:
            verified = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", *files],
                env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
                capture_output=True,
                text=True,
                check=False,
            )
            said = verified.stderr.splitlines()
            assert [line for line in said if str(folder) in line or "comfyui" in line or "patchforge" in line] == []
    assert count > 60


@needs_systemd
def test_verify_would_see_a_misspelt_setting(tmp_path: Path) -> None:
    file = tmp_path / "one.service"
    file.write_text(f"[Service]\nExecStart={shutil.which('true')}\nProtectSytem=strict\n")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert [line for line in verified.stderr.splitlines() if "one.service" in line] != []


HOME = {
    "programs only": "",
    "a service": 'service.enable = true; environment = { PRICE = "5$ 100%"; };',
    "links": """
        workflows."a.json" = pkgs.zlib;
        modelLinks = { "vae/x.pt" = pkgs.zlib; "vae/y.pt" = "/data/y.pt"; checkpoints = "~/models"; };
        workspace = "/home/alice/c";
    """,
    "a folder of workflows": 'workflows = pkgs.zlib; workspace = "~/comfyui";',
    "development": 'development = { enable = true; customNodes.mine = "~/src/mine"; };',
    "unused development": 'development.customNodes.mine = "~/src/mine";',
    "a token": 'environment.HF_TOKEN = "x";',
}


@pytest.fixture(scope="module")
def homes(mini: Miniature) -> dict[str, Any]:
    cases = " ".join(
        f'"{name}" = {{ programs.comfyui-xpu = {{ enable = true; {text} }}; }};' for name, text in HOME.items()
    )
    ipex = "programs.ipex = { enable = true; environment.A = ''b''; vscode.enable = true; };"
    rest = (
        "{ failed = map (x: x.message) (lib.filter (x: !x.assertion) config.assertions);"
        " services = config.systemd.user.services; inherit (config.home) sessionVariables;"
        " files = lib.mapAttrs (_: x: { source = toString x.source; inherit (x) recursive; }) config.home.file;"
        " names = map lib.getName config.home.packages; vscode = config.programs.vscode.profiles; }"
    )
    return dict(
        mini.nix.evaluate(
            f"{evaluator(mini, 'home')} in lib.mapAttrs (_: each: let inherit (evaluate each) config; in {rest})"
            f" {{ {cases} ipex = {{ {ipex} }}; }}"
        )
    )


def test_home_manager_has_programs_and_a_service(homes: dict[str, Any]) -> None:
    plain = homes["programs only"]
    assert (plain["failed"], plain["names"], plain["services"], plain["files"]) == ([], ["comfyui-xpu"], {}, {})
    assert plain["sessionVariables"] == {"COMFYUI_DIR": "/home/alice/.local/share/comfyui"}
    unit = homes["a service"]["services"]["comfyui-xpu"]
    assert unit["Install"] == {"WantedBy": ["default.target"]}
    # What only the system's manager can do is not asked of a user's.
    assert not {"DynamicUser", "DeviceAllow", "PrivateDevices"} & unit["Service"].keys()
    # systemd expands specifiers there, and no variables.
    assert '"PRICE=5$ 100%%"' in unit["Service"]["Environment"]
    assert "environment.HF_TOKEN" in homes["a token"]["failed"][0]


def test_home_manager_links_files_and_folders(homes: dict[str, Any]) -> None:
    links = homes["links"]
    places = ("user/default/workflows/a.json", "models/vae/x.pt", "models/vae/y.pt", "models/checkpoints")
    assert set(links["files"]) == {f"/home/alice/c/{place}" for place in places}
    assert links["sessionVariables"] == {"COMFYUI_DIR": "/home/alice/c"}
    folder = homes["a folder of workflows"]["files"]
    assert folder["/home/alice/comfyui/user/default/workflows"]["recursive"]
    assert list(homes["development"]["files"]) == ["/home/alice/.local/share/comfyui/custom_nodes/mine"]
    assert homes["development"]["names"] == ["comfyui-xpu", "comfyui-patchforge", "comfyui-python"]
    assert (homes["unused development"]["files"], homes["unused development"]["names"]) == ({}, ["comfyui-xpu"])


def test_home_manager_has_a_python(homes: dict[str, Any]) -> None:
    home = homes["ipex"]
    assert (home["names"], home["sessionVariables"]) == (["python3-env"], {"A": "b"})
    path = home["vscode"]["default"]["userSettings"]["python.defaultInterpreterPath"]
    assert path.endswith("/bin/python")


def test_what_is_elsewhere_is_linked_to_and_not_copied(mini: Miniature) -> None:
    for given, place in (("/data/it's x.pt", "/data/it's x.pt"), ("~/m x", "/home/alice/m x")):
        config = f'{{ programs.comfyui-xpu = {{ enable = true; modelLinks."vae/x.pt" = "{given}"; }}; }}'
        source = evaluation(mini, config, "(lib.head (lib.attrValues config.home.file)).source", "home")
        assert mini.nix.build(source).readlink() == Path(place)


def test_the_virtual_machine_is_a_configuration_like_any_other(mini: Miniature) -> None:
    """It is started where there is KVM; here its configuration is evaluated, and its script is Python."""
    test = f"import {mini.project}/generated/nix/checks/vm.nix {{ package = (resultOf {{ }}).package or pkgs.zlib; }}"
    start = evaluator(mini)
    machine = (
        f"(let test = {test}; in (evaluate (removeAttrs (test.nodes.machine {{ inherit pkgs; }}) [ ''imports'' ])))"
    )
    rest = (
        "{ failed = lib.filter (x: !x.assertion) config.assertions; units = lib.attrNames config.systemd.services;"
        f" script = ({test}).testScript; }}"
    )
    machine_now = mini.nix.evaluate(f"{start} inherit ({machine}) config; in {rest}")
    assert (machine_now["failed"], machine_now["units"]) == ([], ["comfyui-xpu", "comfyui-xpu-second"])
    compile(machine_now["script"], "vm.nix", "exec")
