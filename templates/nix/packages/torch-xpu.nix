# A Python package set's torch, torchvision, torchaudio and triton from the lock, and those of nixpkgs that depend on them.
{
  lib,
  addDriverRunpath,
  autoPatchelfHook,
  callPackage,
  fetchurl,
  level-zero,
  stdenv,
  stdenvNoCC,
  zlib,
  data,
  torchVersion ? data.torch.default,
  maintainers ? import ../maintainers.nix,
}:
final: prev:
let
  inherit (import ./lock.nix {
    inherit data;
    version = torchVersion;
  } prev.python) wheels;
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
  versions = lib.listToAttrs (map (wheel: lib.nameValuePair wheel.name wheel.version) wheels);
  nameOf = requirement: lib.head (builtins.match "([A-Za-z0-9_.-]*[A-Za-z0-9]).*" requirement);
  source =
    wheel:
    fetchurl {
      inherit (wheel) hash url;
      name = wheel.file;
    };
  attributeOf = name: if name == "triton-xpu" then "triton" else name;
  # Of Intel's wheels, Python has to know the one by which Triton finds SYCL's headers.
  known = ours // lib.optionalAttrs (versions ? intel-sycl-rt) { intel-sycl-rt = null; };

  needsTorch =
    wheel:
    lib.elem wheel.name [
      "torchaudio"
      "torchvision"
    ];
  # Not every wheel's metadata could be read.
  requiredBy =
    wheel:
    lib.unique (
      map nameOf wheel.requires
      ++ lib.optional (needsTorch wheel) "torch"
      ++ lib.optional (wheel.name == "triton-xpu" && known ? intel-sycl-rt) "intel-sycl-rt"
    );

  runtime = callPackage ./intel-oneapi-runtime.nix {
    inherit maintainers;
    inherit (ours.torch) version;
    wheels = map source (lib.filter (wheel: !(isPython wheel)) wheels);
  };

  licences = {
    # MKL is linked into it.
    torch = [
      lib.licenses.bsd3
      lib.licenses.issl
    ];
    torchaudio = lib.licenses.bsd2;
    triton-xpu = lib.licenses.mit;
  };
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
          runtime
          level-zero
          (lib.getLib stdenv.cc.cc)
          zlib
        ];
        # Stripped, torch's libraries do not load ("ELF load command address/offset not properly aligned").
        dontStrip = true;
        # The hook looks right in lib of its inputs, and not below; some of Intel's libraries are below, torch's elsewhere.
        preFixup = ''
          addAutoPatchelfSearchPath ${runtime}/lib ${
            lib.optionalString (needsTorch wheel) "${final.torch}/${final.python.sitePackages}/torch/lib"
          }
        '';
        # NixOS has the GPU's driver there.
        appendRunpaths = [ "${addDriverRunpath.driverLink}/lib" ];
        # Some of Intel's libraries have no run path, and use that of whoever loads them only if it is of the old kind.
        patchelfFlags = [ "--force-rpath" ];
        dependencies = map (name: final.${attributeOf name}) (
          lib.filter (name: known ? ${name} || !(versions ? ${name})) (requiredBy wheel)
        );
        meta = {
          description = "${wheel.name} for Intel XPU, PyTorch's own build";
          homepage = "https://pytorch.org/";
          license = licences.${wheel.name} or lib.licenses.bsd3;
          sourceProvenance = [ lib.sourceTypes.binaryNativeCode ];
          platforms = [ "x86_64-linux" ];
          inherit maintainers;
        };
      }
      // extra
    );
  # Tests of packages that are built again for this torch.
  suites = lib.importJSON ../data/suites.json;
  relieved =
    name: suite:
    prev.${name}.overridePythonAttrs (
      old:
      if suite ? tests then { disabledTests = (old.disabledTests or [ ]) ++ suite.tests; } else { doCheck = false; }
    );
in
lib.mapAttrs relieved (builtins.intersectAttrs prev suites)
// lib.mapAttrs' (name: wheel: lib.nameValuePair (attributeOf name) (build wheel { })) ours
// {
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
      oneapiRuntime = runtime;
    };
  };
}
// lib.optionalAttrs (versions ? intel-sycl-rt) {
  # What Triton asks Python's metadata for; headers and libraries stay where they are.
  intel-sycl-rt = final.toPythonModule (
    stdenvNoCC.mkDerivation {
      pname = "intel-sycl-rt";
      version = versions.intel-sycl-rt;
      dontUnpack = true;
      installPhase = ''
        runHook preInstall
        site=$out/${final.python.sitePackages}
        mkdir -p $site
        cp -r --no-preserve=mode ${runtime}/share/wheels/intel_sycl_rt-*.dist-info $site/
        sed -i 's|^[^/,]*[.]data/data/|${runtime}/|' $site/*.dist-info/RECORD
        runHook postInstall
      '';
      meta = {
        description = "Metadata of Intel's SYCL runtime";
        inherit (runtime.meta) homepage license;
        platforms = [ "x86_64-linux" ];
        inherit maintainers;
      };
    }
  );
}
