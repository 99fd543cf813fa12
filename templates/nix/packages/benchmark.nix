# `patchforge bench` of one pinned release, which needs neither git nor pip nor the network: the source is that of the
# package comfyui-xpu, unpatched, and so is the Python that runs it. Another release: override comfyui-xpu.
{
  lib,
  comfyui-xpu,
  maintainers,
  patchforge,
  runCommand,
  runtimeShell,
  # ipex-benchmark measures torch alone where no suite is named, comfyui-benchmark workflows.
  name,
}:
let
  inherit (comfyui-xpu) environment release;
  measuring = patchforge.override { extras = [ "benchmark" ]; };
  package =
    runCommand name
      {
        passthru = {
          inherit release;
          # On the CPU, in a sandbox.
          tests.quick = runCommand "${name}-quick" { } ''
            export HOME=$(mktemp -d) PATCHFORGE_CACHE=$(mktemp -d)/cache
            ${package}/bin/${name} --device cpu --quick --out measured
            ${package}/bin/${name} report measured/*
            cp -r measured $out
          '';
        };
        meta = {
          description =
            if name == "ipex-benchmark" then
              "What tensor operations, convolutions and a diffusion model's blocks cost on a device"
            else
              "What ComfyUI's workflows cost on a device, in exact counts, time, energy and memory";
          license = lib.licenses.gpl3Plus;
          mainProgram = name;
          inherit maintainers;
          platforms = [ "x86_64-linux" ];
        };
      }
      ''
        mkdir -p $out/bin
        substitute ${./benchmark.sh} $out/bin/${name} \
          --replace-fail @shell@ ${runtimeShell} \
          --replace-fail @program@ ${measuring}/bin/${name} \
          --replace-fail @python@ ${environment}/bin/python \
          --replace-fail @source@ ${comfyui-xpu.src} \
          --replace-fail @version@ ${release.version}
        chmod +x $out/bin/${name}
      '';
in
package
