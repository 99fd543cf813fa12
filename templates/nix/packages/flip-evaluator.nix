# How near two pictures are to the eye, which `patchforge bench` tells; nixpkgs has it not.
{
  lib,
  cmake,
  fetchurl,
  maintainers,
  ninja,
  python3Packages,
}:
let
  pin = (lib.importJSON ../data/benchmark.json).flip-evaluator;
in
python3Packages.buildPythonPackage {
  pname = "flip-evaluator";
  inherit (pin) version;
  pyproject = true;

  src = fetchurl { inherit (pin) hash url; };

  build-system = [
    python3Packages.nanobind
    python3Packages.scikit-build-core
  ];
  nativeBuildInputs = [
    cmake
    ninja
  ];
  # scikit-build-core runs CMake itself.
  dontUseCmakeConfigure = true;
  dependencies = [ python3Packages.numpy ];
  pythonImportsCheck = [ "flip_evaluator" ];

  meta = {
    description = "Difference evaluator for alternating images";
    homepage = "https://github.com/NVlabs/flip";
    license = lib.licenses.bsd3;
    inherit maintainers;
  };
}
