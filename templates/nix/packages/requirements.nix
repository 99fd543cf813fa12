# From a Python requirement such as "comfy-kitchen==0.2.30" to a package: the pinned wheel, else nixpkgs' own.
{
  lib,
  stdenv,
  autoPatchelfHook,
  fetchurl,
  data,
  maintainers,
}:
ps:
let
  nameOf = requirement: lib.head (builtins.match "([a-z0-9-]+).*" requirement);
  exactVersion =
    requirement:
    let
      found = builtins.match "[a-z0-9-]+==([^,; ]+)" requirement;
    in
    if found == null then null else lib.head found;
  newest = versions: lib.last (lib.sort lib.versionOlder (lib.attrNames versions));

  package =
    requirement:
    let
      name = nameOf requirement;
      versions = data.python.${name} or { };
      exact = exactVersion requirement;
    in
    if exact != null && versions ? ${exact} then
      wheel name exact versions.${exact}
    else if exact == null && versions != { } then
      wheel name (newest versions) versions.${newest versions}
    else
      ps.${data.names.${name} or name} or (throw ''
        no Python package ${requirement}
          expected: a pin in upstream/pins/python.json, or ${data.names.${name} or name} in nixpkgs' Python packages
          found: pinned are ${if versions == { } then "none" else lib.concatStringsSep ", " (lib.attrNames versions)}
          to do: for node packs of your own, package it and put it into extraPythonPackages;
                 in patchforge, patchforge pin python, or nixpkgs' name of it into templates/nix/data/names.json'');

  wheel =
    name: version: pin:
    let
      isBinary = pin.platform != "any";
    in
    ps.buildPythonPackage {
      pname = name;
      inherit version;
      format = "wheel";
      src = fetchurl {
        inherit (pin) hash;
        name = pin.file;
        url = pin.url or "https://files.pythonhosted.org/packages/${pin.python}/${lib.substring 0 1 name}/${name}/${pin.file}";
      };
      nativeBuildInputs = lib.optional isBinary autoPatchelfHook;
      buildInputs = lib.optional isBinary (lib.getLib stdenv.cc.cc);
      dontStrip = isBinary;
      # Kernels for other vendors' GPUs are not loaded on Intel's.
      autoPatchelfIgnoreMissingDeps = lib.optionals isBinary [
        "libamdhip64.so.*"
        "libcublas*.so.*"
        "libcuda.so.*"
        "libcudart.so.*"
        "libnvrtc.so.*"
      ];
      dependencies = map package pin.requires;
      meta = {
        description = "${name}, the wheel of PyPI";
        homepage = "https://pypi.org/project/${name}/";
        sourceProvenance = [ (if isBinary then lib.sourceTypes.binaryNativeCode else lib.sourceTypes.binaryBytecode) ];
        inherit maintainers;
      };
    };
in
package
