# Options of the NixOS service, for services.comfyui-xpu itself and for each of its further instances.
{
  lib,
  pkgs,
  name,
  cfg,
  # The unit's name, which is that of its folders and of the user that the module makes.
  unit,
}:
let
  inherit (lib) mkOption types;
in
import ./options.nix {
  inherit
    lib
    pkgs
    name
    cfg
    ;
  downloads = {
    autoDownload = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            path = mkOption {
              type = types.str;
              example = "checkpoints/model.safetensors";
              description = "Kind of model and file name.";
            };
            url = mkOption {
              type = types.strMatching "https://.+";
              description = "Where the file is.";
            };
            hash = mkOption {
              type = types.strMatching "sha256-[A-Za-z0-9+/]{43}=";
              description = "Its SHA-256 hash (SRI); nothing else is kept.";
            };
            credential = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "hf-token";
              description = "The one of `credentials` that the address asks for; it is sent to this host alone.";
            };
          };
        }
      );
      default = [ ];
      description = ''
        Models that `${unit}-models.service` downloads into `models.cache` once the network is up, outside of the Nix
        store: large ones, and gated ones. ComfyUI does not wait for them, and needs no network itself.
      '';
    };
    cache = mkOption {
      type = types.path;
      default = "${toString cfg.dataDir}/downloads";
      defaultText = lib.literalExpression ''"''${dataDir}/downloads"'';
      description = "Folder of `models.autoDownload`: in dataDir, or, with `user`, another one, which is made if it is not there.";
    };
    maxSize = mkOption {
      type = types.nullOr (types.strMatching "[1-9][0-9]{0,5}[KMGT]");
      default = null;
      example = "200G";
      description = ''
        Size of `models.cache` above which files that `models.autoDownload` no longer lists are removed, the least
        recently used first.
      '';
    };
  };
}
// {
  autoDrivers = mkOption {
    type = types.bool;
    default = cfg.backend == "auto" || cfg.backend == "xpu";
    defaultText = lib.literalExpression ''backend is "auto" or "xpu"'';
    description = "Whether to set up Intel's driver with `hardware.intel-xpu.enable`.";
  };

  dataDir = mkOption {
    type = types.path;
    default = "/var/lib/${unit}";
    example = "/srv/comfyui";
    description = ''
      Folder for models, inputs, outputs, custom nodes and user settings. Outside /var/lib it is made if it is not there,
      and is all that the service sees of its surroundings, /home included.
    '';
  };

  directoryMode = mkOption {
    type = types.strMatching "0?[0-7]{3}";
    default = "0700";
    example = "0750";
    description = "Mode of dataDir; what the service makes in it gets the same. With `0750`, its group may look at pictures.";
  };

  user = mkOption {
    type = types.nullOr types.str;
    default = null;
    example = unit;
    description = ''
      Whom to run as. null: a user that systemd makes while the service runs. `${unit}`: a lasting one that this module
      makes. Any other has to exist.
    '';
  };

  group = mkOption {
    type = types.nullOr types.str;
    default = null;
    example = "media";
    description = "Group to run as; null: the user's own. `${unit}` is made by this module, any other has to exist.";
  };

  extraGroups = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [ "media" ];
    description = "Further groups of the service, beside render and video.";
  };

  environmentFile = mkOption {
    type = types.nullOr types.externalPath;
    default = null;
    example = "/run/secrets/comfyui.env";
    description = "File with lines `NAME=value` that systemd reads as root: for tokens that node packs take from variables.";
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
      description = ''
        That everybody who can reach `server.host` may run programs as this service, where others than this machine can:
        ComfyUI has no accounts. `services.comfyui-xpu.proxy` lets in who has a role, and needs neither.
      '';
    };
    outgoing = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the service may connect to other machines. ComfyUI itself need not; nodes that download models, and those
        that use web services, do.
      '';
    };
    peers = mkOption {
      type = types.listOf types.str;
      default = (import ./addresses.nix { inherit lib; }).local;
      example = [ "192.168.1.0/24" ];
      description = ''
        With `outgoing = false`: the networks that may use a service which listens to others. It can talk to nobody else.
      '';
    };
  };

  path = mkOption {
    type = types.listOf types.package;
    default = [ ];
    example = lib.literalExpression "[ pkgs.ffmpeg pkgs.git ]";
    description = "Programs that node packs call. Compilers for Triton and torch.compile are there.";
  };

  fonts = mkOption {
    type = types.listOf types.package;
    default = [ pkgs.dejavu_fonts ];
    defaultText = lib.literalExpression "[ pkgs.dejavu_fonts ]";
    description = "Fonts for node packs that write into pictures.";
  };

  cache.maxSize = mkOption {
    type = types.nullOr (types.strMatching "[1-9][0-9]{0,5}[KMGT]");
    default = "8G";
    description = "Size to which compiled kernels in /var/cache/${unit} are cut back at every start, the oldest first.";
  };

  credentials = mkOption {
    type = types.attrsOf types.externalPath;
    default = { };
    example = {
      hf-token = "/run/secrets/hf-token";
    };
    description = ''
      Files with secrets, by name; as text, because a path of Nix code would be copied into the store. The service reads
      them in `$CREDENTIALS_DIRECTORY`; `hf-token` also becomes `HF_TOKEN_PATH`.
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

  health = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether `${unit}-health.service` looks again and again whether ComfyUI is in order, and has it started again when it is not.";
    };
    deep = mkOption {
      type = types.bool;
      default = false;
      description = "Whether each look samples a tiny model on the GPU, which also finds a worker that hangs behind a server that answers.";
    };
    interval = mkOption {
      type = types.ints.positive;
      default = 30;
      description = "Seconds between looks.";
    };
    failures = mkOption {
      type = types.ints.positive;
      default = 20;
      description = "After how many looks in a row that found something wrong it is started again: by default after 10 minutes. That is also the time that a start may take, and a job that keeps it from answering.";
    };
    pack = mkOption {
      type = types.bool;
      default = cfg.health.enable || cfg.validate;
      defaultText = lib.literalExpression "health.enable || validate";
      description = "Whether ComfyUI has the pack patchforge-watch, with which a look can be deep and the exporter knows of nodes.";
    };
  };

  validate = mkOption {
    type = types.bool;
    default = false;
    description = "Whether `patchforge validate` runs after each start, and so after each update; `systemctl status ${unit}-validate` says what it found.";
  };

  maintenance = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether a timer removes what is old, with `patchforge maintain`: nothing that is open or linked.";
    };
    schedule = mkOption {
      type = types.str;
      default = "*-*-* 04:41:00";
      description = "When, as systemd's OnCalendar writes it.";
    };
    outputAge = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 90;
      description = "Days after which outputs are removed; null: never.";
    };
    outputSize = mkOption {
      type = types.nullOr (types.strMatching "[1-9][0-9]{0,5}[KMGT]");
      default = null;
      example = "200G";
      description = "Size of all outputs above which the oldest are removed.";
    };
    tempAge = mkOption {
      type = types.ints.positive;
      default = 1;
      description = "Days after which temporary files are removed.";
    };
    cacheAge = mkOption {
      type = types.ints.positive;
      default = 30;
      description = "Days after which compiled code that nobody used is removed.";
    };
    modelAge = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 180;
      description = "Days after which models in dataDir that nobody read are listed in the journal. They stay.";
    };
  };

  patchforge = lib.mkPackageOption { patchforge = pkgs.patchforge or (import ../. { inherit pkgs; }).patchforge; } "patchforge" {
    extraDescription = "For `health`, `validate` and `maintenance`.";
  };

  hardening = mkOption {
    type = types.bool;
    default = true;
    description = ''
      Whether to confine the service. Single settings can be changed in `systemd.services.${unit}.serviceConfig` without
      switching all of them off, and its lists added to.
    '';
  };
}
