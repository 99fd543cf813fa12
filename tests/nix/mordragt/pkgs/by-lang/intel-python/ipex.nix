{ buildPythonPackage, fetchurl, intel-mkl, lib, torch }:
buildPythonPackage {
  pname = "intel_extension_for_pytorch";
  version = "2.8.10";
  format = "wheel";
  src = fetchurl (lib.importJSON ./ipex.lock);
  buildInputs = [ intel-mkl ];
  dependencies = [ torch ];
}
