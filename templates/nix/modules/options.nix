# Options that the NixOS service and the Home Manager program share.
{
  lib,
  pkgs,
  name,
}:
let
  inherit (lib) mkOption types;
  data = import ../data.nix { inherit lib; };
  scope = import ../. { inherit pkgs; };
in
{
  enable = lib.mkEnableOption "ComfyUI for Intel GPUs";

  package = mkOption {
    type = types.package;
    default = pkgs.comfyui-xpu or scope.comfyui-xpu;
    defaultText = lib.literalExpression "pkgs.comfyui-xpu";
    example = lib.literalExpression "pkgs.comfyui-xpu.override { python = pkgs.python3; }";
    description = "The ComfyUI to run. `override { python = …; }` gives it a torch of your own.";
  };

  backend = mkOption {
    type = types.enum [
      "auto"
      "cuda"
      "xpu"
      "cpu"
    ];
    default = "auto";
    description = "What to compute on. `auto` takes CUDA before an Intel GPU before the CPU.";
  };

  device = mkOption {
    type = types.strMatching "auto|[0-9]+([.][0-9]+)?(,[0-9]+([.][0-9]+)?)*|[a-z_*]+:[a-z0-9.,*]+";
    default = "auto";
    example = "0";
    description = ''
      Which GPU: `auto`, numbers such as `0` or `0,1`, a tile such as `0.1`, or a selector of oneAPI such as
      `level_zero:0`.
    '';
  };

  optimisation = {
    level = mkOption {
      type = types.enum [
        "O0"
        "O1"
        "O2"
        "O3"
      ];
      default = "O1";
      description = "How much is changed for Intel GPUs. `O0` and `O1` keep results; see docs/runtime.md.";
    };
    enable = mkOption {
      type = types.listOf (
        types.enum [
          "async-offload"
          "bf16-strict"
          "channels-last"
          "compile"
          "dynamic-vram"
          "fp64"
          "ipex"
          "non-blocking"
          "triton"
        ]
      );
      default = [ ];
      example = [ "channels-last" ];
      description = "Single options on top of the level.";
    };
  };

  precision = mkOption {
    type = types.nullOr (
      types.enum [
        "fp32"
        "fp16"
        "bf16"
        "int8"
      ]
    );
    default = null;
    description = "Precision of models on an Intel GPU; null leaves the choice to ComfyUI.";
  };

  memory = {
    mode = mkOption {
      type = types.nullOr (
        types.enum [
          "gpu-only"
          "highvram"
          "normalvram"
          "lowvram"
          "novram"
        ]
      );
      default = null;
      description = "ComfyUI's memory mode; null leaves the choice to ComfyUI.";
    };
    reserve = mkOption {
      type = types.nullOr types.numbers.nonnegative;
      default = null;
      example = 1.5;
      description = "GPU memory in GiB that ComfyUI leaves to other programs.";
    };
  };

  server = {
    host = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "0.0.0.0";
      description = "Address to listen on.";
    };
    port = mkOption {
      type = types.port;
      default = 8188;
      description = "Port to listen on.";
    };
    cors = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "https://studio.example.org";
      description = "Origin from which browsers may use the server's API.";
    };
  };

  modelPaths = mkOption {
    type = types.attrsOf (types.listOf types.str);
    default = { };
    example = {
      checkpoints = [ "/mnt/models/checkpoints" ];
    };
    description = "Further folders with models, by ComfyUI's kind of model. They are only read.";
  };

  models = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          url = mkOption {
            type = types.str;
            description = "Where the file is.";
          };
          hash = mkOption {
            type = types.strMatching "sha256-[A-Za-z0-9+/]{43}=";
            description = "Its SHA-256 hash (SRI); nothing else is accepted from the address.";
          };
        };
      }
    );
    default = { };
    example = lib.literalExpression ''
      {
        "checkpoints/model.safetensors" = {
          url = "https://example.org/model.safetensors";
          hash = "sha256-…";
        };
      }
    '';
    description = "Models to download into the Nix store, by kind and file name.";
  };

  nodes = mkOption {
    type = types.listOf (types.enum (lib.attrNames data.nodes));
    default = [ ];
    example = [ (lib.head (lib.attrNames data.nodes)) ];
    description = "Pinned node packs, with their Python requirements.";
  };

  customNodes = mkOption {
    type = types.attrsOf (types.either types.package types.path);
    default = { };
    example = lib.literalExpression "{ my-node = ./my-node; }";
    description = "Further node packs, by the folder's name. Their Python requirements go to `extraPythonPackages`.";
  };

  extraPythonPackages = mkOption {
    type = types.nullOr (types.functionTo (types.listOf types.package));
    default = null;
    example = lib.literalExpression "ps: [ ps.opencv4 ]";
    description = "Further Python packages in ComfyUI's environment.";
  };

  environment = mkOption {
    type = types.attrsOf types.str;
    default = { };
    example = {
      PATCHFORGE_XPU_ATTENTION_LIMIT = "2G";
    };
    description = "Environment variables. They are world-readable: no tokens here.";
  };

  extraArgs = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [ "--preview-method" "auto" ];
    description = "Further arguments of ComfyUI.";
  };

  finalPackage = mkOption {
    type = types.package;
    readOnly = true;
    description = "The package with nodes and Python packages that `${name}` runs.";
  };
}
