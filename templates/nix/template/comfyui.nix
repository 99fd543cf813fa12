{ patchforge, ... }:
{
  # What is not free software and PyTorch for XPU needs: intel-oneapi-runtime, intel-sycl-rt, and MKL inside of torch.
  nixpkgs.config.allowUnfreePredicate = patchforge.lib.allowUnfree;

  hardware.intel-xpu = {
    enable = true;
    users = [ "alice" ];
  };

  services.comfyui-xpu.enable = true;
}
