# services.comfyui-xpu.proxy: nginx in front of ComfyUI and Ollama, with the configuration that `patchforge door` writes.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = "services.comfyui-xpu.proxy";
  comfyui = config.services.comfyui-xpu;
  ollama = config.services.ollama;
  cfg = comfyui.proxy;
  data = import ../data.nix { inherit lib; };
  addresses = import ./addresses.nix { inherit lib; };
  inherit (lib) mkOption types;

  bracketed = host: if lib.hasInfix ":" host && !(lib.hasPrefix "[" host) then "[${host}]" else host;
  file = description: mkOption {
    type = types.nullOr types.externalPath;
    default = null;
    inherit description;
  };
  roles = [
    "viewer"
    "user"
    "admin"
  ];

  # systemd reads secrets as root, and only nginx sees them. Names are what nginx reads.
  secrets = lib.filterAttrs (_: path: path != null) {
    door-passwords = cfg.passwordsFile;
    door-tokens = cfg.tokensFile;
  };
  credential = secret: if secrets ? ${secret} then "/run/credentials/nginx.service/${secret}" else null;

  # Requests go by the arbiter, where there is one.
  share = config.services.intel-xpu-share or { enable = false; };
  withOllama = cfg.ollama.domain != null;
  settings = pkgs.writeText "door.json" (
    builtins.toJSON (
      {
        format = 1;
        comfyui = {
          inherit (cfg) domain;
          address =
            if share.enable then
              "http://127.0.0.1:${toString share.ports.comfyui}"
            else
              "http://${bracketed (lib.head comfyui.server.host)}:${toString comfyui.server.port}";
        };
        passwords = credential "door-passwords";
        tokens = credential "door-tokens";
        client_ca = cfg.clientCA;
        inherit (cfg)
          networks
          oidc
          packs
          rate
          routes
          upload
          users
          ;
      }
      // lib.optionalAttrs withOllama {
        ollama = {
          inherit (cfg.ollama) domain;
          address =
            if share.enable then
              "http://127.0.0.1:${toString share.ports.ollama}"
            else
              "http://${bracketed ollama.host}:${toString ollama.port}";
        };
      }
    )
  );
  parts = [
    "http"
    "comfyui"
  ]
  ++ lib.optional withOllama "ollama";
  # What is wrong with the settings fails here, when the system is built.
  door = pkgs.runCommand "patchforge-door" { } ''
    mkdir $out
    for part in ${lib.concatStringsSep " " parts}; do
      ${cfg.package}/bin/patchforge door render ${settings} --part $part > $out/$part.conf
    done
  '';
  host = program: {
    forceSSL = true;
    enableACME = cfg.certificate == null;
    # A certificate of the CA that signed the server's is nobody's: nginx would take it too.
    sslTrustedCertificate = lib.mkIf (cfg.clientCA != null) cfg.clientCA;
    extraConfig = "include ${door}/${program}.conf;";
  }
  // lib.optionalAttrs (cfg.certificate != null) {
    sslCertificate = cfg.certificate;
    sslCertificateKey = cfg.certificateKey;
  };
