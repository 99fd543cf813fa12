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
  inherit (import ./unfree.nix { inherit lib; }) allowUnfree unfree;
  pkgsFor =
    system:
    import nixpkgs {
      inherit system;
      config.allowUnfreePredicate = allowUnfree;
    };
  scopeFor =
    system:
    import ./. {
      pkgs = pkgsFor system;
      inherit mordragt;
    };
  withPython = scope: python: scope.comfyui-xpu.override { inherit python; };
  pinned = scope: lib.mapAttrs (name: _: scope.${name}) scope.data.byAttribute;
  groups = scope: lib.mapAttrs' (group: _: lib.nameValuePair "comfyui-${group}" scope."comfyui-${group}") scope.nodeGroups;
  # Without a complete lock of torch these are an error that says so; legacyPackages has them all the same.
  needTorch =
    scope: attrs:
    lib.optionalAttrs (import ./packages/lock.nix { inherit (scope) data; } {
      pythonVersion = scope.data.torch.versions.${scope.data.torch.default};
    }).isComplete attrs;
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
      inherit (scope) ollama-ipex ollama-xpu patchforge;
    }
    // groups scope
    // needTorch scope (
      {
        inherit (scope)
          comfyui-benchmark
          comfyui-ipex
          comfyui-xpu
          ipex-benchmark
          python-xpu
          ;
        default = scope.comfyui-xpu;
      }
      // pinned scope
    )
  );

  legacyPackages = forAll (
    system:
    let
      pkgs = pkgsFor system;
      scope = scopeFor system;
    in
    {
      inherit (scope)
        comfyui-benchmark
        comfyui-ipex
        comfyui-xpu
        intel-dpcpp
        intel-mkl
        intel-tbb
        ipex-benchmark
        nodeGroups
        nodes
        ollama-ipex
        ollama-xpu
        patchforge
        python-ipex
        python-xpu
        ;
      default = scope.comfyui-xpu;
      # A virtual machine that starts the service; it needs KVM, so `nix flake check` leaves it out.
      vmTest = (withPython scope pkgs.python3).tests.service;
    }
    // groups scope
    // lib.filterAttrs (name: _: builtins.match "python[0-9]+-xpu|python-xpu_[0-9_]+" name != null) scope
    // pinned scope
  );

  # What `nixpkgs.config.allowUnfreePredicate` has to admit.
  lib = { inherit allowUnfree unfree; };

  overlays = {
    default = import ./overlay.nix { inherit mordragt; };
    intel-xpu = import ./overlay-intel-xpu.nix { inherit mordragt; };
  };

  nixosModules = rec {
    default.imports = [
      intel-xpu
      intel-xpu-share
      comfyui-xpu
      monitoring
      ollama-xpu
      patchforge-bot
      proxy
      ./modules/legacy-names.nix
    ];
    comfyui-xpu.imports = [ ./modules/comfyui-xpu.nix ];
    monitoring.imports = [ ./modules/monitoring.nix ];
    proxy.imports = [ ./modules/proxy.nix ];
    intel-xpu.imports = [ ./modules/intel-xpu.nix ];
    intel-xpu-share.imports = [ ./modules/intel-xpu-share.nix ];
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
      comfyui-benchmark = app "Measure ComfyUI's workflows" scope.comfyui-benchmark "comfyui-benchmark";
      ipex-benchmark = app "Measure torch on a device" scope.ipex-benchmark "ipex-benchmark";
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
      nixpkgs-has-it-all =
        let
          missing = import ./checks/contract.nix { inherit pkgs; };
        in
        if missing == [ ] then
          pkgs.runCommand "nixpkgs-has-it-all" { } "touch $out"
        else
          throw ''
            this nixpkgs lacks ${lib.concatStringsSep ", " missing}
              expected: what data/nixpkgs.json lists
              to do: update the input nixpkgs, or mend the expressions and the list'';
      # nixpkgs' own torch: patches, requirements, --help-gpu and the quick test, without the XPU wheels.
      comfyui-own-torch = withPython scope pkgs.python3;
      # What a release costs on the CPU, with nixpkgs' own torch: a server is started and its workflows are run.
      comfyui-benchmark = (scope.comfyui-benchmark.override { comfyui-xpu = withPython scope pkgs.python3; }).tests.quick;
      ipex-benchmark = (scope.ipex-benchmark.override { comfyui-xpu = withPython scope pkgs.python3; }).tests.quick;
      generated-is-current = pkgs.runCommand "generated-is-current" { } ''
        cp -r ${self} tree
        chmod -R u+w tree
        cd tree
        ${scope.patchforge.inCheckout} nix --check
        touch $out
      '';
    }
    // lib.mapAttrs' (name: node: lib.nameValuePair "node-${name}" node.tests.requirements) (needTorch scope scope.nodes)
    // needTorch scope { inherit (scope) comfyui-xpu; }
    // lib.optionalAttrs (lib ? nixosSystem) (
      let
        evaluate =
          configuration:
          (lib.nixosSystem {
            modules = [
              self.nixosModules.default
              configuration
              {
                nixpkgs.pkgs = pkgs;
                boot.isContainer = true;
                system.stateVersion = lib.trivial.release;
                services.comfyui-xpu.package = lib.mkDefault (withPython scope pkgs.python3);
              }
            ];
          }).config;
        problems = import ./checks/modules.nix {
          inherit lib evaluate;
          cases = import ./checks/configurations.nix { inherit lib pkgs; };
        };
      in
      {
        modules =
          if problems == [ ] then
            pkgs.runCommand "modules" { } "touch $out"
          else
            throw "the modules judge configurations wrongly:\n  ${lib.concatStringsSep "\n  " problems}";
        service = (evaluate { services.comfyui-xpu.enable = true; }).systemd.units."comfyui-xpu.service".unit;
      }
    )
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

  formatter = forAll (
    system:
    let
      pkgs = pkgsFor system;
    in
    pkgs.nixfmt-tree
  );

  templates.default = {
    path = ./template;
    description = "NixOS with ComfyUI on an Intel GPU";
  };
}
