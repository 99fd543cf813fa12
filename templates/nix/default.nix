# All packages as one scope: `pkgs.callPackage`-like, each with `.override`.
{
  pkgs,
  mordragt ? null,
}:
let
  inherit (pkgs) lib;
  data = import ./data.nix { inherit lib; };
in
lib.makeScope pkgs.newScope (
  self:
  {
    inherit data;

    python-xpu = self.callPackage ./packages/python-xpu.nix { };
    intel-oneapi-runtime = self.python-xpu.pkgs.intel-oneapi-runtime;
    requirementsOf = self.callPackage ./packages/requirements.nix { };

    comfyui-xpu = self.callPackage ./packages/comfyui-xpu.nix {
      release = data.comfyui.releases.${data.comfyui.default};
      python = self.python-xpu;
    };
    comfyui-ipex = self.comfyui-xpu;
    nodes = lib.mapAttrs (name: pin: self.callPackage ./packages/node.nix { inherit name pin; }) data.nodes;
    nodeGroups = lib.mapAttrs (
      _: names: lib.genAttrs names (name: self.nodes.${name})
    ) (lib.groupBy (name: data.nodes.${name}.group) (lib.attrNames data.nodes));

    ollama-xpu = self.callPackage ./packages/ollama-xpu.nix { };
    patchforge = self.callPackage ./packages/patchforge.nix { };
  }
  // import ./packages/legacy.nix { inherit lib pkgs mordragt; }
  // lib.mapAttrs (_: release: self.comfyui-xpu.override { inherit release; }) data.byAttribute
)
