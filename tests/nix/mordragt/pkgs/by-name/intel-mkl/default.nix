{ stdenvNoCC, fetchurl, lib, intel-dpcpp, intel-tbb }:
stdenvNoCC.mkDerivation {
  pname = "intel-mkl";
  version = "2025.3";
  src = fetchurl (lib.importJSON ./default.lock);
  dontUnpack = true;
  installPhase = ''
    mkdir -p $out/lib
    cp $src $out/lib/libmkl_rt.so
    ln -s ${intel-tbb}/lib/libtbb.so ${intel-dpcpp.llvm}/lib/libsycl.so $out/lib
  '';
}
