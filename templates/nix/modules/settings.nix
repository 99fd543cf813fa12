# From options to a package, arguments, and advice about wrong combinations.
{
  lib,
  pkgs,
  name,
  cfg,
}:
let
  scope = import ../. { inherit pkgs; };
  addresses = import ./addresses.nix { inherit lib; };
  yaml = file: content: pkgs.writeText file (builtins.toJSON content);
  kindOf = path: lib.head (lib.splitString "/" path);

  # What is fetched into the store; `models` has options too.
  stored = removeAttrs cfg.models [
    "autoDownload"
    "cache"
    "maxSize"
  ];
  automatic = cfg.models.autoDownload or [ ];
  downloads = pkgs.linkFarm "comfyui-models" (
    lib.mapAttrs (
      path: model:
      pkgs.fetchurl {
        inherit (model) url hash;
        name = baseNameOf path;
      }
    ) stored
  );
  kindsOf = paths: lib.unique (map kindOf paths);
  configurations =
    lib.optional (cfg.modelPaths != { }) (
      yaml "model-paths.yaml" { folders = lib.mapAttrs (_: lib.concatMapStringsSep "\n" toString) cfg.modelPaths; }
    )
    ++ lib.optional (stored != { }) (
      yaml "models.yaml" { downloads = lib.genAttrs (kindsOf (lib.attrNames stored)) (kind: "${downloads}/${kind}"); }
    )
    ++ lib.optional (automatic != [ ]) (
      yaml "downloads.yaml" {
        automatic = lib.genAttrs (kindsOf (map (model: model.path) automatic)) (kind: "${cfg.models.cache}/${kind}");
      }
    )
    ++ lib.optional (packs != { }) (
      yaml "custom-nodes.yaml" { nodes.custom_nodes = "${pkgs.linkFarm "comfyui-custom-nodes" packs}"; }
    );
  packs =
    cfg.customNodes
    // lib.optionalAttrs (cfg.health.pack or false) {
      patchforge-watch = "${
        pkgs.runCommand "patchforge-watch" { } ''
          mkdir $out
          ${cfg.patchforge}/bin/patchforge health --write-pack $out
        ''
      }/patchforge-watch";
    };

  usesXpu = cfg.backend == "auto" || cfg.backend == "xpu";
  level =
    {
      debug = "O0";
      default = "O1";
      performance = "O2";
      experimental = "O3";
    }
    .${cfg.optimisation.level} or cfg.optimisation.level;
  enabled = lib.unique (cfg.optimisation.enable ++ lib.optional cfg.optimisation.jitCompile "compile");
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
  # lib.cli repeats a flag for every word of a list; ComfyUI's take several words.
  flagsOf =
    flag: value:
    if value == null || value == false then
      [ ]
    else if value == true then
      [ "--${flag}" ]
    else if lib.isList value then
      [ "--${flag}" ] ++ value
    else
      [
        "--${flag}"
        (if lib.isString value then value else number value)
      ];

  # ComfyUI's flags that there are options for, and which.
  owned = {
    "--base-directory" = "dataDir or workspace";
    "--cpu" = "backend";
    "--cuda-device" = "device";
    "--database-url" = "dataDir or workspace";
    "--enable-cors-header" = "server.cors";
    "--force-intel-xpu" = "backend";
    "--gpu-only" = "memory.mode";
    "--highvram" = "memory.mode";
    "--intel-device" = "device";
    "--listen" = "server.host";
    "--lowvram" = "memory.mode";
    "--normalvram" = "memory.mode";
    "--novram" = "memory.mode";
    "--oneapi-device-selector" = "device";
    "--port" = "server.port";
    "--reserve-vram" = "memory.reserve";
    "--xpu-enable" = "optimisation.enable";
    "--xpu-level" = "optimisation.level";
    "--xpu-precision" = "precision";
  };
  # A flag may be shortened as far as it is clear which is meant.
  optionsOf =
    word:
    let
      flag = lib.head (lib.splitString "=" word);
    in
    lib.optionals (lib.hasPrefix "--" flag && flag != "--") (
      if owned ? ${flag} then
        [ owned.${flag} ]
      else
        lib.attrValues (lib.filterAttrs (full: _: lib.hasPrefix flag full) owned)
    );
  isTaken = word: optionsOf word != [ ];
  adviceOn =
    option: words:
    let
      taken = lib.filter isTaken words;
    in
    {
      assertion = taken == [ ];
      message = "${name}: ${option} has ${lib.concatStringsSep ", " taken}, for which there are options (${lib.concatStringsSep ", " (lib.unique (lib.concatMap optionsOf taken))}).";
    };

  # Of words between underscores; what ends in _PATH or _FILE names a file.
  looksSecret =
    variable:
    let
      upper = lib.toUpper variable;
    in
    builtins.match "(.*_)?(API_?KEY|APIKEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|PASSPHRASE|PASSWD|PASSWORD|SECRET|TOKEN)(_.*)?" upper
    != null
    && builtins.match ".*_(FILE|PATH)" upper == null;
  secrets = lib.filter looksSecret (lib.attrNames cfg.environment);
  both = lib.intersectLists cfg.nodes (lib.attrNames cfg.customNodes);

  # A requirements.txt, as far as nixpkgs can meet it.
  linesOf =
    requirement:
    if lib.isString requirement && !(lib.hasPrefix "/" requirement) then
      [ requirement ]
    else
      lib.splitString "\n" (builtins.readFile requirement);
  stripped =
    line: lib.head (builtins.match "[[:space:]]*(.*[^[:space:]]|)[[:space:]]*" (lib.head (lib.splitString "#" line)));
  wanted = lib.filter (line: line != "") (map stripped (lib.concatMap linesOf cfg.requirements));
  partsOf = builtins.match "([A-Za-z0-9][A-Za-z0-9._-]*)([^A-Za-z0-9._-].*|)";
  isPlain = line: partsOf line != null && !(lib.hasInfix "://" line);
  canonical =
    line:
    let
      parts = partsOf line;
    in
    lib.toLower (builtins.replaceStrings [ "_" "." ] [ "-" "-" ] (lib.head parts)) + lib.last parts;
  isTorch =
    line:
    lib.elem (lib.head (builtins.match "([a-z0-9-]+).*" line)) [
      "torch"
      "torchaudio"
      "torchvision"
    ];
  requirements = lib.filter (line: !(isTorch line)) (map canonical wanted);
