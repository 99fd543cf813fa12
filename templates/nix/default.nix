# All packages as one scope: `pkgs.callPackage`-like, each with `.override`.
{
  pkgs,
  mordragt ? null,
  maintainers ? import ./maintainers.nix,
}:
let
  inherit (pkgs) lib;
  data = import ./data.nix { inherit lib; };
  short = builtins.replaceStrings [ "." ] [ "" ];
in
lib.makeScope pkgs.newScope (
  self:
  let
    # Not callPackage: `override` stays the interpreter's.
    pythonFor =
      torchVersion: version:
      import ./packages/python-xpu.nix {
        inherit (self) callPackage data;
        inherit pkgs torchVersion version;
      };
    default = data.torch.default;
    groups = lib.groupBy (name: data.nodes.${name}.group) (lib.attrNames data.nodes);
  in
  {
    inherit data maintainers;

    python-xpu = pythonFor default data.torch.versions.${default};
    intel-oneapi-runtime = self.python-xpu.pkgs.torch.oneapiRuntime;
    requirementsOf = self.callPackage ./packages/requirements.nix { };

    comfyui-xpu = self.callPackage ./packages/comfyui-xpu.nix {
      release = data.comfyui.releases.${data.comfyui.default};
      python = self.python-xpu;
    };
    comfyui-ipex = self.comfyui-xpu;
    comfyui-benchmark = self.callPackage ./packages/benchmark.nix { name = "comfyui-benchmark"; };
    ipex-benchmark = self.callPackage ./packages/benchmark.nix { name = "ipex-benchmark"; };
    nodes = lib.mapAttrs (name: pin: self.callPackage ./packages/node.nix { inherit name pin; }) data.nodes;
    nodeGroups = lib.mapAttrs (_: names: lib.genAttrs names (name: self.nodes.${name})) groups;

    ollama-xpu = self.callPackage ./packages/ollama-xpu.nix { };
    ollama-ipex = self.ollama-xpu;
    flip-evaluator = self.callPackage ./packages/flip-evaluator.nix { };
    patchforge = self.callPackage ./packages/patchforge.nix { };
  }
  // import ./packages/legacy.nix { inherit lib pkgs mordragt; }
  # python313-xpu and so on, and python-xpu_2_15_0; one without a complete lock is an error that says so.
  // lib.listToAttrs (
    map (version: lib.nameValuePair "python${short version}-xpu" (pythonFor default version)) data.torch.pythons
  )
  // lib.mapAttrs' (
    torch: version:
    lib.nameValuePair "python-xpu_${builtins.replaceStrings [ "." ] [ "_" ] torch}" (pythonFor torch version)
  ) data.torch.versions
  // lib.mapAttrs' (
    group: names:
    lib.nameValuePair "comfyui-${group}" (
      self.callPackage ./packages/node-group.nix {
        name = "comfyui-${group}";
        packs = map (name: self.nodes.${name}) names;
      }
    )
  ) groups
  // lib.mapAttrs (_: release: self.comfyui-xpu.override { inherit release; }) data.byAttribute
)
