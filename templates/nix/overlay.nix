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
    ollama-ipex
    ollama-xpu
    patchforge
    python-xpu
    ;
  comfyui-xpu-nodes = scope.nodes;
  intel-xpu = {
    inherit (scope) nodes;
    comfyui = scope.comfyui-xpu;
    ipex = scope.python-ipex;
    mkl = scope.intel-mkl;
    ollama = scope.ollama-xpu;
    python = scope.python-xpu;
  };
}
// prev.lib.mapAttrs (name: _: scope.${name}) data.byAttribute
