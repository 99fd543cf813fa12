# The units of the modules for a system without Nix: ComfyUI in /opt/comfyui, patchforge in /opt/patchforge, as
# docs/debian.md installs them. As data: names of files, sections, settings.
{ lib }:
let
  inherit (import ./modules/systemd.nix { inherit lib; }) commandLine;
  installed = name: place: {
    inherit name;
    type = "derivation";
    pname = name;
    outPath = place;
    override = _: installed name place;
    overrideAttrs = _: installed name place;
    inherit environment;
  };
  # ComfyUI's Python, with its torch: patchforge's own has none.
  environment = "/opt/comfyui/.venv";
  pkgs = {
    inherit lib;
    comfyui-xpu = installed "comfyui" "/opt/comfyui";
    patchforge = installed "patchforge" "/opt/patchforge";
    runtimeShell = "/bin/sh";
    systemd = installed "systemd" "/usr";
    # The pack is put there by hand.
    runCommand = _: _: _: "/var/lib/comfyui-xpu/custom_nodes";
  };
  # What modules set is theirs alone here, so nothing has to be merged but what is wrapped.
  plain =
    value:
    if (value._type or "") == "override" then
      plain value.content
    else if (value._type or "") == "if" then
      plain value.content
    else if lib.isAttrs value && !(lib.isDerivation value) then
      lib.mapAttrs (_: plain) (lib.filterAttrs (_: each: (each._type or "") != "if" || each.condition) value)
    else
      value;
  raw = lib.mkOption {
    type = lib.types.attrsOf lib.types.raw;
    default = { };
  };
  inherit
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        ./modules/comfyui-xpu.nix
        ./modules/monitoring.nix
        ./modules/proxy.nix
        {
          # Of NixOS; nobody looks at what is set there.
          options = {
            assertions = lib.mkOption { type = lib.types.listOf lib.types.raw; };
            boot = raw;
            environment = raw;
            hardware.graphics = raw;
            networking = raw;
            powerManagement = raw;
            services = {
              grafana = raw;
              nginx = raw;
              ollama = raw // { default.enable = false; };
              prometheus = raw;
              udev = raw;
            };
            systemd = {
              services = raw;
              timers = raw;
              tmpfiles = raw;
            };
            users = raw;
          };
          config.services.comfyui-xpu = {
            enable = true;
            backend = "xpu";
            autoDrivers = false;
            # Fonts and limits of the cache are Debian's and the timer's.
            fonts = [ ];
            cache.maxSize = null;
            health = {
              enable = true;
              pack = false;
            };
            validate = true;
            maintenance = {
              enable = true;
              outputAge = 90;
            };
            monitoring = {
              enable = true;
              prometheus = false;
            };
          };
        }
      ];
    })
    config
    ;
  services = lib.mapAttrs (_: plain) config.systemd.services;
  timers = lib.mapAttrs (_: plain) config.systemd.timers;
  data = "/var/lib/comfyui-xpu";
  cache = "/var/cache/comfyui-xpu";
  # What the launcher of the Nix package does.
  main = services.comfyui-xpu // {
    environment = services.comfyui-xpu.environment // {
      NEO_CACHE_DIR = "${cache}/neo";
      SYCL_CACHE_DIR = "${cache}/sycl";
      TORCHINDUCTOR_CACHE_DIR = "${cache}/inductor";
      TRITON_CACHE_DIR = "${cache}/triton";
      ZES_ENABLE_SYSMAN = "1";
    };
    serviceConfig = services.comfyui-xpu.serviceConfig // {
      ExecStartPre = [
        (commandLine (
          [
            "/bin/mkdir"
            "-p"
          ]
          ++ map (folder: "${data}/${folder}") [
            "models"
            "custom_nodes"
            "input"
            "output"
            "temp"
            "user"
          ]
        ))
      ];
      ExecStart = commandLine [
        "${environment}/bin/python"
        "/opt/comfyui/main.py"
        "--force-intel-xpu"
        "--base-directory"
        data
        "--database-url"
        "sqlite:///${data}/user/comfyui.db"
        "--listen"
        "127.0.0.1"
        "--port"
        8188
      ];
    };
  };
in
{
  services = lib.mapAttrs (_: unit: {
    inherit (unit) description;
    wantedBy = unit.wantedBy or [ ];
    after = unit.after or [ ];
    environment = unit.environment or { };
    unitConfig = unit.unitConfig or { };
    inherit (unit) serviceConfig;
  }) (services // { comfyui-xpu = main; });
  timers = lib.mapAttrs (_: timer: { inherit (timer) description wantedBy timerConfig; }) timers;
}
