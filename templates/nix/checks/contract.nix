# What data/nixpkgs.json lists and this nixpkgs lacks.
{ pkgs }:
let
  inherit (pkgs) lib;
  contract = lib.importJSON ../data/nixpkgs.json;
  path = lib.splitString ".";
  lacking = prefix: set: names: map (name: prefix + name) (lib.filter (name: !(lib.hasAttrByPath (path name) set)) names);
in
lacking "pkgs." pkgs (lib.attrNames contract.packages)
++ lacking "python3Packages." pkgs.python3Packages (lib.attrNames contract.python)
# What has its file in the flake is not in pkgs.lib.
++ lacking "lib." lib (lib.attrNames (lib.filterAttrs (_: file: file != "flake.nix") contract.lib))
