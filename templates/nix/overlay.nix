# Only adds attributes. For XPU builds of torch in every Python package set as well, see overlay-intel-xpu.nix.
{
  mordragt ? null,
}:
final: prev:
let
  scope = import ./. {
    pkgs = final;
    inherit mordragt;
  };
  # Which attributes there are may not depend on `final`.
  data = import ./data.nix { inherit (prev) lib; };
in
{
  inherit (scope)
    comfyui-ipex
    comfyui-xpu
    ollama-xpu
    patchforge
    python-xpu
    ;
  comfyui-xpu-nodes = scope.nodes;
}
// prev.lib.mapAttrs (name: _: scope.${name}) data.byAttribute
