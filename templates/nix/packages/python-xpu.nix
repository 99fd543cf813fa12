# Python whose torch, torchvision, torchaudio and triton are PyTorch's wheels for Intel XPU.
{
  callPackage,
  data,
  pkgs,
  lib,
}:
let
  base = pkgs."python${builtins.replaceStrings [ "." ] [ "" ] data.torch.python}";
  lock = import ./lock.nix { inherit data; } base;
  python = base.override {
    self = python;
    packageOverrides = callPackage ./torch-xpu.nix { };
  };
in
# The lock is looked at first, so that a missing one is what the error is about.
builtins.seq lock.wheels (
  python
  // {
    torchLocal = "xpu";
    meta = base.meta or { } // {
      description = "Python with PyTorch ${lock.version} for Intel XPU";
      platforms = [ "x86_64-linux" ];
    };
  }
)
