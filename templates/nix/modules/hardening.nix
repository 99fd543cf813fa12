# What a service on a GPU needs, and nothing else. Every single setting is a default that a configuration can change, and
# every list is one that it can add to.
{ lib }:
{
  # Device node groups, such as char-drm; none: no devices at all.
  devices,
  # Whom the service may talk to; null: everybody.
  peers,
  # Of a folder: what others may not do in what the service makes.
  umask ? "0077",
  extraGroups ? [ ],
  # Homes are hidden but for what is bound there.
  homes ? true,
}:
lib.mapAttrs (_: lib.mkDefault) (
  {
    AmbientCapabilities = "";
    CapabilityBoundingSet = "";
    KeyringMode = "private";
    LockPersonality = true;
    # MemoryDenyWriteExecute would stop oneDNN and Triton, which write code at run time.
    NoNewPrivileges = true;
    PrivateMounts = true;
    PrivateTmp = true;
    PrivateUsers = true;
    ProcSubset = "all"; # /proc/meminfo and /proc/cpuinfo
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = homes;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RemoveIPC = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    UMask = umask;
  }
  // (
    if devices == [ ] then
      { PrivateDevices = true; }
    else
      {
        DevicePolicy = "closed";
        PrivateDevices = false;
      }
  )
)
// {
  RestrictAddressFamilies = [
    "AF_INET"
    "AF_INET6"
    "AF_UNIX"
  ];
  # @resources is in @system-service, and stays for what OpenMP and TBB call: threads are bound to processors.
  SystemCallFilter = [
    "@system-service"
    "~@privileged"
  ];
  SupplementaryGroups =
    lib.optionals (devices != [ ]) [
      "render"
      "video"
    ]
    ++ extraGroups;
}
// lib.optionalAttrs (devices != [ ]) { DeviceAllow = map (device: "${device} rw") devices; }
// lib.optionalAttrs (peers != null) {
  IPAddressAllow = peers;
  IPAddressDeny = [ "any" ];
}
