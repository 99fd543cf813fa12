# This project's own command line; name, version and dependencies are read from pyproject.toml.
{
  lib,
  git,
  patch,
  python3Packages,
}:
let
  root = ../../..;
  inherit (lib.importTOML (root + "/pyproject.toml")) project;
  parts = [
    "LICENSE"
    "README.md"
    "patchforge"
    "pyproject.toml"
    "templates"
    "transforms"
    "upstream"
  ];
  topOf = path: lib.head (lib.splitString "/" (lib.removePrefix "${toString root}/" path));
  nameOf = requirement: lib.toLower (lib.head (builtins.match "([A-Za-z0-9-]+).*" requirement));
in
python3Packages.buildPythonApplication {
  pname = project.name;
  inherit (project) version;
  pyproject = true;

  src = lib.cleanSourceWith {
    name = "patchforge-source";
    src = root;
    filter = path: _: lib.elem (topOf path) parts;
  };

  build-system = [ python3Packages.setuptools ];
  dependencies = map (requirement: python3Packages.${nameOf requirement}) project.dependencies;
  makeWrapperArgs = [
    "--prefix PATH : ${
      lib.makeBinPath [
        git
        patch
      ]
    }"
  ];

  doInstallCheck = true;
  installCheckPhase = ''
    runHook preInstallCheck
    $out/bin/patchforge --version
    $out/bin/patchforge explain T01 > /dev/null
    runHook postInstallCheck
  '';

  meta = {
    inherit (project) description;
    license = lib.licenses.gpl3Plus;
    mainProgram = "patchforge";
  };
}
