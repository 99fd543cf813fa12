# A pretended nixpkgs: real phases, real `patch`, sources verified by Nix, and so little of everything else that it
# evaluates in milliseconds. `settings.json` (written by the tests) says which Python is used and where sources are.
{
  system ? "x86_64-linux",
  overlays ? [ ],
  config ? { },
}:
let
  lib = import ./lib;
  settings = lib.importJSON ./settings.json;
  base = pkgs: import ./packages.nix { inherit lib pkgs system settings; };
  extended = list: let
    pkgs = lib.foldl' (prev: overlay: prev // overlay pkgs prev) (base pkgs) list
      // { extend = overlay: extended (list ++ [ overlay ]); };
  in pkgs;
in
extended overlays
