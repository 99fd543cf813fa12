# What a service on a GPU needs, and nothing else. Every setting is a default that a configuration can change.
{ lib }:
{
  # Device node groups, such as char-drm; none: no devices at all.
  devices,
  # Only this machine may talk to the service, and it to nobody else.
  localOnly,
}:
lib.mapAttrs (_: lib.mkDefault) (
  {
    AmbientCapabilities = "";
    CapabilityBoundingSet = "";
    KeyringMode = "private";
    LockPersonality = true;
    # MemoryDenyWriteExecute would stop oneDNN and Triton, which write code at run time.
    NoNewPrivileges = true;
    PrivateTmp = true;
    PrivateUsers = true;
    ProcSubset = "all"; # /proc/meminfo and /proc/cpuinfo
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RemoveIPC = true;
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_INET6"
      "AF_UNIX"
    ];
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    SystemCallFilter = [
      "@system-service"
      "~@privileged"
      "~@resources"
    ];
    UMask = "0077";
  }
  // (
    if devices == [ ] then
      { PrivateDevices = true; }
    else
      {
        DevicePolicy = "closed";
        DeviceAllow = map (device: "${device} rw") devices;
        PrivateDevices = false;
        SupplementaryGroups = [
          "render"
          "video"
        ];
      }
  )
  // lib.optionalAttrs localOnly {
    IPAddressAllow = "localhost";
    IPAddressDeny = "any";
  }
)
