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
  scope = import ../. { inherit pkgs; };
  settings = import ./settings.nix {
    inherit
      lib
      pkgs
      name
      cfg
      ;
  };
  inherit (import ./systemd.nix { inherit lib; }) commandLine quoted;
  inherit (lib) mkOption types;
  # What is named by a string stays where it is; a path of Nix code is copied into the store.
  link = source: pkgs.runCommand "comfyui-link" { } "ln -s ${lib.escapeShellArg (expanded source)} $out";
  isElsewhere = source: lib.isString source && !(lib.hasPrefix builtins.storeDir source);
  expanded =
    path: if path == "~" || lib.hasPrefix "~/" path then config.home.homeDirectory + lib.removePrefix "~" path else path;
  workspace = expanded (toString cfg.workspace);
  place = folder: path: "${workspace}/${folder}${lib.optionalString (path != "") "/${path}"}";
  linkTo = source: if isElsewhere source then link source else source;
  linked =
    folder: lib.mapAttrs' (path: source: lib.nameValuePair (place folder path) { source = linkTo source; });
  workflowFolder = "user/default/workflows";
  workflows =
    if lib.isAttrs cfg.workflows && !(lib.isDerivation cfg.workflows) then
      linked workflowFolder cfg.workflows
    else
      {
        # File by file, so that ComfyUI can save others beside them.
        ${place workflowFolder ""} = {
          source = cfg.workflows;
          recursive = true;
        };
      };
  source = types.either types.path (types.strMatching "~/.*");
  ipex = config.programs.ipex;
  ipexPython = ipex.package.withPackages ipex.packages;
in
{
  options.programs.comfyui-xpu = import ./options.nix {
    inherit
      lib
      pkgs
      name
      cfg
      ;
  } // {
    workspace = mkOption {
      type = source;
      default = "${config.xdg.dataHome}/comfyui";
      defaultText = lib.literalExpression ''"''${config.xdg.dataHome}/comfyui"'';
      example = "~/comfyui";
      description = "Folder for models, inputs, outputs, custom nodes and user settings. `~` is your home.";
    };

    workflows = mkOption {
      type = types.either types.path (types.attrsOf types.path);
      default = { };
      example = lib.literalExpression ''{ "portrait.json" = ./portrait.json; }'';
      description = ''
        Workflows to link into the workspace: a folder of them, or files by name. Saved changes need another name.
      '';
    };

    modelLinks = mkOption {
      type = types.attrsOf source;
      default = { };
      example = lib.literalExpression ''{ "checkpoints" = "~/models/checkpoints"; "vae/model.safetensors" = "/data/model.safetensors"; }'';
      description = ''
        Files and folders to link into the workspace's models folder, by path. A string is linked to as it is; a path
        without quotes is copied into the Nix store first.
      '';
    };

    development = {
      enable = lib.mkEnableOption "tools to write node packs: patchforge, and ComfyUI's Python environment as `comfyui-python`";
      customNodes = mkOption {
        type = types.attrsOf source;
        default = { };
        example = {
          my-node = "~/src/my-node";
        };
        description = "Checkouts of node packs to link into the workspace, by folder name; edits count at ComfyUI's next start.";
      };
    };

    service.enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to run ComfyUI as a user service.";
    };
  };

  options.programs.ipex = {
    enable = lib.mkEnableOption "Python with PyTorch for Intel XPU, on your PATH";

    package = lib.mkPackageOption { python-xpu = pkgs.python-xpu or scope.python-xpu; } "python-xpu" { };

    packages = mkOption {
      type = types.functionTo (types.listOf types.package);
      default = ps: [
        ps.torch
        ps.torchvision
        ps.torchaudio
      ];
      defaultText = lib.literalExpression "ps: [ ps.torch ps.torchvision ps.torchaudio ]";
      description = "Python packages that it can import.";
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      default = {
        ZES_ENABLE_SYSMAN = "1";
      };
      description = "Variables for your sessions.";
    };

    vscode.enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether VS Code takes this Python as its default (programs.vscode.profiles.default).";
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.enable {
      inherit (settings) assertions;

      home = {
        packages = [
          cfg.finalPackage
        ]
        ++ lib.optionals cfg.development.enable [
          (pkgs.patchforge or scope.patchforge)
          (pkgs.writeShellScriptBin "comfyui-python" ''exec ${cfg.finalPackage.environment}/bin/python "$@"'')
        ];
        sessionVariables.COMFYUI_DIR = workspace;
        file =
          workflows
          // linked "models" cfg.modelLinks
          // lib.optionalAttrs cfg.development.enable (linked "custom_nodes" cfg.development.customNodes);
      };

      systemd.user.services.comfyui-xpu = lib.mkIf cfg.service.enable {
        Unit = {
          Description = "ComfyUI for Intel GPUs";
          After = [ "network.target" ];
        };
        Service = {
          Type = "exec";
          ExecStart = commandLine ([ "${cfg.finalPackage}/bin/${settings.program}" ] ++ settings.arguments);
          Environment = lib.mapAttrsToList (variable: value: quoted "${variable}=${value}") (
            { COMFYUI_DIR = workspace; } // cfg.environment
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
    })
    (lib.mkIf ipex.enable {
      home.packages = [ ipexPython ];
      home.sessionVariables = ipex.environment;
      programs.vscode.profiles.default = lib.mkIf ipex.vscode.enable {
        userSettings."python.defaultInterpreterPath" = "${ipexPython}/bin/python";
      };
    })
  ];
}