in
{
  options.services.comfyui-xpu.proxy = {
    enable = lib.mkEnableOption "nginx in front of ComfyUI, which lets in who has a role";

    package = lib.mkPackageOption { patchforge = pkgs.patchforge or (import ../. { inherit pkgs; }).patchforge; } "patchforge" { };

    domain = mkOption {
      type = types.str;
      example = "studio.example.org";
      description = "Where ComfyUI is shown.";
    };

    ollama.domain = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "llm.example.org";
      description = "Where Ollama is shown, to the same users; null: nowhere.";
    };

    users = mkOption {
      type = types.attrsOf (types.enum roles);
      default = { };
      example = {
        alice = "admin";
        bob = "user";
      };
      description = ''
        Who has which role: a `viewer` looks, a `user` also runs workflows and uploads, an `admin` also reads logs and makes
        users. docs/door.md has the table.
      '';
    };

    passwordsFile = file "File of users' passwords, as `htpasswd` writes it. systemd reads it as root.";
    tokensFile = file "File with lines `TOKEN NAME;`, for `Authorization: Bearer TOKEN`. systemd reads it as root.";

    clientCA = mkOption {
      type = types.nullOr types.externalPath;
      default = null;
      example = "/etc/ssl/studio-ca.pem";
      description = "The CA of users' certificates, which name them as CN.";
    };

    oidc = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            address = mkOption {
              type = types.str;
              default = "http://127.0.0.1:4180";
              description = "Where oauth2-proxy listens.";
            };
            groups = mkOption {
              type = types.attrsOf (types.listOf types.str);
              example = {
                user = [ "artists" ];
                admin = [ "operators" ];
              };
              description = "Its groups, by the role that they give.";
            };
          };
        }
      );
      default = null;
      description = "An oauth2-proxy that signs people in, such as nixpkgs' `services.oauth2-proxy` with `reverseProxy` and `setXauthrequest`.";
    };

    networks = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "192.168.1.0/24" ];
      description = "Networks that requests may come from; null: all.";
    };

    rate = mkOption {
      type = types.ints.positive;
      default = 20;
      description = "Requests in a second from one address; 20 times as many at once.";
    };

    upload = mkOption {
      type = types.strMatching "[1-9][0-9]{0,6}[kmg]";
      default = "200m";
      description = "The largest upload.";
    };

    packs = mkOption {
      type = types.listOf (types.enum data.door.packs);
      default = lib.intersectLists comfyui.nodes data.door.packs;
      defaultText = lib.literalExpression "those of nodes that have routes";
      description = "Node packs whose routes are open, to the roles that docs/door.md tells.";
    };

    routes = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            role = mkOption {
              type = types.enum roles;
              description = "Who may use them.";
            };
            does = mkOption {
              type = types.str;
              default = "read";
              description = "What they do, as `patchforge door routes` calls it.";
            };
            routes = mkOption {
              type = types.listOf types.str;
              example = [ "POST [/api]/mine" ];
              description = "Method and path; `[/api]` may stand there or not, `{name}` is one segment.";
            };
          };
        }
      );
      default = [ ];
      description = "Routes of other node packs that are opened.";
    };

    certificate = mkOption {
      type = types.nullOr types.externalPath;
      default = null;
      example = "/run/secrets/studio.pem";
      description = "Certificate with its chain, which nginx can read; null: one by ACME.";
    };
    certificateKey = file "The key of `certificate`, which nginx can read.";

    openFirewall = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to open ports 80 and 443.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = comfyui.enable;
        message = "${name}: there is no ComfyUI behind it. Set services.comfyui-xpu.enable = true.";
      }
      {
        assertion = addresses.areLoopback comfyui.server.host;
        message = "${name}: ComfyUI also listens to others on ${lib.concatStringsSep ", " comfyui.server.host}, who need not come through the door. Leave server.host at its default.";
      }
      {
        assertion = lib.any (given: given != null) [
          cfg.passwordsFile
          cfg.tokensFile
          cfg.clientCA
          cfg.oidc
        ];
        message = "${name}: nobody could sign in. Set passwordsFile, tokensFile, clientCA or oidc.";
      }
      {
        assertion = cfg.users != { } || cfg.oidc != null;
        message = "${name}: nobody has a role. Set users, such as users.alice = \"admin\".";
      }
      {
        assertion = cfg.networks != [ ];
        message = "${name}: networks is empty, so nobody could come in. Name some, such as \"192.168.1.0/24\", or leave it out for everywhere.";
      }
      {
        assertion = (cfg.certificate == null) == (cfg.certificateKey == null);
        message = "${name}: certificate and certificateKey need each other. Set both, or neither for ACME.";
      }
      {
        assertion = !withOllama || (ollama.enable && addresses.isLoopback ollama.host);
        message = "${name}: ollama.domain needs an Ollama that listens to this machine only. Set services.ollama-xpu.enable = true, and leave its server.host.";
      }
    ];

    services.nginx = {
      enable = true;
      recommendedTlsSettings = lib.mkDefault true;
      # A token is long.
      mapHashBucketSize = lib.mkDefault 128;
      commonHttpConfig = "include ${door}/http.conf;";
      virtualHosts = {
        ${cfg.domain} = host "comfyui";
      }
      // lib.optionalAttrs withOllama { ${cfg.ollama.domain} = host "ollama"; };
    };
    systemd.services.nginx.serviceConfig.LoadCredential = lib.mapAttrsToList (secret: path: "${secret}:${path}") secrets;
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [
      80
      443
    ];
  };
}
