{ lib, ... }:
{
  # Intel's runtime libraries for PyTorch are not free software.
  nixpkgs.config.allowUnfreePredicate = package: lib.getName package == "intel-oneapi-runtime";

  hardware.intel-xpu = {
    enable = true;
    users = [ "alice" ];
  };

  services.comfyui-xpu.enable = true;
}
