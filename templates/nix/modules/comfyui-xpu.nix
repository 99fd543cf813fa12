# services.comfyui-xpu; nixpkgs' own services.comfyui is left alone.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = "services.comfyui-xpu";
  cfg = config.services.comfyui-xpu;
  settings = import ./settings.nix {
    inherit
      lib
      pkgs
      name
      cfg
      ;
  };
  commandLine = import ./systemd.nix { inherit lib; };
  hardening = import ./hardening.nix { inherit lib; };
  inherit (lib) mkOption types;

  cacheDir = "/var/cache/comfyui-xpu";
  dynamic = cfg.user == null;
  inState = lib.hasPrefix "/var/lib/" cfg.dataDir;
  localOnly = settings.loopback && !cfg.network.outgoing;
  devices =
    lib.optional (cfg.backend != "cpu") "char-drm"
    ++ lib.optionals (cfg.backend == "cuda" || cfg.backend == "auto") [
      "char-nvidia-caps"
      "char-nvidia-frontend"
      "char-nvidia-uvm"
      "char-nvidiactl"
    ];

  units = {
    K = 1024;
    M = 1024 * 1024;
    G = 1024 * 1024 * 1024;
    T = 1024 * 1024 * 1024 * 1024;
  };
  bytes =
    text:
    let
      parts = builtins.match "([0-9]+)([KMGT])" text;
    in
    builtins.fromJSON (lib.head parts) * units.${lib.last parts};
  prune = pkgs.writeShellScript "prune-cache" (builtins.readFile ./prune-cache.sh);
