# One ComfyUI service: what services.comfyui-xpu and each of its instances become.
{
  lib,
  pkgs,
  name,
  unit,
  cfg,
}:
let
  settings = import ./settings.nix {
    inherit
      lib
      pkgs
      name
      cfg
      ;
  };
  inherit (import ./systemd.nix { inherit lib; }) commandLine escaped quoted;
  hardening = import ./hardening.nix { inherit lib; };

  cacheDir = "/var/cache/${unit}";
  dataDir = toString cfg.dataDir;
  # Whether a folder can be the service's own: a whole path that systemd can be told, and nobody else's.
  isOwn =
    path:
    let
      segments = lib.tail (lib.splitString "/" path);
      isWhole = lib.all (part: part != "" && part != "." && part != "..") segments;
      isPlain = builtins.match "[^\"'\\%:]*" path != null && builtins.match ".*[[:cntrl:]].*" path == null;
      isSystems =
        lib.length segments < 2
        || lib.elem path [
          "/var/lib"
          "/var/cache"
          "/var/log"
        ]
        || lib.hasPrefix builtins.storeDir path
        || (lib.head segments == "home" && lib.length segments < 3);
    in
    isWhole && isPlain && !isSystems;
  inState = lib.hasPrefix "/var/lib/" dataDir;
  isBelowHome = path: lib.hasPrefix "/home/" path || lib.hasPrefix "/root/" path;

  dynamic = cfg.user == null;
  # Downloads and the service are one user, which has a name for that.
  user = if dynamic then unit else cfg.user;
  group = if cfg.group == null && user == unit then unit else cfg.group;

  peers =
    if cfg.network.outgoing then
      null
    else
      [ "localhost" ] ++ lib.optionals (!settings.loopback) cfg.network.peers;
  devices =
    lib.optional (cfg.backend != "cpu") "char-drm"
    ++ lib.optionals (cfg.backend == "cuda" || cfg.backend == "auto") [
      "char-nvidia-caps"
      "char-nvidia-frontend"
      "char-nvidia-uvm"
      "char-nvidiactl"
    ];
  mask = digit: toString (7 - lib.toInt digit);
  umask =
    "0" + lib.concatMapStrings mask (lib.stringToCharacters (lib.removePrefix "0" cfg.directoryMode));

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
    lib.toInt (lib.head parts) * units.${lib.last parts};
  prune = pkgs.writeShellScript "prune-cache" (builtins.readFile ./prune-cache.sh);

  shownPaths = lib.filter isBelowHome (map toString (lib.concatLists (lib.attrValues cfg.modelPaths)));
  isElsewhere = !inState;
  homes = if isBelowHome dataDir || shownPaths != [ ] then "tmpfs" else true;
  modelsDir = toString cfg.models.cache;
  cacheElsewhere = cfg.models.autoDownload != [ ] && !(lib.hasPrefix "${dataDir}/" modelsDir);
  # Folders that systemd does not make by itself.
  elsewhere = lib.optional isElsewhere dataDir ++ lib.optional cacheElsewhere modelsDir;

  loaded = lib.mapAttrsToList (credential: path: "${credential}:${escaped path}") cfg.credentials;
  known = map (model: model.credential) (lib.filter (model: model.credential != null) cfg.models.autoDownload);
  unknown = lib.filter (credential: !(cfg.credentials ? ${credential})) known;

  # What both units share: whom they run as, and where.
  identity =
    (if dynamic then { DynamicUser = lib.mkDefault true; } else { })
    // {
      User = lib.mkDefault user;
    }
    // lib.optionalAttrs (group != null) { Group = lib.mkDefault group; }
    // lib.optionalAttrs inState {
      StateDirectory = map quoted [ (lib.removePrefix "/var/lib/" dataDir) ];
      StateDirectoryMode = lib.mkDefault cfg.directoryMode;
    }
    // lib.optionalAttrs (elsewhere != [ ]) {
      # Bound, and not ReadWritePaths, so that ProtectHome does not hide them.
      BindPaths = map quoted elsewhere;
    }
    // lib.optionalAttrs (cfg.credentials != { }) { LoadCredential = loaded; };

  # What looks at it: who they are, what they call it, and where they write down what they saw.
  watchDir = "/var/lib/${unit}-watch";
  host = lib.head cfg.server.host;
  reached =
    {
      "0.0.0.0" = "127.0.0.1";
      "::" = "::1";
    }
    .${host} or host;
  url = "http://${if lib.hasInfix ":" reached && !(lib.hasPrefix "[" reached) then "[${reached}]" else reached}:${toString cfg.server.port}";
  about = lib.optional (cfg.backend == "cpu") "--allow-cpu" ++ [
    "--state"
    watchDir
    url
  ];
  patience = cfg.health.interval * cfg.health.failures;
  given = flag: value: lib.optionals (value != null) [ flag value ];
  patchforge = words: commandLine ([ "${cfg.patchforge}/bin/patchforge" ] ++ words);
  watches = cfg.health.enable || cfg.validate || cfg.maintenance.enable;
  # Where a user that systemd makes has its folder, whose way there is closed to everybody but by such a mount.
  closedData = "/var/lib/private/${lib.removePrefix "/var/lib/" dataDir}";
  # What they wrote down is nobody's secret: the exporter reads it, who may be another user.
  open = {
    umask = "0022";
    mode = "0755";
  };
  watching =
    hardening {
      inherit devices;
      inherit (open) umask;
      peers = [ "localhost" ] ++ lib.optional (!settings.loopback) reached;
      homes = if isBelowHome dataDir then "tmpfs" else true;
    }
    # For how much room the disk has.
    // lib.optionalAttrs (dynamic || isBelowHome dataDir) {
      BindReadOnlyPaths = [ "-${quoted (if dynamic then closedData else dataDir)}" ];
    }
    // lib.optionalAttrs dynamic { DynamicUser = lib.mkDefault true; }
    // {
      User = lib.mkDefault user;
      StateDirectory = [ (quoted "${unit}-watch") ];
      StateDirectoryMode = lib.mkDefault open.mode;
    }
    // lib.optionalAttrs (group != null) { Group = lib.mkDefault group; };
