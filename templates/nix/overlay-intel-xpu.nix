# What overlay.nix adds, and torch, torchvision, torchaudio and triton for XPU in every Python that has a complete lock.
{
  mordragt ? null,
}:
final: prev:
let
  data = import ./data.nix { inherit (prev) lib; };
  legacy = import ./packages/legacy.nix {
    inherit (prev) lib;
    pkgs = prev;
    inherit mordragt;
  };
in
import ./overlay.nix { inherit mordragt; } final prev
// legacy
// {
  pythonPackagesExtensions = (prev.pythonPackagesExtensions or [ ]) ++ [
    (
      python-final: python-prev:
      prev.lib.optionalAttrs (import ./packages/lock.nix { inherit data; } python-prev.python).isComplete (
        final.callPackage ./packages/torch-xpu.nix { inherit data; } python-final python-prev
      )
    )
  ];
}
