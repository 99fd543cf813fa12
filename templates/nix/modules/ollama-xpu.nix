# services.ollama-xpu; nixpkgs' own services.ollama is left alone.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = "services.ollama-xpu";
  cfg = config.services.ollama-xpu;
  commandLine = import ./systemd.nix { inherit lib; };
  hardening = import ./hardening.nix { inherit lib; };
  inherit (lib) mkOption types;
  loopback = lib.elem cfg.server.host [
    "127.0.0.1"
    "::1"
    "localhost"
  ];
  host = if lib.hasInfix ":" cfg.server.host then "[${cfg.server.host}]" else cfg.server.host;
in
{
  imports = [ ./intel-xpu.nix ];

  options.services.ollama-xpu = {
    enable = lib.mkEnableOption "Ollama on Intel GPUs, through Vulkan";

    package = mkOption {
      type = types.package;
      default = pkgs.ollama-xpu or (import ../. { inherit pkgs; }).ollama-xpu;
      defaultText = lib.literalExpression "pkgs.ollama-xpu";
      description = "The Ollama to run.";
    };

    backend = mkOption {
      type = types.enum [
        "vulkan"
        "sycl"
      ];
      default = "vulkan";
      description = "`sycl` is experimental, and needs a package that has it: `pkgs.ollama-xpu.override { ollamaSycl = …; }`.";
    };

    device = mkOption {
      type = types.strMatching "auto|[0-9]+(,[0-9]+)*";
      default = "auto";
      example = "0";
      description = "Which GPU: `auto`, or numbers such as `0`.";
    };

    server = {
      host = mkOption {
        type = types.str;
        default = "127.0.0.1";
        description = "Address to listen on.";
      };
      port = mkOption {
        type = types.port;
        default = 11434;
        description = "Port to listen on.";
      };
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the port in the firewall.";
    };

    network.outgoing = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the service may connect to other machines; `ollama pull` needs it.";
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        OLLAMA_KEEP_ALIVE = "10m";
      };
      description = "Environment variables. They are world-readable: no tokens here.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !(cfg.openFirewall && loopback);
        message = "${name}: openFirewall opens a port on which ${cfg.server.host} listens to this machine only. Set server.host = \"0.0.0.0\", or leave the firewall closed.";
      }
      {
        assertion = cfg.package.backend or cfg.backend == cfg.backend;
        message = "${name}: the package computes with ${cfg.package.backend or ""}, not with ${cfg.backend}. Set package = pkgs.ollama-xpu.override { ollamaSycl = <an Ollama with SYCL>; }, or backend = \"${cfg.package.backend or ""}\".";
      }
      {
        assertion = cfg.server.port >= 1024;
        message = "${name}: port ${toString cfg.server.port} needs a privilege that the service does not have. Use a port from 1024, behind a reverse proxy.";
      }
    ];

    hardware.intel-xpu.enable = lib.mkDefault true;
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.server.port ];
    environment.systemPackages = [ cfg.package ];

    systemd.services.ollama-xpu = {
      description = "Ollama on Intel GPUs";
      documentation = [ "https://docs.ollama.com/" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      environment = {
        HOME = "/var/lib/ollama-xpu";
        OLLAMA_HOST = "${host}:${toString cfg.server.port}";
        OLLAMA_MODELS = "/var/lib/ollama-xpu/models";
      }
      // lib.optionalAttrs (cfg.device != "auto") {
        ${if cfg.backend == "vulkan" then "GGML_VK_VISIBLE_DEVICES" else "ZE_AFFINITY_MASK"} = cfg.device;
      }
      // cfg.environment;
      serviceConfig =
        hardening {
          devices = [ "char-drm" ];
          localOnly = loopback && !cfg.network.outgoing;
        }
        // {
          Type = "exec";
          ExecStart = commandLine [
            "${cfg.package}/bin/ollama"
            "serve"
          ];
          DynamicUser = true;
          StateDirectory = "ollama-xpu";
          StateDirectoryMode = "0700";
          WorkingDirectory = "/var/lib/ollama-xpu";
          Restart = "on-failure";
          RestartSec = 5;
        };
    };
  };
}