in
{
  inherit unit;
  inherit (cfg.server) port;
  inherit (settings) package;

  assertions = settings.assertions ++ [
    {
      assertion = !(cfg.openFirewall && settings.loopback);
      message = "${name}: openFirewall opens a port on which ${lib.concatStringsSep ", " cfg.server.host} listens to this machine only. Set server.host = \"0.0.0.0\", or leave the firewall closed.";
    }
    {
      assertion = settings.loopback || cfg.network.trusted;
      message = "${name}: others can reach ${lib.concatStringsSep ", " cfg.server.host}, and whoever does can run programs: ComfyUI has no accounts. Use services.comfyui-xpu.proxy and leave server.host, or set network.trusted = true where you trust them all.";
    }
    {
      assertion = isOwn dataDir;
      message = "${name}: dataDir = \"${dataDir}\" is not a folder of the service's own. Name one such as \"/srv/comfyui\", without a slash at the end, \"..\", quotes, % or colons.";
    }
    {
      assertion = !dynamic || inState;
      message = "${name}: dataDir = \"${dataDir}\" is outside /var/lib, where a user that systemd makes cannot write. Set user, such as user = \"${unit}\", or use a folder in /var/lib.";
    }
    {
      assertion = !cacheElsewhere || (!dynamic && isOwn modelsDir);
      message = "${name}: models.cache = \"${modelsDir}\" is ${
        if dynamic then
          "outside dataDir, where a user that systemd makes cannot write. Set user, such as user = \"${unit}\", or leave it out."
        else
          "no folder of the service's own. Name one such as \"/srv/models\"."
      }";
    }
    {
      assertion = !(dynamic && cfg.group != null);
      message = "${name}: group needs user as well. Set both, or neither; extraGroups adds groups to any user.";
    }
    {
      assertion = cfg.network.outgoing || !(cfg.credentials ? hf-token) || cfg.models.autoDownload != [ ];
      message = "${name}: credentials.hf-token is for downloads, and network.outgoing = false forbids them. Set network.outgoing = true, list models.autoDownload, or remove the token.";
    }
    {
      assertion = lib.all (credential: builtins.match "[A-Za-z0-9_.-]+" credential != null) (lib.attrNames cfg.credentials);
      message = "${name}: credentials are named with letters, digits, dots, dashes and underscores.";
    }
    {
      assertion = unknown == [ ];
      message = "${name}: models.autoDownload asks for ${lib.concatStringsSep ", " unknown}, which is not in credentials. Add the file there.";
    }
  ];

  tmpfiles = lib.genAttrs elsewhere (_: {
    d = {
      mode = cfg.directoryMode;
      inherit user;
      group = if group == null then "-" else group;
    };
  });

  users = lib.optionalAttrs (!dynamic && user == unit) {
    ${unit} = {
      isSystemUser = true;
      group = if group == null then unit else group;
      home = dataDir;
      description = "ComfyUI for Intel GPUs";
    };
  };
  groups = lib.optionalAttrs (!dynamic && group == unit) { ${unit} = { }; };

  timers = lib.optionalAttrs cfg.maintenance.enable {
    "${unit}-maintenance" = {
      description = "When to clean up after ${unit}";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.maintenance.schedule;
        Persistent = true;
        RandomizedDelaySec = "15min";
      };
    };
  };

  services = {
    ${unit} = {
      description = "ComfyUI for Intel GPUs";
      documentation = [ "https://docs.comfy.org/" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      inherit (cfg) path;
      unitConfig = lib.optionalAttrs (cfg.requiresMounts != [ ]) { RequiresMountsFor = map quoted cfg.requiresMounts; };
      environment = lib.mapAttrs (_: value: escaped value) (
        {
          COMFYUI_CACHE = cacheDir;
          COMFYUI_DIR = dataDir;
          HOME = dataDir;
        }
        // lib.optionalAttrs (cfg.fonts != [ ]) {
          FONTCONFIG_FILE = toString (pkgs.makeFontsConf { fontDirectories = cfg.fonts; });
        }
        // cfg.environment
      )
      // lib.optionalAttrs (cfg.credentials ? hf-token) { HF_TOKEN_PATH = "%d/hf-token"; };

      serviceConfig =
        lib.optionalAttrs cfg.hardening (
          hardening {
            inherit
              devices
              homes
              peers
              umask
              ;
            inherit (cfg) extraGroups;
          }
          // lib.optionalAttrs (shownPaths != [ ]) { BindReadOnlyPaths = map (path: "-${quoted path}") shownPaths; }
        )
        // lib.optionalAttrs (!cfg.hardening) {
          UMask = lib.mkDefault umask;
          SupplementaryGroups = cfg.extraGroups;
        }
        // identity
        # Here as well, so that it is there when the exporter starts; ComfyUI itself does not write there.
        // lib.optionalAttrs watches {
          StateDirectory = (identity.StateDirectory or [ ]) ++ [ (quoted "${unit}-watch") ];
          ReadOnlyPaths = [ (quoted "/var/lib/${lib.optionalString dynamic "private/"}${unit}-watch") ];
        }
        // {
          Type = lib.mkDefault "exec";
          ExecStart = lib.mkDefault (commandLine ([ "${cfg.finalPackage}/bin/${settings.program}" ] ++ settings.arguments));
          CacheDirectory = [ unit ];
          CacheDirectoryMode = lib.mkDefault "0700";
          Restart = lib.mkDefault "on-failure";
          RestartSec = lib.mkDefault 5;
          TimeoutStopSec = lib.mkDefault 30;
          WorkingDirectory = lib.mkDefault (escaped dataDir);
        }
        // lib.optionalAttrs (cfg.cache.maxSize != null) {
          ExecStartPre = [
            (commandLine [
              prune
              cacheDir
              (bytes cfg.cache.maxSize)
            ])
          ];
        }
        // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = [ (escaped cfg.environmentFile) ]; }
        // lib.mapAttrs (_: lib.mkDefault) (
          lib.filterAttrs (_: value: value != null) {
            MemoryHigh = cfg.resources.memoryHigh;
            MemoryMax = cfg.resources.memoryMax;
            CPUQuota = cfg.resources.cpuQuota;
            TasksMax = cfg.resources.tasksMax;
          }
        );
    };
  }
  // lib.optionalAttrs cfg.health.enable {
    "${unit}-health" = {
      description = "Watches ${unit}";
      wantedBy = [ "${unit}.service" ];
      after = [ "${unit}.service" ];
      unitConfig = {
        BindsTo = "${unit}.service";
        OnFailure = "${unit}-recover.service";
      };
      serviceConfig =
        watching
        // {
          Type = lib.mkDefault "notify";
          ExecStart = lib.mkDefault (
            patchforge (
              [
                "health"
                (if cfg.health.deep then "--deep" else "--ready")
                "--watch"
                cfg.health.interval
                "--failures"
                cfg.health.failures
                "--disk"
                dataDir
              ]
              ++ about
            )
          );
          TimeoutStartSec = lib.mkDefault (patience + 60);
          WatchdogSec = lib.mkDefault (patience + 60);
          # What says nothing about ComfyUI is a success, and it looks again; a failure has ComfyUI started again, whose
          # start starts this: a unit that restarts by itself never enters the state that OnFailure waits for.
          Restart = lib.mkDefault "on-success";
          RestartSec = lib.mkDefault 10;
          SuccessExitStatus = [ "2 65 69 70 74 75" ];
        };
    };
    "${unit}-recover" = {
      description = "Starts ${unit} again";
      # Not for ever: somebody has to look.
      unitConfig = {
        StartLimitIntervalSec = "1h";
        StartLimitBurst = 5;
      };
      serviceConfig =
        hardening {
          devices = [ ];
          peers = [ ];
        }
        // {
          Type = "oneshot";
          # Only for what looks found, not where none could be made; and never so often that systemd gives up.
          ExecStart = commandLine [
            pkgs.runtimeShell
            "-c"
            "sleep 10; [ \"$MONITOR_SERVICE_RESULT\" = watchdog ] || [ \"$MONITOR_EXIT_STATUS\" = 1 ] || exit 0; exec \"$0\" \"$@\""
            "${pkgs.systemd}/bin/systemctl"
            "--no-block"
            "try-restart"
            "${unit}.service"
          ];
          # Root is asked for by systemd, and can do nothing else: no capability, no network, no file.
          PrivateUsers = false;
          PrivateNetwork = true;
          RestrictAddressFamilies = [ "AF_UNIX" ];
        };
    };
  }
  // lib.optionalAttrs cfg.validate {
    "${unit}-validate" = {
      description = "Says whether ${unit} may stay as it is";
      # Whenever it starts, also by itself after it was killed.
      wantedBy = [ "${unit}.service" ];
      after = [ "${unit}.service" ];
      serviceConfig =
        watching
        // {
          Type = lib.mkDefault "oneshot";
          ExecStart = lib.mkDefault (
            patchforge (
              [ "validate" ]
              ++ lib.optionals (cfg.finalPackage ? environment) [
                "--python"
                "${cfg.finalPackage.environment}/bin/python"
              ]
              ++ about
            )
          );
          TimeoutStartSec = lib.mkDefault "30min";
          SuccessExitStatus = [ "69 75" ];
        };
    };
  }
  // lib.optionalAttrs cfg.maintenance.enable {
    "${unit}-maintenance" = {
      description = "Removes what ${unit} no longer needs";
      unitConfig.ConditionPathIsDirectory = escaped dataDir;
      serviceConfig =
        hardening {
          devices = [ ];
          peers = [ ];
          inherit homes;
          inherit (open) umask;
        }
        // identity
        # Bound: as a state directory it would get the mode of what is written down.
        // lib.optionalAttrs inState {
          BindPaths = [ (quoted (if dynamic then closedData else dataDir)) ];
        }
        // {
          Type = lib.mkDefault "oneshot";
          ExecStart = lib.mkDefault (
            patchforge (
              [
                "maintain"
                dataDir
                "--temp-age"
                cfg.maintenance.tempAge
                "--cache"
                cacheDir
                "--cache-age"
                cfg.maintenance.cacheAge
              ]
              ++ given "--output-age" cfg.maintenance.outputAge
              ++ given "--output-size" cfg.maintenance.outputSize
              ++ given "--model-age" cfg.maintenance.modelAge
              ++ [
                "--state"
                watchDir
              ]
            )
          );
          CacheDirectory = [ unit ];
          CacheDirectoryMode = lib.mkDefault "0700";
          StateDirectory = [ (quoted "${unit}-watch") ];
          StateDirectoryMode = lib.mkDefault open.mode;
          Nice = lib.mkDefault 19;
          IOSchedulingClass = lib.mkDefault "idle";
        };
    };
  }
  // lib.optionalAttrs (cfg.models.autoDownload != [ ]) {
    "${unit}-models" = {
      description = "Models for ${unit}";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      unitConfig = lib.optionalAttrs (cfg.requiresMounts != [ ]) { RequiresMountsFor = map quoted cfg.requiresMounts; };
      serviceConfig =
        hardening {
          devices = [ ];
          inherit homes umask;
          peers = null;
        }
        // identity
        // {
          Type = lib.mkDefault "oneshot";
          ExecStart = commandLine [
            pkgs.python3.interpreter
            ./fetch-models.py
            (pkgs.writeText "models.json" (
              builtins.toJSON {
                folder = modelsDir;
                limit = if cfg.models.maxSize == null then null else bytes cfg.models.maxSize;
                models = cfg.models.autoDownload;
              }
            ))
          ];
          Restart = lib.mkDefault "on-failure";
          RestartSec = lib.mkDefault "1min";
          TimeoutStartSec = lib.mkDefault "infinity";
        };
    };
  };
}
