# programs.comfyui-xpu for Home Manager: the programs, a workspace, and a user service if wanted.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = "programs.comfyui-xpu";
  cfg = config.programs.comfyui-xpu;
  settings = import ./settings.nix {
    inherit
      lib
      pkgs
      name
      cfg
      ;
  };
  commandLine = import ./systemd.nix { inherit lib; };
  inherit (lib) mkOption types;
  # A file that is named by a string stays where it is; a path of Nix code is copied into the store.
  link = source: pkgs.runCommand "comfyui-link" { } "ln -s ${lib.escapeShellArg source} $out";
  isElsewhere = source: lib.isString source && !(lib.hasPrefix builtins.storeDir source);
  linked =
    folder:
    lib.mapAttrs' (
      path: source:
      lib.nameValuePair "${cfg.workspace}/${folder}/${path}" {
        source = if isElsewhere source then link source else source;
      }
    );
in
{
  options.programs.comfyui-xpu = import ./options.nix { inherit lib pkgs name; } // {
    workspace = mkOption {
      type = types.path;
      default = "${config.xdg.dataHome}/comfyui";
      defaultText = lib.literalExpression ''"''${config.xdg.dataHome}/comfyui"'';
      description = "Folder for models, inputs, outputs, custom nodes and user settings.";
    };

    workflows = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = lib.literalExpression ''{ "portrait.json" = ./portrait.json; }'';
      description = "Workflows to link into the workspace, by file name. Saved changes need another name.";
    };

    modelLinks = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = lib.literalExpression ''{ "checkpoints/model.safetensors" = "/data/model.safetensors"; }'';
      description = ''
        Files to link into the workspace's models folder, by path. A string is linked to as it is; a path without quotes
        is copied into the Nix store first.
      '';
    };

    service.enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to run ComfyUI as a user service.";
    };
  };

  config = lib.mkIf cfg.enable {
    programs.comfyui-xpu.finalPackage = settings.package;
    inherit (settings) assertions;

    home = {
      packages = [ cfg.finalPackage ];
      sessionVariables.COMFYUI_DIR = toString cfg.workspace;
      file = linked "user/default/workflows" cfg.workflows // linked "models" cfg.modelLinks;
    };

    systemd.user.services.comfyui-xpu = lib.mkIf cfg.service.enable {
      Unit = {
        Description = "ComfyUI for Intel GPUs";
        After = [ "network.target" ];
      };
      Service = {
        Type = "exec";
        ExecStart = commandLine ([ "${cfg.finalPackage}/bin/${settings.program}" ] ++ settings.arguments);
        Environment = lib.mapAttrsToList (variable: value: commandLine [ "${variable}=${value}" ]) (
          { COMFYUI_DIR = toString cfg.workspace; } // cfg.environment
        );
        Restart = "on-failure";
        RestartSec = 5;
        # A user's manager has no device policy and no users of its own to give.
        LockPersonality = true;
        NoNewPrivileges = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        UMask = "0077";
      };
      Install.WantedBy = [ "default.target" ];
    };
  };
}
