# The options of NixOS and Home Manager that our modules set, and nothing behind them.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  any = mkOption {
    type = types.attrsOf types.raw;
    default = { };
  };
  of = type: default: mkOption { inherit type default; };
  unit = types.submodule {
    options = {
      description = of types.str "";
      documentation = of (types.listOf types.str) [ ];
      wantedBy = of (types.listOf types.str) [ ];
      wants = of (types.listOf types.str) [ ];
      after = of (types.listOf types.str) [ ];
      environment = of (types.attrsOf types.str) { };
      serviceConfig = any;
      unitConfig = any;
      timerConfig = any;
    };
  };
  group = types.submodule { options.members = of (types.listOf types.str) [ ]; };
  file = types.submodule { options.source = mkOption { type = types.path; }; };
in
{
  options = {
    assertions = of (types.listOf types.raw) [ ];
    nixpkgs = any;
    warnings = of (types.listOf types.str) [ ];
    hardware.graphics.enable = of types.bool false;
    hardware.graphics.extraPackages = of (types.listOf types.package) [ ];
    networking.firewall.allowedTCPPorts = of (types.listOf types.port) [ ];
    environment.systemPackages = of (types.listOf types.package) [ ];
    environment.sessionVariables = of (types.attrsOf types.str) { };
    users.groups = of (types.attrsOf group) { };
    systemd.services = of (types.attrsOf unit) { };
    systemd.timers = of (types.attrsOf unit) { };
    systemd.tmpfiles.rules = of (types.listOf types.str) [ ];
    systemd.user.services = of (types.attrsOf types.raw) { };
    # As nixpkgs has it, with other options: both can be there.
    services.comfyui.enable = of types.bool false;
    home.packages = of (types.listOf types.package) [ ];
    home.sessionVariables = of (types.attrsOf types.str) { };
    home.file = of (types.attrsOf file) { };
    xdg.dataHome = of types.str "/home/alice/.local/share";
  };
}
