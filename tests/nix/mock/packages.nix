{ lib, pkgs, system, settings }:
let
  bash = settings.shell;
  tools = "/usr/bin:/bin";
  # As nixpkgs' own: attributes may be a function of the final ones; passthru and meta are not part of the derivation.
  mkDerivation = given: let
    make = attributes: let
      args = if lib.isFunction attributes then attributes final else attributes;
      final = args // { finalPackage = package; };
      plain = removeAttrs args [ "passthru" "meta" "override" ];
      drv = derivation ({
        name = "${args.pname}-${args.version}";
        inherit system;
        builder = bash;
        args = [ "-e" ./setup.sh ];
        path = tools;
        shell = bash;
        python = settings.python;
        tool = ./builder.py;
        nativeBuildInputs = [ ];
        nativeInstallCheckInputs = [ ];
        patches = [ ];
        src = "";
      } // plain);
      package = drv // (args.passthru or { }) // {
        pname = args.pname or args.name;
        version = args.version or "";
        meta = args.meta or { };
        patches = args.patches or [ ];
        overrideAttrs = f: make (if lib.isFunction attributes then self: let old = attributes self; in old // change f old else attributes // change f attributes);
      };
    in package;
    change = f: old: if lib.isFunction f then let g = f old; in if lib.isFunction g then g old else g else f;
  in make given;

  # bash stays until `cp` is done: Nix kills a builder that closes its output, as cp does before it ends.
  fetch = name: hash: mode: from: derivation {
    inherit name system;
    builder = bash;
    args = [ "-c" ''if [ ! -e "$from" ]; then echo "the network has no $from" >&2; exit 1; fi; cp -r "$from" "$out"; exit 0'' ];
    PATH = tools;
    from = "${settings.network}/${from}";
    outputHash = hash;
    outputHashAlgo = "sha256";
    outputHashMode = mode;
    preferLocalBuild = true;
  };

  written = name: text: buildCommand: mkDerivation { inherit name text buildCommand; pname = name; version = ""; passAsFile = [ "text" ]; };

  stub = pname: mkDerivation {
    inherit pname;
    version = "1.0";
    dontUnpack = true;
    # Folders with a library of each name that the expressions ask for, as the real package has.
    libraries = {
      level-zero = [ "libze_loader.so.1" ];
      ocl-icd = [ "libOpenCL.so.1" ];
      zlib = [ "libz.so.1" ];
      gcc-lib = [ "libstdc++.so.6" "libgcc_s.so.1" ];
    }.${pname} or [ ];
    installPhase = ''
      mkdir -p $out/lib $out/bin
      # The compiler is the machine's.
      if [ "$pname" = gcc-wrapper ]; then
        for program in cc c++; do
          if found=$(command -v $program); then
            printf '#!%s\nexec %s "$@"\n' "$shell" "$found" > $out/bin/$program
            chmod +x $out/bin/$program
          fi
        done
      fi
      for library in $libraries; do printf '\x7fELF{"needs": []}' > $out/lib/$library; done
    '';
  };
  hook = pname: script: mkDerivation {
    inherit pname script;
    version = "1.0";
    buildCommand = "mkdir -p $out/nix-support; cp $script $out/nix-support/setup-hook";
  };

  # A Python package set: `packages` of settings.json are stubs with metadata, everything else is built from wheels.
  # `override` is the interpreter's own: its arguments replace those before, packageOverrides too
  # (pkgs/development/interpreters/python/cpython/default.nix).
  pythonWith = version: given: let
    arguments = { packageOverrides = _: _: { }; self = python; } // given;
    inherit (arguments) self;
    python = {
      type = "derivation";
      inherit (interpreter) name outPath drvPath outputName;
      pname = "python3";
      inherit version;
      pythonVersion = version;
      sitePackages = "lib/python${version}/site-packages";
      interpreter = "${interpreter}/bin/python3";
      meta = { };
      pkgs = ensured packages;
      withPackages = f: environment (f python.pkgs);
      override = new: let
        changed = if lib.isFunction new then new arguments else new;
        unknown = lib.attrNames (removeAttrs changed [ "self" "packageOverrides" ]);
      in if unknown != [ ] then throw "python.override: unexpected argument ${lib.head unknown}" else pythonWith version (given // changed);
    };
    interpreter = environment [ ];
    # Whatever is in the set and is not a Python module is refused when it is used (passthrufun.nix, ensurePythonModules).
    ensured = lib.mapAttrs (name: value:
      if lib.isDerivation value && !(value ? pythonModule)
      then value // { outPath = unfit name; drvPath = unfit name; name = unfit name; }
      else value);
    unfit = name: throw "${name} should use `buildPythonPackage` or `toPythonModule` if it is to be part of the Python packages set.";
    closure = list: let all = map (x: { key = x.outPath; inherit x; }) list; in
      map (y: y.x) (builtins.genericClosure { startSet = all; operator = y: map (x: { key = x.outPath; inherit x; }) (y.x.dependencies or [ ]); });
    site = "lib/python${version}/site-packages";
    environment = list: mkDerivation {
      pname = "python3-env";
      inherit version;
      dontUnpack = true;
      installPhase = ''
        "$python" "$tool" environment $out $shell ${settings.python} "${settings.pythonPath}" ${lib.concatMapStringsSep " " (x: "${x}/${site}") (closure list)}
      '';
    };
    # mk-python-derivation.nix: only a build by PEP 517 checks the requirements of what it made; a wheel's are not read.
    # Tests are of the install check phase.
    buildPythonPackage = args: built args // { overridePythonAttrs = f: buildPythonPackage (args // f args); };
    built = args: let
      isWheel = args.format or "" == "wheel";
      dependencies = args.dependencies or [ ];
      imports = args.pythonImportsCheck or [ ];
      suite = lib.filter (test: !(lib.elem test (args.disabledTests or [ ]))) (args.suite or [ ]);
    in
      if isWheel && args ? dontCheckRuntimeDeps then throw "${args.pname}: a wheel's requirements are not checked; dontCheckRuntimeDeps does nothing"
      else mkDerivation (removeAttrs args [ "format" "pyproject" "build-system" "dependencies" "pythonImportsCheck" "disabledTests" "suite" "doCheck" ] // {
        propagatedBuildInputs = dependencies;
        passthru = { pythonModule = python; } // (args.passthru or { }) // { inherit dependencies; };
        installPhase = ''
          site=$out/${site}
          mkdir -p $site
          runHook preInstall
          ${if isWheel then ''"$python" "$tool" wheel $src $site $out'' else args.installPhase or "cp -r . $site"}
          # setuptools' package-dir: "package.inner" = "folder"
          if [ -f $site/pyproject.toml ]; then
            sed -n 's/^"\([a-z]*\)\.\([a-z]*\)" = "\2"$/\1 \2/p' $site/pyproject.toml | while read -r package inner; do
              mv $site/$inner $site/$package/$inner
            done
          fi
          # pip writes a program for each line of [project.scripts]: name = "module:function".
          if [ -f $site/pyproject.toml ]; then
            mkdir -p $out/bin
            sed -n '/^\[project.scripts\]/,/^$/s/^\([a-z-]*\) = "\([a-z.]*\):\([a-z_]*\)"$/\1 \2 \3/p' $site/pyproject.toml |
              while read -r program module function; do
                printf '#!%s\nexport PYTHONPATH=%s PYTHONDONTWRITEBYTECODE=1\nexec %s -P -c "import sys; from %s import %s; sys.argv[0] = sys.argv[1]; del sys.argv[1]; sys.exit(%s())" %s "$@"\n' \
                  $shell "$site:${lib.concatMapStringsSep ":" (x: "${x}/${site}") (closure dependencies)}" ${settings.python} $module $function $function $program > $out/bin/$program
                chmod +x $out/bin/$program
              done
          fi
          runHook postInstall
        '';
        doInstallCheck = args.doInstallCheck or (imports != [ ] || suite != [ ]);
        installCheckPhase = (args.installCheckPhase or "") + ''
          for module in ${toString imports}; do
            PYTHONPATH=$out/${site}:${lib.concatMapStringsSep ":" (x: "${x}/${site}") (closure dependencies)}:${settings.pythonPath} ${settings.python} -c "import $module"
          done
        '' + lib.optionalString (args.doCheck or true) (lib.concatMapStrings (test: ''
          echo "FAILED ${args.pname}: ${test}" >&2; exit 1
        '') suite);
      });
    # What the interpreter has itself is only described; `paths` of another interpreter's package are linked to, under
    # their own name or that of `dist`. A test of `xpu` fails, or takes hours, with torch for XPU.
    named = final: name: given: let
      about = { paths = [ ]; requires = [ ]; dist = name; xpu = [ ]; } // (if lib.isAttrs given then given else { version = given; });
    in buildPythonPackage {
      pname = name;
      inherit (about) version;
      dontUnpack = true;
      dontStrip = true;
      dontPatchELF = true;
      dependencies = map (requirement: final.${requirement}) about.requires;
      suite = lib.optionals (final.torch.xpuSupport or false) about.xpu;
      installPhase = ''
        for path in ${toString about.paths}; do ln -s $path $site; done
      '' + lib.optionalString (about.paths == [ ] || given ? dist) ''
        info=$site/${lib.replaceStrings [ "-" ] [ "_" ] about.dist}-${about.version}.dist-info
        mkdir -p $info
        printf 'Metadata-Version: 2.1\nName: ${about.dist}\nVersion: ${about.version}\n' > $info/METADATA
      '';
    };
    base = final: {
      inherit python buildPythonPackage;
      buildPythonApplication = buildPythonPackage;
      toPythonModule = package: package.overrideAttrs (old: { passthru = (old.passthru or { }) // { pythonModule = python; }; });
      callPackage = lib.callPackageWith (pkgs // final);
    } // lib.mapAttrs (named final) settings.packages;
    extensions = pkgs.pythonPackagesExtensions ++ [ arguments.packageOverrides ];
    packages = lib.fix (final: lib.foldl' (prev: extension: prev // extension final prev) (base final) extensions);
  in python;
  short = lib.replaceStrings [ "." ] [ "" ];
  # Everything that there is besides, by the names of the contract.
  others = lib.genAttrs settings.names stub;
in
others // {
  inherit lib pkgs;
  stdenv = {
    inherit mkDerivation;
    cc = (stub "gcc-wrapper") // { cc.lib = stub "gcc-lib"; };
    hostPlatform = { inherit system; isx86_64 = true; isLinux = true; };
  };
  stdenvNoCC.mkDerivation = mkDerivation;
  inherit system;
  callPackage = lib.callPackageWith pkgs;
  newScope = extra: lib.callPackageWith (pkgs // extra);
  runtimeShell = bash;
  fetchFromGitHub = { owner, repo, rev, hash, fetchSubmodules ? false }: fetch "source" hash "recursive" "${owner}-${repo}-${rev}";
  fetchurl = { url, hash, name ? baseNameOf url }: fetch (lib.replaceStrings [ "+" ] [ "_" ] name) hash "flat" name;
  runCommand = name: env: command: mkDerivation ({ inherit name; pname = name; version = ""; buildCommand = command; } // env);
  writeText = name: text: written name text "cat \"$textPath\" > $out";
  writeShellScript = name: text: written name text "{ echo \"#!$shell\"; cat \"$textPath\"; } > $out; chmod +x $out";
  writeShellScriptBin = name: text: mkDerivation {
    inherit name text; pname = name; version = ""; passAsFile = [ "text" ];
    buildCommand = "mkdir -p $out/bin; { echo \"#!$shell\"; cat \"$textPath\"; } > $out/bin/$name; chmod +x $out/bin/$name";
  };
  makeFontsConf = { fontDirectories }: written "fonts.conf" (toString fontDirectories) "cat \"$textPath\" > $out";
  linkFarm = name: entries: let
    list = if lib.isAttrs entries then lib.mapAttrsToList (name: path: { inherit name path; }) entries else entries;
  in mkDerivation {
    inherit name; pname = name; version = "";
    buildCommand = lib.concatMapStringsSep "\n" (x: ''mkdir -p "$out/$(dirname ${lib.escapeShellArg x.name})"; ln -s ${x.path} "$out"/${lib.escapeShellArg x.name}'') list;
  };
  symlinkJoin = { name, paths, postBuild ? "", passthru ? { }, meta ? { }, nativeBuildInputs ? [ ] }: mkDerivation {
    inherit name nativeBuildInputs passthru meta;
    pname = (builtins.parseDrvName name).name;
    inherit (builtins.parseDrvName name) version;
    buildCommand = "mkdir -p $out; ${lib.concatMapStringsSep "; " (x: "cp -rs --no-clobber ${x}/. $out; chmod -R u+w $out") paths}\n${postBuild}";
  };
  ollama-vulkan = mkDerivation {
    pname = "ollama";
    version = "0.32.0";
    dontUnpack = true;
    meta.license = lib.licenses.mit;
    installPhase = ''mkdir -p $out/bin; printf '#!%s\necho "ollama $* OLLAMA_VULKAN=$OLLAMA_VULKAN"\n' $shell > $out/bin/ollama; chmod +x $out/bin/ollama'';
  };
  mkShell = args: mkDerivation ({ pname = "shell"; version = ""; name = "shell"; buildCommand = "touch $out"; } // removeAttrs args [ "packages" "inputsFrom" ]);
  autoPatchelfHook = hook "auto-patchelf-hook" ./auto-patchelf.sh;
  makeWrapper = hook "make-wrapper-hook" ./make-wrapper.sh;
  addDriverRunpath = (stub "add-driver-runpath-hook") // { driverLink = "/run/opengl-driver"; };
  intel-compute-runtime = (stub "intel-compute-runtime") // { drivers = stub "intel-compute-runtime"; };
  python3Packages = pkgs.python3.pkgs;
  pythonPackagesExtensions = [ ];
  testers.runNixOSTest = test: stub "vm-test-${test.name}";
}
// lib.genAttrs (map (version: "python${short version}") settings.pythons) (name: pythonWith (lib.head (lib.filter (version: "python${short version}" == name) settings.pythons)) { })
// { python3 = pythonWith settings.pythonVersion { }; }
