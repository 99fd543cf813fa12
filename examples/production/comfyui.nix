# ComfyUI and Ollama on Intel GPUs for a team: behind nginx with names and roles, watched, validated after each update.
# Used as in docs/deployment.md: a module of nixosSystem, beside configuration.nix and patchforge.nixosModules.default.
{ patchforge, ... }:
{
  imports = [
    ../monitoring/monitoring.nix
    ../maintenance/maintenance.nix
  ];

  nixpkgs.config.allowUnfreePredicate = patchforge.lib.allowUnfree;

  services.comfyui-xpu = {
    enable = true;
    backend = "xpu";
    device = "0";
    optimisation.level = "O1";
    memory.reserve = 1.0;

    nodes = [ "ultimate-sd-upscale" ];

    modelPaths.checkpoints = [ "/srv/models/checkpoints" ];
    requiresMounts = [ "/srv/models" ];

    resources = {
      memoryHigh = "48G";
      memoryMax = "56G";
      cpuQuota = "800%";
      tasksMax = 1024;
    };
    cache.maxSize = "8G";

    # Started again when it hangs, and looked at after every start.
    health = {
      enable = true;
      deep = true;
    };
    validate = true;

    proxy = {
      enable = true;
      domain = "studio.example.org";
      ollama.domain = "llm.example.org";
      passwordsFile = "/run/secrets/studio-passwords";
      tokensFile = "/run/secrets/studio-tokens";
      users = {
        alice = "admin";
        bob = "user";
        screen-in-the-hall = "viewer";
      };
    };
  };

  services.ollama-xpu.enable = true;
  services.ollama.loadModels = [ "gemma3" ];

  security.acme = {
    acceptTerms = true;
    defaults.email = "admin@example.org";
  };
}
