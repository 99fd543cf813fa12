# Driver, compute runtime, groups and tools for Intel GPUs.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.hardware.intel-xpu;
  inherit (lib) mkOption types;
in
{
  options.hardware.intel-xpu = {
    enable = lib.mkEnableOption "Intel GPUs for computing: compute runtime, Level Zero and groups";

    users = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users who may compute on the GPU; they join the groups render and video.";
    };

    runtimePackages = mkOption {
      type = types.listOf types.package;
      default = [
        pkgs.intel-compute-runtime
        # Level Zero's driver is in an output of its own.
        (lib.getOutput "drivers" pkgs.intel-compute-runtime)
        pkgs.intel-graphics-compiler
        pkgs.level-zero
        pkgs.vpl-gpu-rt
      ];
      defaultText = lib.literalExpression ''
        with pkgs; [ intel-compute-runtime intel-compute-runtime.drivers intel-graphics-compiler level-zero vpl-gpu-rt ]
      '';
      description = ''
        Driver libraries. Compute runtime and Level Zero have to be of one nixpkgs: mixed versions crash
        (pytorch#179891).
      '';
    };

    tools = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to install clinfo and intel-gpu-tools.";
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      default = {
        ZES_ENABLE_SYSMAN = "1";
      };
      description = "Variables for every session. ZES_ENABLE_SYSMAN lets programs read free memory.";
    };

    tuning = {
      resizableBar = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether to look at every start whether the card's memory can be reached as a whole (Resizable BAR), and to say in
          the journal what to do if not: without it, an Arc card is slow.
        '';
      };
      kernelParameters = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "xe.force_probe=e20b" ];
        description = "Kernel parameters for the GPU's driver.";
      };
      governor = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "performance";
        description = "How processors choose their frequency.";
      };
      ioScheduler = mkOption {
        type = types.nullOr (
          types.enum [
            "none"
            "mq-deadline"
            "kyber"
            "bfq"
          ]
        );
        default = null;
        example = "none";
        description = "Scheduler of NVMe and SATA disks that are not hard disks; models are read from them.";
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = pkgs.stdenv.hostPlatform.isx86_64;
        message = "hardware.intel-xpu: Intel's compute runtime exists for x86_64 only.";
      }
    ];
    hardware.graphics = {
      enable = lib.mkDefault true;
      extraPackages = cfg.runtimePackages;
    };
    users.groups = {
      render.members = cfg.users;
      video.members = cfg.users;
    };
    boot.kernelParams = cfg.tuning.kernelParameters;
    powerManagement.cpuFreqGovernor = lib.mkIf (cfg.tuning.governor != null) (lib.mkDefault cfg.tuning.governor);
    services.udev.extraRules = lib.mkIf (cfg.tuning.ioScheduler != null) ''
      ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", KERNEL=="nvme[0-9]*n[0-9]*|sd[a-z]*", ATTR{queue/rotational}=="0", ATTR{queue/scheduler}="${cfg.tuning.ioScheduler}"
    '';
    systemd.services.intel-xpu-resizable-bar = lib.mkIf cfg.tuning.resizableBar {
      description = "Whether an Intel GPU's memory can be reached as a whole";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${pkgs.writeShellScript "resizable-bar" (builtins.readFile ./resizable-bar.sh)} /sys/bus/pci/devices";
        DynamicUser = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateNetwork = true;
      };
    };
    environment = {
      systemPackages = lib.optionals cfg.tools [
        pkgs.clinfo
        pkgs.intel-gpu-tools
      ];
      sessionVariables = cfg.environment;
    };
  };
}
