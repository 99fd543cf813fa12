# This project's own command line; name, version and dependencies are read from pyproject.toml.
{
  lib,
  flip-evaluator,
  git,
  maintainers,
  patch,
  python3Packages,
  writeShellScript,
  # More of pyproject.toml's optional-dependencies, such as "benchmark".
  extras ? [ ],
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
  wanted = lib.concatLists [
    project.dependencies
    optional-dependencies.arbiter
    optional-dependencies.bot
    optional-dependencies.operate
    optional-dependencies.test
  ]
  # What is not for every Python is not in nixpkgs either: ruptures.
  ++ lib.filter (requirement: !(lib.hasInfix ";" requirement)) (
    lib.concatMap (extra: optional-dependencies.${extra}) extras
  );
  packages = python3Packages // {
    inherit flip-evaluator;
  };
  dependencies = lib.unique (map (requirement: packages.${nameOf requirement}) wanted);
  inherit (python3Packages) python;
  dependenciesPath = "${python.withPackages (_: dependencies)}/${python.sitePackages}";
  path = lib.makeBinPath [
    git
    patch
  ];
  # In a checkout, with the code that is in it: only that may write there.
  inCheckout = writeShellScript "patchforge-in-checkout" ''
    export PATH=${path}:$PATH PYTHONPATH=${dependenciesPath}
    exec ${python.interpreter} -m patchforge "$@"
  '';
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
  makeWrapperArgs = [ "--prefix PATH : ${path}" ];

  doInstallCheck = true;
  installCheckPhase = ''
    runHook preInstallCheck
    $out/bin/patchforge --version
    $out/bin/patchforge explain free-memory > /dev/null
    runHook postInstallCheck
  '';

  passthru = {
    # For PYTHONPATH, where the interpreter is to run another copy of patchforge.
    inherit dependenciesPath inCheckout;
    # For passthru.updateScript, which is run in a checkout: commands, each a list of words.
    updateScript =
      name: commands:
      writeShellScript "update-${name}" (
        lib.concatMapStringsSep "\n" (words: "${inCheckout} ${lib.escapeShellArgs words} || exit") commands
      );
  };

  meta = {
    inherit (project) description;
    license = lib.licenses.gpl3Plus;
    inherit maintainers;
    mainProgram = "patchforge";
  };
}
