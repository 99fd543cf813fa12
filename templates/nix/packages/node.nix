# One node pack with the patch in generated/nodes, if it has one, where ComfyUI finds it through
# extra_model_paths.yaml. Its Python requirements are installed with comfyui-xpu.override { nodePacks = [ ... ]; }.
{
  lib,
  stdenvNoCC,
  fetchFromGitHub,
  runCommand,
  python3,
  python-xpu,
  requirementsOf,
  maintainers,
  patchforge,
  name,
  pin,
}:
let
  licence =
    id:
    lib.meta.getLicenseFromSpdxIdOr id {
      spdxId = null;
      shortName = id;
      fullName = id;
      free = false;
    };
in
stdenvNoCC.mkDerivation {
  pname = "comfyui-node-${name}";
  version = "0-unstable-${pin.date}";
  strictDeps = true;

  src = fetchFromGitHub (
    {
      inherit (pin)
        owner
        repo
        rev
        hash
        ;
    }
    // lib.optionalAttrs pin.submodules { fetchSubmodules = true; }
  );

  patches = map (file: ../../nodes + "/${name}/${file}") pin.patches;
  patchFlags = [
    "-p1"
    "--fuzz=0"
  ];

  dontConfigure = true;
  dontBuild = true;

  installPhase = ''
    runHook preInstall
    mkdir -p $out/share/comfyui/custom_nodes
    cp -r . $out/share/comfyui/custom_nodes/${pin.repo}
    printf 'patchforge:\n  custom_nodes: %s\n' $out/share/comfyui/custom_nodes > $out/share/comfyui/extra_model_paths.yaml
    runHook postInstall
  '';

  doInstallCheck = true;
  nativeInstallCheckInputs = [ python3 ];
  installCheckPhase = ''
    runHook preInstallCheck
    [ -e $out/share/comfyui/custom_nodes/${pin.repo}/__init__.py ] || { echo "${name}: no __init__.py, so no node pack" >&2; exit 1; }
    python3 -m compileall -q -f .
    runHook postInstallCheck
  '';

  passthru = {
    requirements = pin.requirements or [ ];
    inherit (pin) group;
    # What it asks for is there, under the names that Python's metadata has.
    tests.requirements = runCommand "comfyui-node-${name}-requirements" { } ''
      touch nothing.txt
      ${
        python-xpu.withPackages (ps: [ ps.packaging ] ++ map (requirementsOf ps) pin.requirements or [ ])
      }/bin/python ${../checks/requirements.py} nothing.txt ${lib.escapeShellArgs (pin.requirements or [ ])}
      touch $out
    '';
    updateScript = patchforge.updateScript name (
      [
        [
          "pin"
          "nodes"
          "--only"
          name
        ]
      ]
      ++ lib.optional (pin.patches != [ ]) [
        "packs"
        "apply"
        "${pin.owner}/${pin.repo}"
        "--out"
        "generated/nodes/${name}"
      ]
      ++ [ [ "nix" ] ]
    );
  };

  meta = {
    description = pin.title;
    homepage = "https://github.com/${pin.owner}/${pin.repo}";
    license = map licence (lib.splitString " AND " pin.license);
    platforms = [ "x86_64-linux" ];
    inherit maintainers;
  };
}
