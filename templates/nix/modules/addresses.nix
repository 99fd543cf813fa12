# Which addresses are this machine's alone.
{ lib }:
let
  plain = address: lib.removeSuffix "]" (lib.removePrefix "[" address);
in
rec {
  isLoopback =
    address:
    lib.elem (plain address) [
      "::1"
      "localhost"
    ]
    || lib.hasPrefix "127." (plain address);
  areLoopback = lib.all isLoopback;
  # Networks that are not the internet.
  local = [
    "10.0.0.0/8"
    "100.64.0.0/10"
    "169.254.0.0/16"
    "172.16.0.0/12"
    "192.168.0.0/16"
    "fc00::/7"
    "fe80::/10"
  ];
}
