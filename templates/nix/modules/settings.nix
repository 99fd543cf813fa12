# From options to a package, arguments, and advice about wrong combinations.
{
  lib,
  pkgs,
  name,
  cfg,
}:
let
  data = import ../data.nix { inherit lib; };
  scope = import ../. { inherit pkgs; };
  yaml = file: content: pkgs.writeText file (builtins.toJSON content);
  kindOf = path: lib.head (lib.splitString "/" path);

  downloads = pkgs.linkFarm "comfyui-models" (
    lib.mapAttrs (
      path: model:
      pkgs.fetchurl {
        inherit (model) url hash;
        name = baseNameOf path;
      }
    ) cfg.models
  );
  kinds = lib.unique (map kindOf (lib.attrNames cfg.models));
  configurations =
    lib.optional (cfg.modelPaths != { }) (
      yaml "model-paths.yaml" { folders = lib.mapAttrs (_: lib.concatStringsSep "\n") cfg.modelPaths; }
    )
    ++ lib.optional (cfg.models != { }) (
      yaml "models.yaml" { downloads = lib.genAttrs kinds (kind: "${downloads}/${kind}"); }
    )
    ++ lib.optional (cfg.customNodes != { }) (
      yaml "custom-nodes.yaml" { nodes.custom_nodes = "${pkgs.linkFarm "comfyui-custom-nodes" cfg.customNodes}"; }
    );

  usesXpu = cfg.backend == "auto" || cfg.backend == "xpu";
  number = x: builtins.toJSON x;
  deviceFlag =
    if cfg.device == "auto" then
      [ ]
    else if lib.hasInfix ":" cfg.device then
      [
        "--oneapi-device-selector"
        cfg.device
      ]
    else if cfg.backend == "xpu" then
      [
        "--intel-device"
        cfg.device
      ]
    else
      [
        "--cuda-device"
        cfg.device
      ];
  owned = [
    "--cpu"
    "--cuda-device"
    "--enable-cors-header"
    "--force-intel-xpu"
    "--intel-device"
    "--listen"
    "--oneapi-device-selector"
    "--port"
    "--xpu-enable"
    "--xpu-level"
    "--xpu-precision"
  ];
  flagOf = argument: lib.head (lib.splitString "=" argument);
  taken = lib.filter (argument: lib.elem (flagOf argument) owned) cfg.extraArgs;
  looksSecret = variable: builtins.match ".*(TOKEN|SECRET|PASSWORD|API_?KEY).*" (lib.toUpper variable) != null;
  # HF_TOKEN_PATH and the like name a file.
  secrets = lib.filter (variable: looksSecret variable && !(lib.hasSuffix "_PATH" variable || lib.hasSuffix "_FILE" variable)) (
    lib.attrNames cfg.environment
  );
  both = lib.intersectLists cfg.nodes (lib.attrNames cfg.customNodes);
