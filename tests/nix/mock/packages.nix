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
    installPhase = "mkdir -p $out/lib";
  };

  # A Python package set: `packages` of settings.json are stubs with metadata, everything else is built from wheels.
  pythonWith = extensions: let
    python = {
      type = "derivation";
      inherit (interpreter) name outPath drvPath outputName;
      pname = "python3";
      version = settings.pythonVersion;
      pythonVersion = settings.pythonVersion;
      sitePackages = "lib/python${settings.pythonVersion}/site-packages";
      interpreter = "${interpreter}/bin/python3";
      meta = { };
      pkgs = packages;
      withPackages = f: environment (f packages);
      override = { packageOverrides, self ? null }: pythonWith (extensions ++ [ packageOverrides ]);
    };
    interpreter = environment [ ];
    closure = list: let all = map (x: { key = x.outPath; inherit x; }) list; in
      map (y: y.x) (builtins.genericClosure { startSet = all; operator = y: map (x: { key = x.outPath; inherit x; }) (y.x.dependencies or [ ]); });
    environment = list: mkDerivation {
      pname = "python3-env";
      version = settings.pythonVersion;
      dontUnpack = true;
      installPhase = ''
        "$python" "$tool" environment $out $shell ${settings.python} "${settings.pythonPath}" ${lib.concatMapStringsSep " " (x: "${x}/lib/python${settings.pythonVersion}/site-packages") (closure list)}
      '';
    };
    buildPythonPackage = args: mkDerivation (removeAttrs args [ "format" "pyproject" "build-system" "dependencies" ] // {
      passthru = (args.passthru or { }) // { dependencies = args.dependencies or [ ]; };
      installPhase = ''
        site=$out/lib/python${settings.pythonVersion}/site-packages
        mkdir -p $site
        ${if args.format or "" == "wheel" then ''"$python" "$tool" wheel $src $site'' else "cp -r . $site"}
        # setuptools' package-dir: "package.inner" = "folder"
        if [ -f $site/pyproject.toml ]; then
          sed -n 's/^"\([a-z]*\)\.\([a-z]*\)" = "\2"$/\1 \2/p' $site/pyproject.toml | while read -r package inner; do
            mv $site/$inner $site/$package/$inner
          done
        fi
        if [ -n "''${entry-}" ]; then
          mkdir -p $out/bin
          printf '#!%s\nexport PYTHONPATH=%s PYTHONDONTWRITEBYTECODE=1\nexec %s -m %s "$@"\n' $shell $site ${settings.python} $entry > $out/bin/$entry
          chmod +x $out/bin/$entry
        fi
      '';
    });
    # What the interpreter has itself is only described; `paths` of another interpreter's package are linked to.
    named = final: name: given: let about = if lib.isAttrs given then given else { version = given; paths = [ ]; requires = [ ]; }; in mkDerivation {
      pname = name;
      inherit (about) version;
      dontUnpack = true;
      installPhase = ''
        site=$out/lib/python${settings.pythonVersion}/site-packages
        mkdir -p $site
        if [ -n "${toString about.paths}" ]; then ln -s ${toString about.paths} $site; exit 0; fi
        info=$site/${name}-${about.version}.dist-info
        mkdir -p $info
        printf 'Metadata-Version: 2.1\nName: ${name}\nVersion: ${about.version}\n' > $info/METADATA
      '';
      passthru.dependencies = map (requirement: final.${requirement}) about.requires;
    };
    base = final: {
      inherit python buildPythonPackage;
      buildPythonApplication = args: buildPythonPackage (args // { entry = args.meta.mainProgram or args.pname; });
      callPackage = lib.callPackageWith (pkgs // final);
    } // lib.mapAttrs (named final) settings.packages;
    packages = lib.fix (final: lib.foldl' (prev: extension: prev // extension final prev) (base final) extensions);
  in python;
in
{
  inherit lib pkgs;
  stdenv = { inherit mkDerivation; cc.cc.lib = stub "gcc-lib"; hostPlatform = { inherit system; isx86_64 = true; isLinux = true; }; };
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
  linkFarm = name: entries: let
    list = if lib.isAttrs entries then lib.mapAttrsToList (name: path: { inherit name path; }) entries else entries;
  in mkDerivation {
    inherit name; pname = name; version = "";
    buildCommand = lib.concatMapStringsSep "\n" (x: ''mkdir -p "$out/$(dirname ${lib.escapeShellArg x.name})"; ln -s ${x.path} "$out"/${lib.escapeShellArg x.name}'') list;
  };
  symlinkJoin = { name, paths, postBuild ? "", passthru ? { }, meta ? { }, nativeBuildInputs ? [ ] }: mkDerivation {
    inherit name nativeBuildInputs passthru meta; pname = name; version = "";
    buildCommand = "mkdir -p $out; ${lib.concatMapStringsSep "; " (x: "cp -rs ${x}/. $out; chmod -R u+w $out") paths}\n${postBuild}";
  };
  ollama-vulkan = mkDerivation {
    pname = "ollama";
    version = "0.32.0";
    dontUnpack = true;
    installPhase = ''mkdir -p $out/bin; printf '#!%s\necho "ollama $* OLLAMA_VULKAN=$OLLAMA_VULKAN"\n' $shell > $out/bin/ollama; chmod +x $out/bin/ollama'';
  };
  mkShell = args: mkDerivation ({ pname = "shell"; version = ""; name = "shell"; buildCommand = "touch $out"; } // removeAttrs args [ "packages" "inputsFrom" ]);
  python3 = pythonWith pkgs.pythonPackagesExtensions;
  "${"python" + lib.replaceStrings [ "." ] [ "" ] settings.pythonVersion}" = pythonWith pkgs.pythonPackagesExtensions;
  python3Packages = pkgs.python3.pkgs;
  pythonPackagesExtensions = [ ];
}
// lib.genAttrs [
  "autoPatchelfHook" "clinfo" "coreutils" "findutils" "gawk" "git" "intel-compute-runtime" "intel-gpu-tools" "intel-graphics-compiler" "level-zero" "makeWrapper" "nixfmt" "nixfmt-tree" "ocl-icd"
  "patch" "unzip" "vpl-gpu-rt" "zlib"
] stub
