# Python packages from the lock: torch and what belongs to it, on one merged derivation of Intel's runtime wheels.
# 22 single packages would depend on each other in circles.
{
  lib,
  stdenv,
  stdenvNoCC,
  autoPatchelfHook,
  fetchurl,
  level-zero,
  ocl-icd,
  unzip,
  zlib,
  data,
}:
final: prev:
let
  inherit (import ./lock.nix { inherit data; } prev.python) wheels;
  # Intel's libraries are in wheels for one platform; what is for any has Python code alone.
  isPython =
    wheel:
    lib.hasSuffix "-none-any.whl" wheel.file
    || lib.elem wheel.name [
      "torch"
      "torchvision"
      "torchaudio"
      "triton-xpu"
    ];
  ours = lib.listToAttrs (map (wheel: lib.nameValuePair wheel.name wheel) (lib.filter isPython wheels));
  lockedNames = map (wheel: wheel.name) wheels;
  nameOf = requirement: lib.head (builtins.match "([A-Za-z0-9_.-]*[A-Za-z0-9]).*" requirement);
  source =
    wheel:
    fetchurl {
      inherit (wheel) hash url;
      name = wheel.file;
    };
  attributeOf = name: if name == "triton-xpu" then "triton" else name;

  build =
    wheel: extra:
    final.buildPythonPackage (
      {
        pname = wheel.name;
        inherit (wheel) version;
        format = "wheel";
        src = source wheel;
        nativeBuildInputs = [ autoPatchelfHook ];
        buildInputs = [
          final.intel-oneapi-runtime
          level-zero
          ocl-icd
          stdenv.cc.cc.lib
          zlib
        ];
        # Intel's wheels are merged into intel-oneapi-runtime, where Python's metadata does not look for them.
        dontCheckRuntimeDeps = true;
        autoPatchelfIgnoreMissingDeps = [ "libze_intel_gpu.so.1" "libcuda.so.1" ];
        dependencies = map (name: final.${attributeOf name}) (
          lib.filter (name: ours ? ${name} || !(lib.elem name lockedNames)) (map nameOf wheel.requires)
        );
        meta = {
          description = "${wheel.name} for Intel XPU, PyTorch's own build";
          homepage = "https://pytorch.org/";
          license = lib.licenses.bsd3;
          sourceProvenance = [ lib.sourceTypes.binaryNativeCode ];
          platforms = [ "x86_64-linux" ];
        };
      }
      // extra
    );
in
lib.mapAttrs' (name: wheel: lib.nameValuePair (attributeOf name) (build wheel { })) ours
// {
  intel-oneapi-runtime = stdenvNoCC.mkDerivation {
    pname = "intel-oneapi-runtime";
    inherit (ours.torch) version;
    srcs = map source (lib.filter (wheel: !(isPython wheel)) wheels);
    nativeBuildInputs = [
      autoPatchelfHook
      unzip
    ];
    buildInputs = [
      level-zero
      ocl-icd
      stdenv.cc.cc.lib
      zlib
    ];
    # Of the host: the GPU's driver, OpenCL's compiler, and fabrics of clusters.
    autoPatchelfIgnoreMissingDeps = true;
    dontUnpack = true;
    installPhase = ''
      runHook preInstall
      mkdir -p $out/lib
      for wheel in $srcs; do
        mkdir wheel
        unzip -q "$wheel" -d wheel
        for folder in wheel/*.data/data/lib; do
          if [ -d "$folder" ]; then cp -r --no-preserve=mode "$folder"/. $out/lib/; fi
        done
        rm -r wheel
      done
      runHook postInstall
    '';
    doInstallCheck = true;
    installCheckPhase = ''
      runHook preInstallCheck
      if ! ls $out/lib/libsycl.so* > /dev/null; then
        echo "intel-oneapi-runtime: no libsycl.so among the locked wheels; the lock of torch is incomplete" >&2
        exit 1
      fi
      runHook postInstallCheck
    '';
    meta = {
      description = "Intel's SYCL, MKL and Level Zero runtime libraries that PyTorch for XPU needs";
      homepage = "https://www.intel.com/oneapi";
      license = lib.licenses.issl;
      sourceProvenance = [ lib.sourceTypes.binaryNativeCode ];
      platforms = [ "x86_64-linux" ];
    };
  };

  torch = build ours.torch {
    doInstallCheck = true;
    installCheckPhase = ''
      runHook preInstallCheck
      ${final.python.interpreter} ${../checks/torch_build.py} $out/${final.python.sitePackages} ${ours.torch.version}
      runHook postInstallCheck
    '';
    passthru = {
      cudaSupport = false;
      rocmSupport = false;
      xpuSupport = true;
    };
  };
}