in
rec {
  loopback = lib.elem cfg.server.host [
    "127.0.0.1"
    "::1"
    "localhost"
  ];

  package =
    if cfg.nodes == [ ] && cfg.extraPythonPackages == null then
      cfg.package
    else
      cfg.package.override (
        {
          nodePacks = map (node: scope.nodes.${node}) cfg.nodes;
        }
        // lib.optionalAttrs (cfg.extraPythonPackages != null) { inherit (cfg) extraPythonPackages; }
      );

  program =
    if cfg.backend == "cuda" then
      "comfyui-cuda"
    else if cfg.backend == "xpu" then
      "comfyui-xpu"
    else
      "comfyui";

  arguments =
    [
      "--listen"
      cfg.server.host
      "--port"
      (toString cfg.server.port)
    ]
    ++ lib.optional (cfg.backend == "cpu") "--cpu"
    ++ deviceFlag
    ++ lib.optionals usesXpu [
      "--xpu-level"
      cfg.optimisation.level
    ]
    ++ lib.optionals (cfg.optimisation.enable != [ ]) [
      "--xpu-enable"
      (lib.concatStringsSep "," cfg.optimisation.enable)
    ]
    ++ lib.optionals (cfg.precision != null) [
      "--xpu-precision"
      cfg.precision
    ]
    ++ lib.optional (cfg.memory.mode != null) "--${cfg.memory.mode}"
    ++ lib.optionals (cfg.memory.reserve != null) [
      "--reserve-vram"
      (number cfg.memory.reserve)
    ]
    ++ lib.optionals (cfg.server.cors != null) [
      "--enable-cors-header"
      cfg.server.cors
    ]
    ++ lib.concatMap (file: [
      "--extra-model-paths-config"
      "${file}"
    ]) configurations
    ++ cfg.extraArgs;

  inherit downloads;

  assertions = [
    {
      assertion = pkgs.stdenv.hostPlatform.isx86_64 && pkgs.stdenv.hostPlatform.isLinux;
      message = "${name}: PyTorch for Intel XPU exists for x86_64 Linux only.";
    }
    {
      assertion = cfg.backend != "cpu" || cfg.device == "auto";
      message = "${name}: device = \"${cfg.device}\" names a GPU, and backend = \"cpu\" uses none. Set device = \"auto\", or another backend.";
    }
    {
      assertion = !(cfg.backend == "cuda" && lib.hasInfix ":" cfg.device);
      message = "${name}: device = \"${cfg.device}\" is a selector of Intel GPUs, and backend = \"cuda\" has none. Use a number such as \"0\".";
    }
    {
      assertion = cfg.backend == "xpu" || lib.hasInfix ":" cfg.device || !(lib.hasInfix "." cfg.device);
      message = "${name}: device = \"${cfg.device}\" is a tile of an Intel GPU. Set backend = \"xpu\", or use a number such as \"0\".";
    }
    {
      assertion = usesXpu || cfg.optimisation.enable == [ ];
      message = "${name}: optimisation.enable is for Intel GPUs, and backend = \"${cfg.backend}\" uses none. Remove it, or set backend = \"xpu\".";
    }
    {
      assertion = usesXpu || cfg.precision == null;
      message = "${name}: precision is for Intel GPUs, and backend = \"${cfg.backend}\" uses none. Use extraArgs with ComfyUI's own flag, such as --force-fp16.";
    }
    {
      assertion = cfg.optimisation.level != "O0" || cfg.optimisation.enable == [ ];
      message = "${name}: optimisation.level = \"O0\" leaves everything in optimisation.enable off. Choose O1 or above.";
    }
    {
      assertion = cfg.precision != "int8";
      message = "${name}: no pinned ComfyUI release has an int8 flag. Load an int8 model, or choose fp32, fp16 or bf16.";
    }
    {
      assertion = cfg.server.port >= 1024;
      message = "${name}: port ${toString cfg.server.port} needs a privilege that the service does not have. Use a port from 1024, behind a reverse proxy.";
    }
    {
      assertion = !(cfg.server.cors == "*" && !loopback);
      message = "${name}: server.cors = \"*\" lets every web page use a server that others can reach. Name the one origin that needs it.";
    }
    {
      assertion = taken == [ ];
      message = "${name}: extraArgs has ${lib.concatStringsSep ", " taken}, for which there are options (backend, device, optimisation, precision, server).";
    }
    {
      assertion = secrets == [ ];
      message = "${name}: environment.${lib.concatStringsSep ", " secrets} would be readable by everyone in the Nix store. Use credentials, which name a file.";
    }
    {
      assertion = lib.all (path: builtins.match "[a-z_0-9]+/[^/]+" path != null) (lib.attrNames cfg.models);
      message = "${name}: models are named by kind and file, such as \"checkpoints/model.safetensors\".";
    }
    {
      assertion = both == [ ];
      message = "${name}: ${lib.concatStringsSep ", " both} is in nodes and in customNodes. Keep one.";
    }
    {
      assertion = lib.all (path: lib.hasPrefix "/" path) (lib.concatLists (lib.attrValues cfg.modelPaths));
      message = "${name}: modelPaths are absolute paths.";
    }
  ];
}
