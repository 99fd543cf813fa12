# services.comfyui-xpu; nixpkgs' own services.comfyui is left alone.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.comfyui-xpu;
  optionsFor =
    name: unit: cfg:
    import ./service-options.nix {
      inherit
        lib
        pkgs
        name
        unit
        cfg
        ;
    };
  serviceFor =
    name: unit: cfg:
    import ./service.nix {
      inherit
        lib
        pkgs
        name
        unit
        cfg
        ;
    };
  instanceName = instance: "services.comfyui-xpu.instances.${instance}";
  running =
    lib.optional cfg.enable (serviceFor "services.comfyui-xpu" "comfyui-xpu" cfg)
    ++ lib.mapAttrsToList (instance: serviceFor (instanceName instance) "comfyui-xpu-${instance}") (
      lib.filterAttrs (_: instance: instance.enable) cfg.instances
    );
  enabled = lib.optional cfg.enable cfg ++ lib.filter (instance: instance.enable) (lib.attrValues cfg.instances);
  merged = part: lib.mkMerge (map (service: service.${part}) running);
  # Units of a service that are named after it.
  reserved = [
    "exporter"
    "health"
    "maintenance"
    "models"
    "recover"
    "validate"
  ];
  ports = map (service: service.port) running;
in
{
  imports = [ ./intel-xpu.nix ];

  options.services.comfyui-xpu = optionsFor "services.comfyui-xpu" "comfyui-xpu" cfg // {
    instances = lib.mkOption {
      type = lib.types.attrsOf (
        lib.types.submodule (
          { name, config, ... }:
          {
            options = optionsFor (instanceName name) "comfyui-xpu-${name}" config;
          }
        )
      );
      default = { };
      visible = "shallow";
      example = lib.literalExpression ''
        {
          second = {
            enable = true;
            device = "1";
            server.port = 8189;
          };
        }
      '';
      description = ''
        Further ComfyUI services, with the same options as this one; `second` is `comfyui-xpu-second.service`, with a
        folder of its own.
      '';
    };
  };

  config = lib.mkIf (running != [ ]) {
    assertions = lib.concatMap (service: service.assertions) running ++ [
      {
        assertion = lib.length (lib.unique ports) == lib.length ports;
        message = "services.comfyui-xpu: two instances listen on one port (${lib.concatMapStringsSep ", " toString ports}). Set server.port of each.";
      }
      {
        assertion = lib.all (instance: builtins.match "[a-z0-9]([a-z0-9-]*[a-z0-9])?" instance != null && !(lib.elem instance reserved)) (
          lib.attrNames cfg.instances
        );
        message = "services.comfyui-xpu: instances are named with small letters, digits and dashes, and not ${lib.concatStringsSep ", " reserved}.";
      }
    ];

    hardware.intel-xpu.enable = lib.mkIf (lib.any (instance: instance.autoDrivers) enabled) (lib.mkDefault true);
    networking.firewall.allowedTCPPorts = map (instance: instance.server.port) (
      lib.filter (instance: instance.openFirewall) enabled
    );
    environment.systemPackages = lib.optional cfg.enable cfg.finalPackage;
    users.users = merged "users";
    users.groups = merged "groups";
    systemd.tmpfiles.settings = lib.mkMerge (
      map (service: lib.optionalAttrs (service.tmpfiles != { }) { "10-${service.unit}" = service.tmpfiles; }) running
    );
    systemd.services = merged "services";
    systemd.timers = merged "timers";
  };
}
