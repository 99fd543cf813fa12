{
  description = "NixOS with ComfyUI on an Intel GPU";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    patchforge = {
      url = "git+file:///path/to/patchforge";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    { nixpkgs, patchforge, ... }:
    {
      nixosConfigurations.machine = nixpkgs.lib.nixosSystem {
        specialArgs = { inherit patchforge; };
        modules = [
          ./configuration.nix
          ./comfyui.nix
          patchforge.nixosModules.default
        ];
      };
    };
}
