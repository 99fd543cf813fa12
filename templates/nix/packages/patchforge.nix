# This project's own command line; name, version and dependencies are read from pyproject.toml.
{
  lib,
  git,
  maintainers,
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
  inherit (project) optional-dependencies;
  wanted = project.dependencies ++ optional-dependencies.bot ++ optional-dependencies.test;
  dependencies = map (requirement: python3Packages.${nameOf requirement}) wanted;
  inherit (python3Packages) python;
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

  # pip builds with the version that is pinned; Nix pins its own.
  postPatch = ''
    sed -i 's/"setuptools==[^"]*"/"setuptools"/' pyproject.toml
  '';
  build-system = [ python3Packages.setuptools ];
  inherit dependencies;
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
    $out/bin/patchforge explain free-memory > /dev/null
    runHook postInstallCheck
  '';

  # For PYTHONPATH, where the interpreter is to run another copy of patchforge.
  passthru.dependenciesPath = "${python.withPackages (_: dependencies)}/${python.sitePackages}";

  meta = {
    inherit (project) description;
    license = lib.licenses.gpl3Plus;
    inherit maintainers;
    mainProgram = "patchforge";
  };
}
