# One node pack with the patch in generated/nodes, if it has one, where ComfyUI finds it through
# extra_model_paths.yaml. Its Python requirements are installed with comfyui-xpu.override { nodePacks = [ ... ]; }.
{
  lib,
  stdenvNoCC,
  fetchFromGitHub,
  python3,
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
  };

  meta = {
    description = pin.title;
    homepage = "https://github.com/${pin.owner}/${pin.repo}";
    license = map licence (lib.splitString " AND " pin.license);
    platforms = [ "x86_64-linux" ];
  };
}
