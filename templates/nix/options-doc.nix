# Every option of our modules, as data for documentation.
{ lib }:
let
  # Defaults that need packages say so in words.
  pkgs = throw "documentation needs no package";
  optionsOf =
    modules:
    (lib.evalModules {
      # They also set options of NixOS, which are not here.
      modules = modules ++ [ { _module.check = false; } ];
      specialArgs = { inherit pkgs; };
    }).options;
  documented =
    options:
    map
      (option: {
        inherit (option) name description type;
        default = option.default.text or null;
        example = option.example.text or null;
        readOnly = option.readOnly or false;
      })
      (
        lib.filter (option: (option.visible or true) && !(option.internal or false)) (lib.optionAttrSetToDocList options)
      );
in
{
  nixos = documented {
    inherit (optionsOf [
      ./modules/comfyui-xpu.nix
      ./modules/intel-xpu.nix
      ./modules/intel-xpu-share.nix
      ./modules/legacy-names.nix
      ./modules/monitoring.nix
      ./modules/ollama-xpu.nix
      ./modules/patchforge-bot.nix
      ./modules/proxy.nix
    ]) services hardware;
  };
  home = documented { inherit (optionsOf [ ./modules/home.nix ]) programs; };
}
