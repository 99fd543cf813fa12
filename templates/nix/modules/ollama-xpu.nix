# services.ollama-xpu: nixpkgs' services.ollama with what an Intel GPU needs. Models, users and the rest are its options.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = "services.ollama-xpu";
  cfg = config.services.ollama-xpu;
  addresses = import ./addresses.nix { inherit lib; };
  inherit (lib) mkOption types;
  # Also what is set there directly.
  ollama = config.services.ollama;
  loopback = addresses.isLoopback ollama.host;
  host = if lib.hasInfix ":" cfg.server.host && !(lib.hasPrefix "[" cfg.server.host) then "[${cfg.server.host}]" else cfg.server.host;
  scope = import ../. { inherit pkgs; };
in
{
  imports = [ ./intel-xpu.nix ];

  options.services.ollama-xpu = {
    enable = lib.mkEnableOption "nixpkgs' Ollama service on Intel GPUs, through Vulkan";

    package = lib.mkPackageOption { ollama-xpu = pkgs.ollama-xpu or scope.ollama-xpu; } "ollama-xpu" { };

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

    network = {
      trusted = mkOption {
        type = types.bool;
        default = false;
        description = "That everybody who can reach a `server.host` of other machines may use, change and delete its models: Ollama has no accounts.";
      };
      outgoing = mkOption {
        type = types.bool;
        default = true;
        description = "Whether the service may connect to other machines; `ollama pull` needs it.";
      };
      peers = mkOption {
        type = types.listOf types.str;
        default = addresses.local;
        example = [ "192.168.1.0/24" ];
        description = "With `outgoing = false`: the networks that may use a service which listens to others.";
      };
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
        assertion = !(ollama.openFirewall && loopback);
        message = "${name}: openFirewall opens a port on which ${ollama.host} listens to this machine only. Set server.host = \"0.0.0.0\", or leave the firewall closed.";
      }
      {
        assertion = loopback || cfg.network.trusted;
        message = "${name}: others can reach ${ollama.host}, and Ollama has no accounts. Use services.comfyui-xpu.proxy with ollama.domain and leave server.host, or set network.trusted = true where you trust them all.";
      }
      {
        assertion = cfg.package.backend or cfg.backend == cfg.backend;
        message = "${name}: the package computes with ${cfg.package.backend or ""}, not with ${cfg.backend}. Set package = pkgs.ollama-xpu.override { ollamaSycl = <an Ollama with SYCL>; }, or backend = \"${cfg.package.backend or ""}\".";
      }
      {
        assertion = ollama.port >= 1024;
        message = "${name}: port ${toString ollama.port} needs a privilege that the service does not have. Use a port from 1024, behind a reverse proxy.";
      }
    ];

    hardware.intel-xpu.enable = lib.mkDefault true;
    services.ollama = {
      enable = true;
      package = lib.mkDefault cfg.package;
      host = lib.mkDefault host;
      port = lib.mkDefault cfg.server.port;
      openFirewall = lib.mkDefault cfg.openFirewall;
      environmentVariables =
        lib.optionalAttrs (cfg.device != "auto") {
          ${if cfg.backend == "vulkan" then "GGML_VK_VISIBLE_DEVICES" else "ZE_AFFINITY_MASK"} = cfg.device;
        }
        // cfg.environment;
    };
    systemd.services.ollama.serviceConfig = lib.mkIf (!cfg.network.outgoing) {
      IPAddressAllow = [ "localhost" ] ++ lib.optionals (!loopback) cfg.network.peers;
      IPAddressDeny = [ "any" ];
    };
  };
}
