# Intel's runtime libraries for one lock of torch, as one package outside of the Python set: 22 single ones would depend on
# each other in circles. Their licence forbids to modify them, so they are neither stripped nor patched. They look for
# libraries beside themselves ($ORIGIN); what they need of nixpkgs is linked there.
{
  lib,
  level-zero,
  ocl-icd,
  stdenv,
  stdenvNoCC,
  unzip,
  zlib,
  maintainers,
  # Sources of wheels.
  wheels,
  version,
}:
stdenvNoCC.mkDerivation {
  pname = "intel-oneapi-runtime";
  inherit version;
  srcs = wheels;

  strictDeps = true;
  nativeBuildInputs = [ unzip ];
  dontUnpack = true;
  dontConfigure = true;
  dontBuild = true;
  dontStrip = true;
  dontPatchELF = true;
  # Intel's scripts are for gdb, and are Intel's.
  dontPatchShebangs = true;

  installPhase = ''
    runHook preInstall
    mkdir -p $out/lib $out/share/wheels
    for wheel in $srcs; do
      mkdir wheel
      unzip -q "$wheel" -d wheel
      for folder in wheel/*.data/data; do
        if [ -d "$folder" ]; then cp -r --no-preserve=mode "$folder"/. $out/; fi
      done
      # Names, versions and licences.
      cp -r --no-preserve=mode wheel/*.dist-info $out/share/wheels/
      rm -r wheel
    done
    for library in ${lib.getLib stdenv.cc.cc}/lib/libstdc++.so* ${lib.getLib stdenv.cc.cc}/lib/libgcc_s.so* \
      ${level-zero}/lib/libze_loader.so* ${ocl-icd}/lib/libOpenCL.so* ${zlib}/lib/libz.so*; do
      if [ -e "$library" ]; then ln -sf "$library" $out/lib/; fi
    done
    runHook postInstall
  '';

  doInstallCheck = true;
  installCheckPhase = ''
    runHook preInstallCheck
    for library in libsycl.so libstdc++.so libgcc_s.so libze_loader.so libOpenCL.so libz.so; do
      if ! ls $out/lib/$library* > /dev/null; then
        echo "intel-oneapi-runtime: no $library; is the lock of torch incomplete?" >&2
        exit 1
      fi
    done
    runHook postInstallCheck
  '';

  meta = {
    description = "Intel's SYCL, MKL and OpenMP runtime libraries that PyTorch for XPU needs";
    homepage = "https://www.intel.com/oneapi";
    license = [
      # intel-cmplr-lic-rt
      {
        shortName = "intel-eula-developer-tools";
        fullName = "Intel End User License Agreement for Developer Tools";
        url = "https://www.intel.com/content/www/us/en/content-details/785964/intel-end-user-license-agreement-for-developer-tools.html";
        free = false;
        redistributable = false;
      }
      # onemkl-license
      lib.licenses.issl
    ];
    sourceProvenance = [ lib.sourceTypes.binaryNativeCode ];
    platforms = [ "x86_64-linux" ];
    inherit maintainers;
  };
}
