global: self: {
  llvm = global.stdenvNoCC.mkDerivation {
    pname = "intel-dpcpp-llvm";
    version = "2025.3";
    src = global.fetchurl (global.lib.importJSON ./default.lock);
    dontUnpack = true;
    installPhase = "mkdir -p $out/lib; cp $src $out/lib/libsycl.so";
  };
  clang = global.stdenvNoCC.mkDerivation {
    pname = "intel-dpcpp";
    version = "2025.3";
    dontUnpack = true;
    installPhase = ''
      mkdir -p $out/bin
      printf '#!%s\necho "icx with ${self.llvm}"\n' $shell > $out/bin/icx
      chmod +x $out/bin/icx
    '';
  };
}
