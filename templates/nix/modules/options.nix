# Options that the NixOS service, its further instances and the Home Manager program share.
{
  lib,
  pkgs,
  name,
  cfg,
  # Options of `models` beside the files themselves.
  downloads ? { },
}:
let
  inherit (lib) mkOption types;
  data = import ../data.nix { inherit lib; };
  scope = import ../. { inherit pkgs; };
  model = types.submodule {
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
  };
in
{
  enable = lib.mkEnableOption "ComfyUI for Intel GPUs";

  package = lib.mkPackageOption { comfyui-xpu = pkgs.comfyui-xpu or scope.comfyui-xpu; } "comfyui-xpu" {
    example = "pkgs.comfyui-xpu.override { python = pkgs.python3; }";
    extraDescription = "`override { python = …; }` gives it a torch of your own.";
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
        "debug"
        "default"
        "performance"
        "experimental"
      ];
      default = "O1";
      description = ''
        How much is changed for Intel GPUs. `O0` and `O1` keep results; see docs/runtime.md. `debug`, `default`,
        `performance` and `experimental` are other names of `O0` to `O3`.
      '';
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
    jitCompile = mkOption {
      type = types.bool;
      default = false;
      description = "Whether models are compiled (torch.compile) the first time they run; the same as `compile` in `optimisation.enable`.";
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
      type = types.coercedTo types.str lib.singleton (types.nonEmptyListOf types.str);
      default = [ "127.0.0.1" ];
      example = [
        "0.0.0.0"
        "::"
      ];
      description = "Addresses to listen on: one, or a list.";
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
      description = ''
        Origin of other web pages from which browsers may use the server's API. It takes away ComfyUI's own guard against
        requests of foreign pages; a reverse proxy needs none.
      '';
    };
  };

  settings = mkOption {
    type = types.attrsOf (
      types.nullOr (
        types.oneOf [
          types.bool
          types.int
          types.float
          types.str
          (types.listOf types.str)
        ]
      )
    );
    default = { };
    example = {
      preview-method = "auto";
      disable-smart-memory = true;
    };
    description = ''
      Flags of ComfyUI without their dashes. `true` sets a flag, `false` and null leave it out. Those that there are
      options for are refused here.
    '';
  };

  modelPaths = mkOption {
    type = types.attrsOf (types.listOf types.path);
    default = { };
    example = {
      checkpoints = [ "/mnt/models/checkpoints" ];
    };
    description = "Further folders with models, by ComfyUI's kind of model. They are only read.";
  };

  models = mkOption {
    type =
      if downloads == { } then
        types.attrsOf model
      else
        types.submodule {
          freeformType = types.attrsOf model;
          options = downloads;
        };
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
    description = "Further node packs, by folder name: packages or paths. What they import goes into `requirements`.";
  };

  extraPythonPackages = mkOption {
    type = types.nullOr (types.functionTo (types.listOf types.package));
    default = null;
    example = lib.literalExpression "ps: [ ps.opencv4 ]";
    description = "Further Python packages in ComfyUI's environment.";
  };

  requirements = mkOption {
    type = types.listOf (types.either types.path types.str);
    default = [ ];
    example = lib.literalExpression ''[ "opencv-python" ./my-node/requirements.txt ]'';
    description = ''
      What node packs that you add by hand import: Python requirements, or their requirements.txt. They come from nixpkgs
      by name; torch stays the package's.
    '';
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
    example = [
      "--preview-method"
      "auto"
    ];
    description = "Further arguments of ComfyUI.";
  };

  finalPackage = mkOption {
    type = types.package;
    readOnly = true;
    default = (import ./settings.nix { inherit lib pkgs name cfg; }).package;
    defaultText = lib.literalExpression "package, with nodes and extraPythonPackages";
    description = "The package with nodes and Python packages that `${name}` runs.";
  };
}