in
{
  imports = [ ./intel-xpu.nix ];

  options.services.comfyui-xpu = import ./options.nix { inherit lib pkgs name; } // {
    autoDrivers = mkOption {
      type = types.bool;
      default = cfg.backend == "auto" || cfg.backend == "xpu";
      defaultText = lib.literalExpression ''backend is "auto" or "xpu"'';
      description = "Whether to set up Intel's driver with `hardware.intel-xpu.enable`.";
    };

    dataDir = mkOption {
      type = types.path;
      default = "/var/lib/comfyui-xpu";
      description = "Folder for models, inputs, outputs, custom nodes and user settings.";
    };

    user = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "An existing user to run as; null: one that systemd makes for the service.";
    };

    group = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "An existing group to run as.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the port in the firewall.";
    };

    network.outgoing = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the service may connect to other machines. ComfyUI itself need not; nodes that download models, and
        those that use web services, do.
      '';
    };

    cache.maxSize = mkOption {
      type = types.nullOr (types.strMatching "[0-9]+[KMGT]");
      default = "8G";
      description = "Size to which compiled kernels in ${cacheDir} are cut back at every start, the oldest first.";
    };

    credentials = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = {
        hf-token = "/run/secrets/hf-token";
      };
      description = ''
        Files with secrets, by name. The service reads them in `$CREDENTIALS_DIRECTORY`; `hf-token` also becomes
        `HF_TOKEN_PATH`.
      '';
    };

    requiresMounts = mkOption {
      type = types.listOf types.path;
      default = [ ];
      example = [ "/mnt/models" ];
      description = "Mounts without which the service does not start.";
    };

    resources = {
      memoryHigh = mkOption {
        type = types.nullOr types.str;
        default = "80%";
        description = "Memory above which the service is slowed down (MemoryHigh).";
      };
      memoryMax = mkOption {
        type = types.nullOr types.str;
        default = "90%";
        description = "Memory above which the service is ended (MemoryMax).";
      };
      cpuQuota = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "400%";
        description = "CPU time; 100% is one core (CPUQuota).";
      };
      tasksMax = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        description = "Number of processes and threads (TasksMax).";
      };
    };

    hardening = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether to confine the service. Single settings can be changed in
        `systemd.services.comfyui-xpu.serviceConfig` without switching all of them off.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    services.comfyui-xpu.finalPackage = settings.package;

    assertions = settings.assertions ++ [
      {
        assertion = !(cfg.openFirewall && settings.loopback);
        message = "${name}: openFirewall opens a port on which ${cfg.server.host} listens to this machine only. Set server.host = \"0.0.0.0\", or leave the firewall closed.";
      }
      {
        assertion = !dynamic || inState;
        message = "${name}: dataDir = \"${toString cfg.dataDir}\" is outside /var/lib, where a user that systemd makes cannot write. Set user, or use a folder in /var/lib.";
      }
      {
        assertion = !(dynamic && cfg.group != null);
        message = "${name}: group needs user as well. Set both, or neither.";
      }
      {
        assertion = cfg.network.outgoing || !(cfg.credentials ? hf-token);
        message = "${name}: credentials.hf-token is for downloads, and network.outgoing = false forbids them. Set network.outgoing = true, or remove the token.";
      }
      {
        assertion = !(cfg.hardening && lib.any (lib.hasPrefix "/home/") (lib.concatLists (lib.attrValues cfg.modelPaths)));
        message = "${name}: modelPaths in /home cannot be seen by the confined service. Move the models, or bind the folder elsewhere with fileSystems.";
      }
    ];

    hardware.intel-xpu.enable = lib.mkIf cfg.autoDrivers (lib.mkDefault true);
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.server.port ];
    environment.systemPackages = [ cfg.finalPackage ];
    systemd.tmpfiles.rules = lib.optional (!inState && !dynamic) (
      "d ${toString cfg.dataDir} 0700 ${cfg.user} ${if cfg.group == null then "-" else cfg.group} -"
    );

    systemd.services.comfyui-xpu = {
      description = "ComfyUI for Intel GPUs";
      documentation = [ "https://docs.comfy.org/" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      unitConfig = lib.optionalAttrs (cfg.requiresMounts != [ ]) { RequiresMountsFor = cfg.requiresMounts; };
      environment = {
        COMFYUI_CACHE = cacheDir;
        COMFYUI_DIR = toString cfg.dataDir;
        HOME = toString cfg.dataDir;
      }
      // lib.optionalAttrs (cfg.credentials ? hf-token) { HF_TOKEN_PATH = "%d/hf-token"; }
      // cfg.environment;

      serviceConfig =
        lib.optionalAttrs cfg.hardening (hardening {
          inherit devices localOnly;
        })
        // {
          Type = "exec";
          ExecStart = commandLine ([ "${cfg.finalPackage}/bin/${settings.program}" ] ++ settings.arguments);
          CacheDirectory = "comfyui-xpu";
          CacheDirectoryMode = "0700";
          Restart = "on-failure";
          RestartSec = 5;
          TimeoutStopSec = 30;
          WorkingDirectory = toString cfg.dataDir;
        }
        // lib.optionalAttrs (cfg.cache.maxSize != null) {
          ExecStartPre = commandLine [
            prune
            cacheDir
            (bytes cfg.cache.maxSize)
          ];
        }
        // (if dynamic then { DynamicUser = true; } else { User = cfg.user; })
        // lib.optionalAttrs (cfg.group != null) { Group = cfg.group; }
        // (
          if inState then
            {
              StateDirectory = lib.removePrefix "/var/lib/" (toString cfg.dataDir);
              StateDirectoryMode = "0700";
            }
          else
            { ReadWritePaths = [ (toString cfg.dataDir) ]; }
        )
        // lib.optionalAttrs (cfg.credentials != { }) {
          LoadCredential = lib.mapAttrsToList (credential: file: "${credential}:${toString file}") cfg.credentials;
        }
        // lib.filterAttrs (_: value: value != null) {
          MemoryHigh = cfg.resources.memoryHigh;
          MemoryMax = cfg.resources.memoryMax;
          CPUQuota = cfg.resources.cpuQuota;
          TasksMax = cfg.resources.tasksMax;
        };
    };
  };
}
