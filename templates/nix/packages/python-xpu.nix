# Python whose torch, torchvision, torchaudio and triton are PyTorch's wheels for Intel XPU. Its `override` is Python's own:
# with `override (old: { packageOverrides = lib.composeExtensions old.packageOverrides more; })` you add to it.
{
  callPackage,
  data,
  pkgs,
  # Such as "3.13".
  version,
  torchVersion,
}:
let
  base = pkgs."python${builtins.replaceStrings [ "." ] [ "" ] version}";
  lock = import ./lock.nix {
    inherit data;
    version = torchVersion;
  } base;
  python = base.override {
    self = python;
    packageOverrides = callPackage ./torch-xpu.nix { inherit torchVersion; };
  };
in
# The lock is looked at first, so that a missing one is what the error is about.
builtins.seq lock.wheels python