in
rec {
  inherit requirements stored usesXpu;
  loopback = addresses.areLoopback cfg.server.host;

  package =
    if cfg.nodes == [ ] && wanted == [ ] && cfg.extraPythonPackages == null then
      cfg.package
    else
      packageWithMore;
  added = if cfg.extraPythonPackages == null then _: [ ] else cfg.extraPythonPackages;
  packageWithMore = cfg.package.override (old: {
    nodePacks = (old.nodePacks or [ ]) ++ map (node: scope.nodes.${node}) cfg.nodes;
    extraPythonPackages =
      ps:
      (old.extraPythonPackages or (_: [ ])) ps ++ added ps ++ map (scope.requirementsOf ps) requirements;
  });

  program =
    if cfg.backend == "cuda" then
      "comfyui-cuda"
    else if cfg.backend == "xpu" then
      "comfyui-xpu"
    else
      "comfyui";

  arguments = [
    "--listen"
    (lib.concatStringsSep "," cfg.server.host)
    "--port"
    (toString cfg.server.port)
  ]
  ++ lib.optional (cfg.backend == "cpu") "--cpu"
  ++ deviceFlag
  ++ lib.optionals usesXpu [
    "--xpu-level"
    level
  ]
  ++ lib.optionals (enabled != [ ]) [
    "--xpu-enable"
    (lib.concatStringsSep "," enabled)
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
  ++ lib.concatLists (lib.mapAttrsToList flagsOf cfg.settings)
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
      assertion = usesXpu || enabled == [ ];
      message = "${name}: optimisation.enable and jitCompile are for Intel GPUs, and backend = \"${cfg.backend}\" uses none. Remove them, or set backend = \"xpu\".";
    }
    {
      assertion = usesXpu || cfg.precision == null;
      message = "${name}: precision is for Intel GPUs, and backend = \"${cfg.backend}\" uses none. Use settings with ComfyUI's own flag, such as force-fp16.";
    }
    {
      assertion = level != "O0" || enabled == [ ];
      message = "${name}: optimisation.level = \"${cfg.optimisation.level}\" leaves everything in optimisation.enable off. Choose O1 or above.";
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
      assertion = lib.all (host: builtins.match "[][0-9A-Za-z.:%_-]+" host != null) cfg.server.host;
      message = "${name}: server.host is an address or a list of them, such as [ \"127.0.0.1\" \"::1\" ].";
    }
    {
      assertion = !(cfg.server.cors == "*" && !loopback);
      message = "${name}: server.cors = \"*\" lets every web page use a server that others can reach. Name the one origin that needs it.";
    }
    (adviceOn "extraArgs" cfg.extraArgs)
    (adviceOn "settings" (map (flag: "--${flag}") (lib.attrNames cfg.settings)))
    {
      assertion = lib.all (flag: builtins.match "[a-z][a-z0-9-]*" flag != null) (lib.attrNames cfg.settings);
      message = "${name}: settings are ComfyUI's flags without dashes in front, such as preview-method.";
    }
    {
      assertion = secrets == [ ];
      message = "${name}: environment.${lib.concatStringsSep ", " secrets} would be readable by everyone in the Nix store. Use credentials or environmentFile, which name a file.";
    }
    {
      assertion = lib.all (path: builtins.match "[a-z_0-9]+/[^/]+" path != null) (
        lib.attrNames stored ++ map (model: model.path) automatic
      );
      message = "${name}: models are named by kind and file, such as \"checkpoints/model.safetensors\".";
    }
    {
      assertion = both == [ ];
      message = "${name}: ${lib.concatStringsSep ", " both} is in nodes and in customNodes. Keep one.";
    }
    {
      assertion = lib.all isPlain wanted;
      message = "${name}: requirements has ${lib.concatStringsSep ", " (lib.filter (line: !(isPlain line)) wanted)}, which nixpkgs cannot meet by name. Package it, and put it into extraPythonPackages.";
    }
  ];
}
