# What fills a disk, each by who knows it best: outputs, temporary files and compiled code by patchforge, the journal by
# journald, old systems by Nix. `patchforge maintain DIR --dry-run` says what would go.
{
  services.comfyui-xpu.maintenance = {
    enable = true;
    schedule = "*-*-* 04:41:00";
    outputAge = 90;
    outputSize = "200G";
    modelAge = 180; # these are only listed: journalctl -u comfyui-xpu-maintenance
  };

  services.journald.extraConfig = "SystemMaxUse=2G";

  nix.gc = {
    automatic = true;
    dates = "weekly";
    options = "--delete-older-than 30d";
  };
}
