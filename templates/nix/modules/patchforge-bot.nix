# services.patchforge-bot: the update bot, started by a timer.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = "services.patchforge-bot";
  cfg = config.services.patchforge-bot;
  inherit (import ./systemd.nix { inherit lib; }) commandLine;
  hardening = import ./hardening.nix { inherit lib; };
  inherit (lib) mkOption types;
  given = flags: lib.filter (word: lib.elem (lib.head (lib.splitString "=" word)) flags) cfg.extraArgs;
  taken = given [
    "--repository"
    "--token-file"
  ];
  # Releases, and node packs with `packs bot`: one at a time.
  units = {
    patchforge-bot = {
      of = "new ComfyUI releases";
      command = [ "bot" ];
      after = [ ];
    };
  }
  // lib.optionalAttrs cfg.nodes {
    patchforge-bot-nodes = {
      of = "node packs that have moved on";
      command = [
        "packs"
        "bot"
      ];
      after = [ "patchforge-bot.service" ];
    };
  };
in
{
  options.services.patchforge-bot = {
    enable = lib.mkEnableOption "the bot that proposes new ComfyUI releases as pull requests";

    package = lib.mkPackageOption { patchforge = pkgs.patchforge or (import ../. { inherit pkgs; }).patchforge; } "patchforge" { };

    repository = mkOption {
      type = types.strMatching "[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+";
      example = "someone/patchforge";
      description = "The repository on GitHub in which pull requests are opened.";
    };

    schedule = mkOption {
      type = types.str;
      default = "*-*-* 05:17:00";
      example = "Mon 06:00";
      description = ''
        When to run, as systemd's OnCalendar writes it; up to 30 minutes later, and after a start of the machine when a
        run was missed.
      '';
    };

    tokenFile = mkOption {
      type = types.externalPath;
      example = "/run/secrets/patchforge-bot";
      description = ''
        File with the token for GitHub, as one line. systemd reads it as root and passes it on as a credential; each run
        reads it again.
      '';
    };

    nodes = mkOption {
      type = types.bool;
      default = true;
      description = "Whether node packs that have moved on are proposed too, by a service called patchforge-bot-nodes.";
    };

    extraArgs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "--base"
        "release"
      ];
      description = "Further arguments of `patchforge bot` and `patchforge packs bot`.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = taken == [ ];
        message = "${name}: extraArgs has ${lib.concatStringsSep ", " taken}, for which there are options (repository, tokenFile).";
      }
      {
        assertion = given [ "--test" ] == [ ];
        message = "${name}: --test needs a GPU and installs packages, and the service can do neither. Remove it, and test with patchforge test.";
      }
      {
        assertion = given [ "--nodes" ] == [ ];
        message = "${name}: extraArgs has --nodes, for which there is an option (nodes).";
      }
    ];

    systemd.timers = lib.mapAttrs (_: unit: {
      description = "When to look for ${unit.of}";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.schedule;
        Persistent = true;
        RandomizedDelaySec = "30min";
      };
    }) units;

    systemd.services = lib.mapAttrs (
      unitName: unit:
      let
        cacheDir = "/var/cache/${unitName}";
      in
      {
        description = "Proposes ${unit.of} as pull requests";
        wants = [ "network-online.target" ];
        after = [ "network-online.target" ] ++ unit.after;
        environment = {
          HOME = cacheDir;
          PATCHFORGE_CACHE = cacheDir;
        }
        # The steps run the repository's own patchforge with the same interpreter, which lacks the package's dependencies.
        // lib.optionalAttrs (cfg.package ? dependenciesPath) { PYTHONPATH = cfg.package.dependenciesPath; };
        serviceConfig =
          hardening {
            devices = [ ];
            peers = null;
          }
          // {
            Type = "oneshot";
            ExecStart = commandLine (
              [ "${cfg.package}/bin/patchforge" ]
              ++ unit.command
              ++ [
                "--repository"
                cfg.repository
              ]
              ++ cfg.extraArgs
            );
            LoadCredential = [ "github-token:${cfg.tokenFile}" ];
            DynamicUser = true;
            CacheDirectory = unitName;
            CacheDirectoryMode = "0700";
            WorkingDirectory = cacheDir;
            Nice = 10;
            # Run it again later: the next run of the timer does.
            SuccessExitStatus = [ 75 ];
            TimeoutStartSec = "3h";
          };
      }
    ) units;
  };
}
