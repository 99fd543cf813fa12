# services.intel-xpu-share: the arbiter in front of ComfyUI and Ollama, so that one card serves both.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = "services.intel-xpu-share";
  cfg = config.services.intel-xpu-share;
  comfyui = config.services.comfyui-xpu;
  inherit (config.services) ollama;
  addresses = import ./addresses.nix { inherit lib; };
  inherit (import ./systemd.nix { inherit lib; }) commandLine;
  hardening = import ./hardening.nix { inherit lib; };
  inherit (lib) mkOption types;
  bracketed = host: if lib.hasInfix ":" host && !(lib.hasPrefix "[" host) then "[${host}]" else host;
  # Where it is asked from this machine.
  reached =
    host:
    bracketed (
      {
        "0.0.0.0" = "127.0.0.1";
        "::" = "::1";
      }
      .${host} or host
    );
  address = host: port: "http://${reached host}:${toString port}";
  limits = lib.filterAttrs (_: size: size != null) {
    "comfyui-xpu.service" = cfg.limits.comfyui;
    "ollama.service" = cfg.limits.ollama;
  };
  limit =
    of:
    mkOption {
      type = types.nullOr (types.strMatching "[0-9]+([KMG]i?)?B?");
      default = null;
      example = "8GiB";
      description = "The most of the card's memory that ${of} may hold, by the kernel's dmem controller (Linux 6.14, xe); null: no limit.";
    };
in
{
  imports = [
    ./comfyui-xpu.nix
    ./ollama-xpu.nix
  ];

  options.services.intel-xpu-share = {
    enable = lib.mkEnableOption "the arbiter that shares one Intel GPU between ComfyUI and Ollama";

    package = lib.mkPackageOption { patchforge = pkgs.patchforge or (import ../. { inherit pkgs; }).patchforge; } "patchforge" { };

    policy = mkOption {
      type = types.enum [
        "comfyui-first"
        "ollama-first"
        "fair"
        "fit"
      ];
      default = "fair";
      description = "Who comes first when both want the card; `fit` unloads only what must go.";
    };

    ports = {
      comfyui = mkOption {
        type = types.port;
        default = 8288;
        description = "Port at which ComfyUI is to be asked, on this machine.";
      };
      ollama = mkOption {
        type = types.port;
        default = 11534;
        description = "Port at which Ollama is to be asked, on this machine.";
      };
    };

    patience = mkOption {
      type = types.ints.positive;
      default = 30;
      description = "Seconds in which unloaded memory must be seen free.";
    };

    limits = {
      comfyui = limit "ComfyUI";
      ollama = limit "Ollama";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = comfyui.enable && ollama.enable;
        message = "${name}: it shares a card between two services. Set services.comfyui-xpu.enable = true and services.ollama-xpu.enable = true.";
      }
      {
        assertion = addresses.isLoopback (lib.head comfyui.server.host) && addresses.isLoopback ollama.host;
        message = "${name}: others can reach ComfyUI or Ollama past it, and the card is not shared with them. Leave services.comfyui-xpu.server.host and services.ollama-xpu.server.host, and let services.comfyui-xpu.proxy face the network.";
      }
      {
        assertion =
          lib.length (
            lib.unique [
              cfg.ports.comfyui
              cfg.ports.ollama
              comfyui.server.port
              ollama.port
            ]
          ) == 4;
        message = "${name}: ports of the arbiter, of ComfyUI and of Ollama must differ. Set ports.comfyui and ports.ollama to free ones.";
      }
    ];

    systemd.services = {
      intel-xpu-share = {
        description = "Shares one Intel GPU between ComfyUI and Ollama";
        wantedBy = [ "multi-user.target" ];
        after = [
          "network.target"
          "comfyui-xpu.service"
          "ollama.service"
        ];
        serviceConfig =
          hardening {
            devices = [ ];
            peers = [ "localhost" ];
          }
          // {
            Type = "notify";
            ExecStart = commandLine [
              "${cfg.package}/bin/patchforge"
              "arbiter"
              "run"
              "--policy"
              cfg.policy
              "--comfyui"
              (address (lib.head comfyui.server.host) comfyui.server.port)
              "--ollama"
              (address ollama.host ollama.port)
              "--listen-comfyui"
              "127.0.0.1:${toString cfg.ports.comfyui}"
              "--listen-ollama"
              "127.0.0.1:${toString cfg.ports.ollama}"
              "--patience"
              (toString cfg.patience)
            ];
            DynamicUser = lib.mkDefault true;
            Restart = lib.mkDefault "on-failure";
            RestartSec = lib.mkDefault 2;
            # Answers come to their end first.
            TimeoutStopSec = lib.mkDefault "15min";
          };
      };
    }
    // lib.mapAttrs' (
      unit: size:
      lib.nameValuePair "intel-xpu-limit-${lib.removeSuffix ".service" unit}" {
        description = "Limits ${unit} to ${size} of the card's memory";
        wantedBy = [ unit ];
        after = [ unit ];
        unitConfig.PartOf = unit;
        serviceConfig =
          hardening {
            devices = [ ];
            peers = [ ];
          }
          // {
            Type = "oneshot";
            RemainAfterExit = true;
            ExecStart = commandLine [
              "${cfg.package}/bin/patchforge"
              "arbiter"
              "limit"
              unit
              size
            ];
            # Root's own files of the kernel, and nothing else of root's.
            MemoryDenyWriteExecute = true;
            PrivateNetwork = true;
            ProcSubset = "pid";
            PrivateUsers = false;
            ProtectControlGroups = false;
            # A kernel without the controller says so, and the service goes on without a limit.
            SuccessExitStatus = [ 69 ];
          };
      }
    ) limits;
  };
}
