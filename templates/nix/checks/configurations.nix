# Configurations of the modules that have to be accepted, and wrong ones with a part of the advice that each has to get.
# `nix flake check` evaluates them with NixOS itself, the project's tests with its options alone.
{ lib, pkgs }:
let
  comfyui = options: { services.comfyui-xpu = { enable = true; } // options; };
  model = {
    url = "https://example.org/model.safetensors";
    hash = lib.fakeHash;
  };
  pinned = lib.attrNames (lib.importJSON ../data/nodes.json);
in
{
  good = lib.mapAttrs (_: comfyui) {
    "nothing but enable" = { };
    "cpu" = { backend = "cpu"; };
    "cuda" = { backend = "cuda"; device = "1"; };
    "xpu by number" = { backend = "xpu"; device = "0,1"; };
    "a tile" = { backend = "xpu"; device = "0.1"; };
    "auto by number" = { device = "0"; };
    "a selector" = { device = "level_zero:0"; };
    "levels" = { optimisation = { level = "O2"; enable = [ "compile" "fp64" ]; }; };
    "levels by name" = { optimisation = { level = "performance"; jitCompile = true; }; };
    "precision" = { precision = "bf16"; };
    "memory" = { memory = { mode = "lowvram"; reserve = 1.5; }; };
    "listening" = { server = { host = "0.0.0.0"; port = 9000; }; openFirewall = true; network.trusted = true; };
    "listening, and on the internet" = { server.host = "0.0.0.0"; network = { outgoing = true; trusted = true; }; };
    "several addresses" = { server.host = [ "127.0.0.2" "::1" ]; };
    "a network" = { server.host = "192.168.1.2"; network = { peers = [ "192.168.1.0/24" ]; trusted = true; }; };
    "cors" = { server.cors = "https://a.example"; };
    "settings" = { settings = { preview-method = "auto"; disable-smart-memory = true; fast = [ "fp16_accumulation" ]; cache-lru = 3; verbose = null; }; };
    "model paths" = { modelPaths.checkpoints = [ "/mnt/a" "/mnt/b" ]; };
    "models at home" = { modelPaths.vae = [ "/home/alice/models/vae" ]; };
    "downloads" = { models."vae/x.safetensors" = model; };
    "gated downloads" = {
      models = {
        autoDownload = [ (model // { path = "vae/x.safetensors"; credential = "hf-token"; }) ];
        maxSize = "200G";
      };
      credentials.hf-token = "/run/secrets/hf-token";
    };
    "custom nodes" = { customNodes.mine = pkgs.zlib; };
    "Python packages" = { extraPythonPackages = ps: [ ps.numpy ]; requirements = [ "opencv_python>=4 # cv2" "opencv-python-headless" "onnxruntime-gpu" "torch" "" ]; };
    "programs and fonts" = { path = [ pkgs.git ]; fonts = [ ]; };
    "the module's user" = { user = "comfyui-xpu"; dataDir = "/srv/comfy ui"; directoryMode = "0750"; };
    "data at home" = { user = "alice"; group = "users"; dataDir = "/home/alice/comfyui"; };
    "another disk" = { user = "alice"; dataDir = "/mnt/big/comfyui"; requiresMounts = [ "/mnt/big" ]; };
    "groups" = { extraGroups = [ "media" ]; };
    "credentials" = { credentials.hf-token = "/run/secrets/hf"; network.outgoing = true; };
    "a file of variables" = { environmentFile = "/run/secrets/comfyui.env"; };
    "harmless variables" = { environment = { TOKENIZERS_PARALLELISM = "false"; HF_TOKEN_PATH = "/run/x"; MAX_TOKENS = "5"; FORMAT = "100%"; }; };
    "resources" = { resources = { memoryMax = "32G"; cpuQuota = "400%"; tasksMax = 512; }; };
    "no limits" = { cache.maxSize = null; resources = { memoryHigh = null; memoryMax = null; }; };
    "unconfined" = { hardening = false; autoDrivers = false; extraGroups = [ "media" ]; };
    "awkward words" = { extraArgs = [ "a b" "50%" "$HOME" "say \"x\"" ]; };
    "a desktop for the whole house" = {
      server.host = "0.0.0.0";
      openFirewall = true;
      network = { peers = [ "192.168.178.0/24" ]; trusted = true; };
      nodes = [ (lib.head pinned) ];
      path = [ pkgs.git ];
      models."checkpoints/x.safetensors" = model;
    };
    "everything in a home" = {
      backend = "xpu";
      user = "bob";
      group = "users";
      dataDir = "/home/bob/ComfyUI";
      directoryMode = "0755";
      memory.mode = "lowvram";
      environmentFile = "/home/bob/.config/comfyui.env";
      modelPaths.loras = [ "/home/bob/loras" ];
      settings.cache-lru = 4;
    };
    "a gallery of gated models" = {
      user = "comfyui-xpu";
      group = "media";
      dataDir = "/srv/comfyui";
      directoryMode = "0750";
      customNodes.mine = pkgs.zlib;
      requirements = [ "scikit-image>=0.20" ];
      credentials.hf-token = "/run/secrets/hf-token";
      models = {
        autoDownload = [ (model // { path = "diffusion_models/x.safetensors"; credential = "hf-token"; }) ];
        maxSize = "300G";
        cache = "/srv/models";
      };
      optimisation = { level = "performance"; jitCompile = true; enable = [ "triton" ]; };
    };
    "watched" = { health = { enable = true; deep = true; interval = 20; failures = 9; }; validate = true; };
    "watched, on the CPU of a small network" = {
      backend = "cpu";
      server.host = "192.168.1.2";
      network.trusted = true;
      user = "comfyui-xpu";
      health.enable = true;
      validate = true;
    };
    "kept tidy" = { maintenance = { enable = true; outputAge = 90; outputSize = "200G"; modelAge = 180; }; };
    "kept tidy at home" = { user = "alice"; dataDir = "/home/alice/comfyui"; maintenance.enable = true; };
    "a door" = {
      proxy = {
        packs = [ "video-helper-suite" ];
        enable = true;
        domain = "studio.example.org";
        passwordsFile = "/run/secrets/passwords";
        tokensFile = "/run/secrets/tokens";
        users = { alice = "admin"; bob = "user"; dashboard = "viewer"; };
        networks = [ "192.168.1.0/24" ];
      };
    };
    "a door by certificates" = {
      server.host = "::1";
      proxy = {
        enable = true;
        domain = "studio.example.org";
        clientCA = "/etc/studio-ca.pem";
        users.alice = "admin";
        certificate = "/run/secrets/studio.pem";
        certificateKey = "/run/secrets/studio.key";
        openFirewall = false;
        routes = [ { role = "user"; does = "run"; routes = [ "POST [/api]/mine" ]; } ];
      };
    };
    "the exporter alone" = { user = "comfyui-xpu"; monitoring = { enable = true; prometheus = false; }; };
    "several" = {
      instances.second = { enable = true; device = "1"; server.port = 8189; optimisation.level = "O2"; };
      instances.off.device = "2";
    };
  }
  // {
    "a door to both" = {
      services.comfyui-xpu = {
        enable = true;
        proxy = {
          enable = true;
          domain = "studio.example.org";
          ollama.domain = "llm.example.org";
          oidc.groups = { user = [ "artists" ]; admin = [ "operators" ]; };
        };
        monitoring.enable = true;
      };
      services.ollama-xpu.enable = true;
    };
    "a shared card" = {
      services = {
        comfyui-xpu.enable = true;
        ollama-xpu.enable = true;
        intel-xpu-share = { enable = true; policy = "fit"; limits = { comfyui = "8GiB"; ollama = "4GiB"; }; };
      };
    };
    "a shared card behind a door" = {
      services.comfyui-xpu = {
        enable = true;
        proxy = {
          enable = true;
          domain = "studio.example.org";
          ollama.domain = "llm.example.org";
          tokensFile = "/run/secrets/tokens";
          users.alice = "admin";
        };
      };
      services.ollama-xpu.enable = true;
      services.intel-xpu-share.enable = true;
    };
    "monitoring" = {
      services.comfyui-xpu = {
        enable = true;
        instances.second = { enable = true; server.port = 8189; };
        monitoring = {
          enable = true;
          alertmanager = { route.receiver = "nobody"; receivers = [ { name = "nobody"; } ]; };
          grafana = true;
        };
      };
      services.grafana.settings.security.secret_key = "$__file{/run/secrets/grafana}";
    };
    "one instance alone" = { services.comfyui-xpu.instances.only.enable = true; };
    "lists are added to" = comfyui { } // {
      systemd.services.comfyui-xpu.serviceConfig = {
        SupplementaryGroups = [ "media" ];
        Restart = "always";
        ReadOnlyPaths = [ "/mnt" ];
      };
    };
    "beside nixpkgs' own" = comfyui { } // { services = (comfyui { }).services // { comfyui.enable = true; }; };
    "ollama" = { services.ollama-xpu.enable = true; };
    "ollama by device" = {
      services.ollama-xpu = { enable = true; device = "0"; network.outgoing = false; };
      services.ollama.loadModels = [ "gemma3" ];
    };
    "ollama by nixpkgs' options" = {
      services.ollama-xpu = { enable = true; network = { outgoing = false; trusted = true; }; };
      services.ollama = { host = "0.0.0.0"; port = 11435; openFirewall = true; };
    };
    "the bot" = { services.patchforge-bot = { enable = true; repository = "someone/patchforge"; tokenFile = "/run/secrets/bot"; }; };
    "tuning" = {
      hardware.intel-xpu = {
        enable = true;
        users = [ "alice" ];
        tuning = { resizableBar = true; kernelParameters = [ "xe.force_probe=e20b" ]; governor = "performance"; ioScheduler = "none"; };
      };
    };
  };

  # Accepted with a note: names of older documents.
  renamed = {
    "comfyui-ipex" = { services.comfyui-ipex = { enable = true; optimisation.level = "performance"; server.port = 8190; }; };
    "ollama-ipex" = { services.ollama-ipex.enable = true; };
    "ipex" = { services.ipex = { enable = true; devices = [ "1" ]; }; services.comfyui-xpu.enable = true; };
  };

  bad = lib.mapAttrs (_: each: { config = comfyui (removeAttrs each [ "advice" ]); inherit (each) advice; }) {
    "a device of the CPU" = { backend = "cpu"; device = "0"; advice = "Set device = \"auto\""; };
    "a selector for CUDA" = { backend = "cuda"; device = "level_zero:0"; advice = "is a selector of Intel GPUs"; };
    "a tile for any" = { device = "0.1"; advice = "Set backend = \"xpu\""; };
    "opt-ins without XPU" = { backend = "cuda"; optimisation.enable = [ "fp64" ]; advice = "set backend = \"xpu\""; };
    "compiling without XPU" = { backend = "cpu"; optimisation.jitCompile = true; advice = "set backend = \"xpu\""; };
    "precision without XPU" = { backend = "cpu"; precision = "fp16"; advice = "force-fp16"; };
    "opt-ins at O0" = { optimisation = { level = "O0"; enable = [ "fp64" ]; }; advice = "Choose O1"; };
    "opt-ins at debug" = { optimisation = { level = "debug"; enable = [ "fp64" ]; }; advice = "Choose O1"; };
    "int8" = { precision = "int8"; advice = "int8 flag"; };
    "a low port" = { server.port = 80; advice = "reverse proxy"; };
    "no address" = { server.host = "0.0.0.0 --port 1"; network.trusted = true; advice = "an address or a list"; };
    "any origin" = { server = { host = "0.0.0.0"; cors = "*"; }; network.trusted = true; advice = "Name the one origin"; };
    "an owned flag" = { extraArgs = [ "--port=1" ]; advice = "server.port"; };
    "an owned flag, shortened" = { extraArgs = [ "--lis" "0.0.0.0" ]; advice = "server.host"; };
    "a folder as a flag" = { extraArgs = [ "--base-directory" "/x" ]; advice = "dataDir"; };
    "memory as a flag" = { extraArgs = [ "--lowvram" ]; advice = "memory.mode"; };
    "an owned setting" = { settings.reserve-vram = 2; advice = "memory.reserve"; };
    "a setting with dashes" = { settings."--fast" = true; advice = "without dashes"; };
    "a token" = { environment.HF_TOKEN = "x"; advice = "Use credentials"; };
    "a key" = { environment.CIVITAI_API_KEY = "x"; advice = "Use credentials"; };
    "a secret named oddly" = { credentials."a:b" = "/run/x"; advice = "letters, digits"; };
    "a credential that is not there" = {
      models.autoDownload = [ (model // { path = "vae/x"; credential = "civitai"; }) ];
      advice = "civitai";
    };
    "models elsewhere without a user" = {
      models = { autoDownload = [ (model // { path = "vae/x"; }) ]; cache = "/srv/models"; };
      advice = "Set user";
    };
    "models in a whole home" = {
      user = "alice";
      dataDir = "/home/alice/c";
      models = { autoDownload = [ (model // { path = "vae/x"; }) ]; cache = "/home/alice"; };
      advice = "folder of the service's own";
    };
    "a model without a kind" = { models."x.pt" = model; advice = "named by kind and file"; };
    "a model elsewhere" = { models.autoDownload = [ (model // { path = "../x"; }) ]; advice = "named by kind and file"; };
    "a requirement by address" = { requirements = [ "git+https://example.org/x" ]; advice = "Package it"; };
    "an open port for nobody" = { openFirewall = true; advice = "Set server.host = \"0.0.0.0\""; };
    "an open port for nobody else" = { server.host = [ "127.0.0.2" "::1" ]; openFirewall = true; advice = "leave the firewall closed"; };
    "data elsewhere" = { dataDir = "/srv/x"; advice = "Set user"; };
    "all of /var/lib" = { dataDir = "/var/lib/"; advice = "folder of the service's own"; };
    "out of /var/lib" = { dataDir = "/var/lib/../../srv"; advice = "folder of the service's own"; };
    "a whole home" = { user = "alice"; dataDir = "/home/alice"; advice = "folder of the service's own"; };
    "the root" = { user = "alice"; dataDir = "/srv"; advice = "folder of the service's own"; };
    "a quote in a path" = { user = "alice"; dataDir = "/srv/it's"; advice = "folder of the service's own"; };
    "a group alone" = { group = "users"; advice = "extraGroups"; };
    "a token without network" = { credentials.hf-token = "/x"; advice = "Set network.outgoing = true"; };
    "one port twice" = { instances.second.enable = true; advice = "Set server.port of each"; };
    "listening to everybody" = { server.host = "0.0.0.0"; advice = "network.trusted = true"; };
    "a door and another way in" = {
      server.host = "0.0.0.0";
      network.trusted = true;
      proxy = { enable = true; domain = "a.example"; tokensFile = "/run/x"; users.alice = "admin"; };
      advice = "need not come through the door";
    };
    "a door for nobody" = { proxy = { enable = true; domain = "a.example"; users.alice = "admin"; }; advice = "nobody could sign in"; };
    "a door without roles" = { proxy = { enable = true; domain = "a.example"; tokensFile = "/run/x"; }; advice = "nobody has a role"; };
    "a door for no network" = {
      proxy = { enable = true; domain = "a.example"; tokensFile = "/run/x"; users.alice = "admin"; networks = [ ]; };
      advice = "networks is empty";
    };
    "a certificate without its key" = {
      proxy = { enable = true; domain = "a.example"; tokensFile = "/run/x"; users.alice = "admin"; certificate = "/run/y"; };
      advice = "need each other";
    };
    "a door to an Ollama that is not there" = {
      proxy = { enable = true; domain = "a.example"; ollama.domain = "b.example"; tokensFile = "/run/x"; users.alice = "admin"; };
      advice = "services.ollama-xpu.enable = true";
    };
    "Grafana without Prometheus" = { monitoring = { enable = true; prometheus = false; grafana = true; }; advice = "prometheus = false"; };
    "an instance named as a unit" = { instances.health = { }; advice = "not exporter, health"; };
    "an instance named oddly" = { instances."A b" = { }; advice = "small letters"; };
  };
}
