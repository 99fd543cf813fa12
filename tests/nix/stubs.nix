# The options of NixOS and Home Manager that our modules set, with the types and merging that they have there; what is
# behind them is not. Which of nixpkgs' files says so is in templates/nix/data/nixpkgs.json.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  of = type: default: mkOption { inherit type default; };
  attrs = of (types.attrsOf types.raw) { };
  strings = of (types.listOf types.str) [ ];
  # nixos/lib/systemd-unit-options.nix: lists are joined, and mixed with nothing else; the rest has to be equal.
  unitOption = lib.mkOptionType {
    name = "systemd option";
    merge =
      location: definitions:
      let
        values = map (definition: definition.value) definitions;
        first = lib.head values;
      in
      if lib.any lib.isList values then
        if lib.all lib.isList values then
          lib.concatLists values
        else
          throw "The definitions for systemd unit options should be either all lists, representing repeatable options, or all non-lists, but for the option ${lib.concatStringsSep "." location}"
      else if lib.all (value: value == first) values then
        first
      else
        throw "The option `${lib.concatStringsSep "." location}' has conflicting definition values";
  };
  section = types.attrsOf unitOption;
  # nixos/modules/config/shells-environment.nix
  words = types.oneOf [ types.int types.str types.path ];
  restarts = [ "no" "on-success" "on-failure" "on-abnormal" "on-abort" "on-watchdog" "always" ];
  kinds = [ "exec" "simple" "forking" "oneshot" "dbus" "notify" "notify-reload" "idle" ];
  serviceSection = types.addCheck section (
    service:
    # What is not discharged yet is not a string.
    (!(lib.isString (service.Type or null)) || lib.elem service.Type kinds)
    && (!(lib.isString (service.Restart or null)) || lib.elem service.Restart restarts)
  );
  unit = {
    description = of types.str "";
    documentation = strings;
    wantedBy = strings;
    wants = strings;
    after = strings;
    unitConfig = of section { };
  };
  service = types.submodule {
    options = unit // {
      environment = of (types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package ]))) { };
      path = of (types.listOf (types.oneOf [ types.package types.str ])) [ ];
      serviceConfig = of serviceSection { };
    };
  };
  timer = types.submodule { options = unit // { timerConfig = of section { }; }; };
  # nixos/modules/system/boot/systemd/tmpfiles.nix
  rule = types.submodule (
    { name, ... }:
    {
      options = {
        type = of types.str name;
        mode = of types.str "-";
        user = of types.str "-";
        group = of types.str "-";
        age = of types.str "-";
        argument = of types.str "";
      };
    }
  );
  # nixos/modules/config/users-groups.nix
  user = types.submodule {
    options = {
      isSystemUser = of types.bool false;
      isNormalUser = of types.bool false;
      group = of types.str "";
      home = of types.path "/var/empty";
      description = of types.str "";
    };
  };
  group = types.submodule { options.members = strings; };
  file = types.submodule {
    options = {
      source = mkOption { type = types.path; };
      recursive = of types.bool false;
    };
  };
in
{
  options = {
    assertions = of (types.listOf types.raw) [ ];
    warnings = strings;
    nixpkgs = attrs;
    boot.kernelParams = strings;
    environment.systemPackages = of (types.listOf types.package) [ ];
    environment.sessionVariables = of (types.attrsOf (types.nullOr (types.oneOf [ (types.listOf words) types.int types.str types.path ]))) { };
    hardware.graphics.enable = of types.bool false;
    hardware.graphics.extraPackages = of (types.listOf types.package) [ ];
    networking.firewall.allowedTCPPorts = of (types.listOf types.port) [ ];
    powerManagement.cpuFreqGovernor = of (types.nullOr types.str) null;
    services.udev.extraRules = of types.lines "";
    users.users = of (types.attrsOf user) { };
    users.groups = of (types.attrsOf group) { };
    systemd.services = of (types.attrsOf service) { };
    systemd.timers = of (types.attrsOf timer) { };
    systemd.tmpfiles.settings = of (types.attrsOf (types.attrsOf (types.attrsOf rule))) { };
    systemd.user.services = attrs;
    # nixos/modules/virtualisation/qemu-vm.nix
    virtualisation = {
      cores = of types.ints.positive 1;
      memorySize = of types.ints.positive 1024;
      diskSize = of (types.nullOr types.ints.positive) 1024;
    };
    # As nixpkgs has it, with other options: both can be there.
    services.comfyui.enable = of types.bool false;
    # nixos/modules/services/misc/ollama.nix, of which services.ollama-xpu is a preset.
    services.ollama = {
      enable = of types.bool false;
      package = mkOption { type = types.package; };
      host = of types.str "127.0.0.1";
      port = of types.port 11434;
      openFirewall = of types.bool false;
      environmentVariables = of (types.attrsOf types.str) { };
      loadModels = strings;
    };
    # nixos/modules/services/web-servers/nginx/default.nix and vhost-options.nix
    services.nginx = {
      enable = of types.bool false;
      recommendedTlsSettings = of types.bool false;
      mapHashBucketSize = of (types.nullOr (types.enum [ 32 64 128 ])) null;
      commonHttpConfig = of types.lines "";
      virtualHosts = of (types.attrsOf (types.submodule { options = {
        forceSSL = of types.bool false;
        enableACME = of types.bool false;
        # What has no default there has one only with ACME.
        sslCertificate = mkOption { type = types.path; };
        sslCertificateKey = mkOption { type = types.path; };
        sslTrustedCertificate = of (types.nullOr types.path) null;
        extraConfig = of types.lines "";
      }; })) { };
    };
    # nixos/modules/services/monitoring/prometheus
    services.prometheus = {
      enable = of types.bool false;
      listenAddress = of types.str "0.0.0.0";
      port = of types.port 9090;
      ruleFiles = of (types.listOf types.path) [ ];
      scrapeConfigs = of (types.listOf (types.submodule { options = {
        job_name = mkOption { type = types.str; };
        static_configs = of (types.listOf (types.submodule { options.targets = mkOption { type = types.listOf types.str; }; })) [ ];
      }; })) [ ];
      alertmanagers = of (types.listOf types.attrs) [ ];
      exporters.node = {
        enable = of types.bool false;
        listenAddress = of types.str "0.0.0.0";
        port = of types.port 9100;
      };
      alertmanager = {
        enable = of types.bool false;
        listenAddress = of types.str "";
        port = of types.port 9093;
        configuration = of (types.nullOr types.attrs) null;
      };
    };
    # nixos/modules/services/monitoring/grafana.nix
    services.grafana = {
      enable = of types.bool false;
      settings.security.secret_key = mkOption { type = types.str; }; # no default since NixOS 26.05
      provision = {
        enable = of types.bool false;
        datasources.settings.datasources = of (types.listOf (types.submodule { options = {
          name = mkOption { type = types.str; };
          type = mkOption { type = types.str; };
          url = of types.str "";
        }; })) [ ];
        dashboards.settings.providers = of (types.listOf (types.submodule { options = {
          name = of types.str "default";
          options.path = mkOption { type = types.path; };
        }; })) [ ];
      };
    };
    home.homeDirectory = of types.path "/home/alice";
    home.packages = of (types.listOf types.package) [ ];
    home.sessionVariables = of (types.attrsOf types.str) { };
    home.file = of (types.attrsOf file) { };
    programs.vscode.profiles = of (types.attrsOf (types.submodule { options.userSettings = attrs; })) { };
    xdg.dataHome = of types.path "/home/alice/.local/share";
  };
}
