# The flake's outputs.
{
  self,
  nixpkgs,
  mordragt ? null,
  ...
}:
let
  inherit (nixpkgs) lib;
  systems = [ "x86_64-linux" ];
  forAll = lib.genAttrs systems;
  # Intel's runtime libraries are not free software, and PyTorch for XPU does not work without them.
  pkgsFor =
    system:
    import nixpkgs {
      inherit system;
      config.allowUnfreePredicate = package: lib.getName package == "intel-oneapi-runtime";
    };
  scopeFor =
    system:
    import ./. {
      pkgs = pkgsFor system;
      inherit mordragt;
    };
  withPython = scope: python: scope.comfyui-xpu.override { inherit python; };
  pinned = scope: lib.mapAttrs (name: _: scope.${name}) scope.data.byAttribute;
  # Without a complete lock of torch these are an error that says so; legacyPackages has them all the same.
  needTorch =
    scope: attrs:
    lib.optionalAttrs (import ./packages/lock.nix { inherit (scope) data; } { pythonVersion = scope.data.torch.python; }).isComplete attrs;
  app = description: package: program: {
    type = "app";
    program = "${package}/bin/${program}";
    meta = { inherit description; };
  };
in
{
  packages = forAll (
    system:
    let
      scope = scopeFor system;
    in
    {
      inherit (scope) ollama-xpu patchforge;
    }
    // needTorch scope (
      {
        inherit (scope) comfyui-ipex comfyui-xpu python-xpu;
        default = scope.comfyui-xpu;
      }
      // pinned scope
    )
  );

  legacyPackages = forAll (
    system:
    let
      scope = scopeFor system;
    in
    {
      inherit (scope)
        comfyui-ipex
        comfyui-xpu
        intel-dpcpp
        intel-mkl
        intel-tbb
        nodeGroups
        nodes
        ollama-xpu
        patchforge
        python-ipex
        python-xpu
        ;
      default = scope.comfyui-xpu;
    }
    // pinned scope
  );

  overlays = {
    default = import ./overlay.nix { inherit mordragt; };
    intel-xpu = import ./overlay-intel-xpu.nix { inherit mordragt; };
  };

  nixosModules = rec {
    default.imports = [
      intel-xpu
      comfyui-xpu
      ollama-xpu
      patchforge-bot
    ];
    comfyui-xpu.imports = [ ./modules/comfyui-xpu.nix ];
    intel-xpu.imports = [ ./modules/intel-xpu.nix ];
    ollama-xpu.imports = [ ./modules/ollama-xpu.nix ];
    patchforge-bot.imports = [ ./modules/patchforge-bot.nix ];
  };

  homeManagerModules = self.homeModules;
  homeModules = rec {
    default = comfyui-xpu;
    comfyui-xpu.imports = [ ./modules/home.nix ];
  };

  apps = forAll (
    system:
    let
      scope = scopeFor system;
    in
    {
      patchforge = app "Patch a ComfyUI release for Intel GPUs" scope.patchforge "patchforge";
    }
    // needTorch scope {
      default = app "ComfyUI on CUDA, an Intel GPU or the CPU, in this order" scope.comfyui-xpu "comfyui";
      comfyui = app "ComfyUI on CUDA, an Intel GPU or the CPU, in this order" scope.comfyui-xpu "comfyui";
      comfyui-cuda = app "ComfyUI on CUDA" scope.comfyui-xpu "comfyui-cuda";
      comfyui-xpu = app "ComfyUI on an Intel GPU" scope.comfyui-xpu "comfyui-xpu";
    }
  );

  checks = forAll (
    system:
    let
      pkgs = pkgsFor system;
      scope = scopeFor system;
    in
    {
      inherit (scope) ollama-xpu patchforge;
      # nixpkgs' own torch: patches, requirements, --help-gpu and the quick test, without the XPU wheels.
      comfyui-own-torch = withPython scope pkgs.python3;
      generated-is-current = pkgs.runCommand "generated-is-current" { } ''
        cp -r ${self} tree
        chmod -R u+w tree
        cd tree
        ${scope.patchforge}/bin/patchforge nix --check
        touch $out
      '';
    }
    // needTorch scope { inherit (scope) comfyui-xpu; }
    // lib.optionalAttrs (lib ? nixosSystem) {
      service =
        (lib.nixosSystem {
          modules = [
            self.nixosModules.default
            {
              nixpkgs.hostPlatform = system;
              boot.isContainer = true;
              system.stateVersion = lib.trivial.release;
              services.comfyui-xpu = {
                enable = true;
                package = withPython scope pkgs.python3;
              };
            }
          ];
        }).config.systemd.units."comfyui-xpu.service".unit;
    }
  );

  devShells = forAll (
    system:
    let
      pkgs = pkgsFor system;
      inherit (scopeFor system) patchforge;
    in
    {
      default = pkgs.mkShell {
        inputsFrom = [ patchforge ];
        packages = [
          pkgs.git
          pkgs.patch
        ];
      };
    }
  );

  formatter = forAll (system: (pkgsFor system).nixfmt-tree);

  templates.default = {
    path = ./template;
    description = "NixOS with ComfyUI on an Intel GPU";
  };
}
