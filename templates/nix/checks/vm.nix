# NixOS in a virtual machine without a GPU: the service starts on the CPU, answers, and is confined.
{ package }:
{
  name = "comfyui-xpu";

  nodes.machine =
    { pkgs, ... }:
    {
      imports = [
        ../modules/comfyui-xpu.nix
      ];
      virtualisation = {
        cores = 2;
        memorySize = 4096;
        diskSize = 4096;
      };
      environment.systemPackages = [ pkgs.curl ];
      services.comfyui-xpu = {
        enable = true;
        inherit package;
        backend = "cpu";
        autoDrivers = false;
        instances.second = {
          enable = true;
          inherit package;
          backend = "cpu";
          autoDrivers = false;
          server.port = 8189;
        };
      };
    };

  testScript = ''
    for name, port in (("comfyui-xpu", 8188), ("comfyui-xpu-second", 8189)):
        machine.wait_for_unit(f"{name}.service")
        machine.wait_for_open_port(port)
        machine.succeed(f"curl --fail http://127.0.0.1:{port}/system_stats")
        machine.succeed(f"test -d /var/lib/{name}/models/checkpoints")
        print(machine.succeed(f"systemd-analyze security --threshold=20 {name}.service"))
    machine.succeed("echo kept > /var/lib/comfyui-xpu/models/checkpoints/kept.safetensors")
    machine.systemctl("restart comfyui-xpu.service")
    machine.wait_for_open_port(8188)
    machine.succeed("test -f /var/lib/comfyui-xpu/models/checkpoints/kept.safetensors")
  '';
}
