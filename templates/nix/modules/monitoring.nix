# services.comfyui-xpu.monitoring: the exporter, and Prometheus, Alertmanager and Grafana with the rules and the dashboard
# that belong to it. All listen on this machine only, unless their own options say otherwise.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  comfyui = config.services.comfyui-xpu;
  cfg = comfyui.monitoring;
  inherit (config.services) ollama prometheus;
  inherit (import ./systemd.nix { inherit lib; }) commandLine;
  hardening = import ./hardening.nix { inherit lib; };
  inherit (lib) mkOption types;

  made = ../../monitoring;
  bracketed = host: if lib.hasInfix ":" host && !(lib.hasPrefix "[" host) then "[${host}]" else host;
  reached =
    host:
    bracketed (
      {
        "0.0.0.0" = "127.0.0.1";
        "::" = "::1";
      }
      .${host} or host
    );
  services =
    lib.optionalAttrs comfyui.enable { comfyui-xpu = comfyui; }
    // lib.mapAttrs' (name: instance: lib.nameValuePair "comfyui-xpu-${name}" instance) (
      lib.filterAttrs (_: instance: instance.enable) comfyui.instances
    );
  watched = lib.attrValues services;
  folders = lib.unique (
    [ "comfyui-xpu-watch" ] ++ map (unit: "${unit}-watch") (lib.attrNames services)
  );
  # Of users that systemd makes: closed to others but by such a mount.
  closed = lib.concatLists (
    lib.mapAttrsToList (
      unit: service:
      lib.optionals (service.user == null) [
        "-/var/lib/private/${unit}-watch"
        "-/var/lib/private/${lib.removePrefix "/var/lib/" (toString service.dataDir)}"
      ]
    ) services
  );
  each = flag: lib.concatMap (value: [ flag value ]);
  user = if comfyui.user == null then "comfyui-xpu" else comfyui.user;
in
{
  options.services.comfyui-xpu.monitoring = {
    enable = lib.mkEnableOption "the exporter for Prometheus, and a Prometheus with its rules";

    package = lib.mkPackageOption { patchforge = pkgs.patchforge or (import ../. { inherit pkgs; }).patchforge; } "patchforge" { };

    port = mkOption {
      type = types.port;
      default = 9188;
      description = "Port of the exporter, on this machine only; it also shows a page.";
    };

    prometheus = mkOption {
      type = types.bool;
      default = true;
      description = "Whether `services.prometheus` and its node exporter run here, and read the exporter and the alert rules.";
    };

    alertmanager = mkOption {
      type = types.nullOr (types.attrsOf types.raw);
      default = null;
      example = lib.literalExpression ''
        {
          route.receiver = "mail";
          receivers = [
            {
              name = "mail";
              email_configs = [ { to = "admin@example.org"; from = "studio@example.org"; smarthost = "mail.example.org:587"; } ];
            }
          ];
        }
      '';
      description = "Configuration of an Alertmanager here; null: none. It is world-readable: secrets go into files that it names.";
    };

    grafana = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether `services.grafana` runs here, with this Prometheus and the dashboard. Since NixOS 26.05 Grafana's own
        `services.grafana.settings.security.secret_key` has to be set as well, best as `"$__file{/run/secrets/grafana}"`.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = watched != [ ];
        message = "services.comfyui-xpu.monitoring: there is nothing to watch. Set services.comfyui-xpu.enable = true, or enable an instance.";
      }
      {
        assertion = cfg.prometheus || (cfg.alertmanager == null && !cfg.grafana);
        message = "services.comfyui-xpu.monitoring: alertmanager and grafana need the Prometheus that prometheus = false leaves out. Set them up where your Prometheus is.";
      }
    ];

    services.comfyui-xpu.health.pack = lib.mkDefault true;

    # It reads /sys and /proc, and what processes of ComfyUI's user tell of themselves.
    systemd.services.comfyui-xpu-exporter = {
      description = "Tells Prometheus what Intel GPUs, ComfyUI and Ollama do";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ] ++ map (unit: "${unit}.service") (lib.attrNames services);
      serviceConfig =
        hardening {
          devices = [ ];
          # Its own name is another address.
          peers = if comfyui.proxy.enable then null else [ "localhost" ];
          homes = "read-only";
        }
        // {
          Type = "exec";
          ExecStart = commandLine (
            [
              "${cfg.package}/bin/patchforge"
              "exporter"
              "--listen"
              "127.0.0.1:${toString cfg.port}"
            ]
            ++ each "--comfyui" (map (one: "http://${reached (lib.head one.server.host)}:${toString one.server.port}") watched)
            ++ lib.optionals ollama.enable (each "--ollama" [ "http://${reached ollama.host}:${toString ollama.port}" ])
            ++ each "--disk" (lib.unique (map (one: toString one.dataDir) watched))
            ++ lib.optionals comfyui.proxy.enable (each "--certificate" [ "${comfyui.proxy.domain}:443" ])
            ++ lib.optionals cfg.prometheus (each "--prometheus" [ "http://127.0.0.1:${toString prometheus.port}" ])
            ++ each "--state" (map (folder: "/var/lib/${folder}") folders)
          );
          User = lib.mkDefault user;
          StateDirectory = [ "comfyui-xpu-watch" ];
          StateDirectoryMode = lib.mkDefault "0755";
          Restart = lib.mkDefault "on-failure";
          RestartSec = lib.mkDefault 10;
        }
        // lib.optionalAttrs (closed != [ ]) {
          TemporaryFileSystem = [ "/var/lib/private:ro,mode=0755" ];
          BindReadOnlyPaths = closed;
        }
        // lib.optionalAttrs (comfyui.user == null) { DynamicUser = lib.mkDefault true; };
    };

    services.prometheus = lib.mkIf cfg.prometheus {
      enable = true;
      listenAddress = lib.mkDefault "127.0.0.1";
      ruleFiles = [ (made + "/rules.yml") ];
      scrapeConfigs = [
        {
          job_name = "patchforge";
          static_configs = [ { targets = [ "127.0.0.1:${toString cfg.port}" ]; } ];
        }
        {
          job_name = "node";
          static_configs = [ { targets = [ "127.0.0.1:${toString prometheus.exporters.node.port}" ]; } ];
        }
      ];
      exporters.node = {
        enable = true;
        listenAddress = lib.mkDefault "127.0.0.1";
      };
      alertmanagers = lib.optional (cfg.alertmanager != null) {
        static_configs = [ { targets = [ "127.0.0.1:${toString prometheus.alertmanager.port}" ]; } ];
      };
      alertmanager = lib.mkIf (cfg.alertmanager != null) {
        enable = true;
        listenAddress = lib.mkDefault "127.0.0.1";
        configuration = cfg.alertmanager;
      };
    };

    services.grafana = lib.mkIf (cfg.grafana && cfg.prometheus) {
      enable = true;
      provision = {
        enable = true;
        datasources.settings.datasources = [
          {
            name = "Prometheus";
            type = "prometheus";
            url = "http://127.0.0.1:${toString prometheus.port}";
          }
        ];
        dashboards.settings.providers = [
          {
            name = "patchforge";
            # Copied, so that it goes wherever the system goes.
            options.path = "${made}";
          }
        ];
      };
    };
  };
}
