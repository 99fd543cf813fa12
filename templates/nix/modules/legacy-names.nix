# The names that these options had in older documents: each is told where it went, and works.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.ipex;
  # Every option below a path, as a path.
  leaves =
    path: tree:
    if lib.isOption tree then [ path ] else lib.concatMap (name: leaves (path ++ [ name ]) tree.${name}) (lib.attrNames tree);
  renamed =
    from: to: tree:
    map (path: lib.mkRenamedOptionModule (from ++ path) (to ++ path)) (leaves [ ] tree);
  # What is renamed is known before any option has a value.
  declared =
    module: path:
    lib.attrByPath path { } (module {
      inherit lib pkgs;
      config = throw "names of options need no values";
    }).options;
  comfyui = removeAttrs (declared (import ./comfyui-xpu.nix) [
    "services"
    "comfyui-xpu"
  ]) [ "finalPackage" ];
  ollama = declared (import ./ollama-xpu.nix) [
    "services"
    "ollama-xpu"
  ];
in
{
  imports = [
    ./comfyui-xpu.nix
    ./ollama-xpu.nix
  ]
  ++ renamed [ "services" "comfyui-ipex" ] [ "services" "comfyui-xpu" ] comfyui
  ++ renamed [ "services" "ollama-ipex" ] [ "services" "ollama-xpu" ] ollama;

  options.services.ipex = {
    enable = lib.mkEnableOption "Intel GPUs for computing; another name of `hardware.intel-xpu.enable`";
    devices = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "0" ];
      description = "Numbers of the GPUs that ComfyUI and Ollama use by default; an empty list leaves the choice to them.";
    };
  };

  config = lib.mkIf cfg.enable {
    hardware.intel-xpu.enable = true;
    services = lib.mkIf (cfg.devices != [ ]) {
      comfyui-xpu.device = lib.mkDefault (lib.concatStringsSep "," cfg.devices);
      ollama-xpu.device = lib.mkDefault (lib.concatStringsSep "," cfg.devices);
    };
  };
}
