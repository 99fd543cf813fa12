# A pinned ComfyUI release with patchforge's patches, and three programs that differ in the GPU they ask for.
{
  lib,
  addDriverRunpath,
  fetchFromGitHub,
  intel-compute-runtime,
  level-zero,
  ninja,
  runtimeShell,
  stdenv,
  stdenvNoCC,
  testers,
  maintainers,
  patchforge,
  requirementsOf,
  # One entry of data/comfyui.json.
  release,
  # A Python whose package set has torch; python-xpu, or your own.
  python,
  # A second Python with a CUDA build of torch, for the programs `comfyui` and `comfyui-cuda`.
  cudaPython ? null,
  # Node packs: derivations with share/comfyui/custom_nodes and `requirements`.
  nodePacks ? [ ],
  extraPythonPackages ? (ps: [ ]),
  patchesOf ? (release: map (file: ../../comfyui + "/${release.version}/${file}") release.patches),
}:
let
  nodeRequirements = lib.concatMap (node: node.requirements or [ ]) nodePacks;
  environmentOf =
    interpreter:
    interpreter.withPackages (
      ps: map (requirementsOf ps) (release.requirements ++ nodeRequirements) ++ extraPythonPackages ps
    );
  environment = environmentOf python;
  cudaEnvironment = if cudaPython == null then null else environmentOf cudaPython;
  # Triton and torch.compile write C++ while ComfyUI runs.
  compilers = lib.makeBinPath [
    stdenv.cc
    ninja
  ];
  isXpu = python.pkgs.torch.xpuSupport or false;
in
stdenvNoCC.mkDerivation (finalAttrs: {
  pname = "comfyui-xpu";
  version = lib.removePrefix "v" release.version;

  strictDeps = true;

  src = fetchFromGitHub {
    inherit (release)
      owner
      repo
      rev
      hash
      ;
  };

  patches = patchesOf release;
  patchFlags = [
    "-p1"
    "--fuzz=0"
  ];

  dontConfigure = true;
  dontBuild = true;

  installPhase = ''
    runHook preInstall
    mkdir -p $out/bin $out/share
    cp -r . $out/share/comfyui
    for backend in auto cuda xpu; do
      case $backend in auto) program=comfyui ;; *) program=comfyui-$backend ;; esac
      substitute ${./launch.sh} $out/bin/$program \
        --replace-fail @shell@ ${runtimeShell} \
        --replace-fail @backend@ $backend \
        --replace-fail @python@ ${environment}/bin/python \
        --replace-fail @cudaPython@ "${lib.optionalString (cudaPython != null) "${cudaEnvironment}/bin/python"}" \
        --replace-fail @main@ $out/share/comfyui/main.py \
        --replace-fail @nodes@ "${lib.concatMapStringsSep " " (node: "${node}/share/comfyui/extra_model_paths.yaml") nodePacks}" \
        --replace-fail @driverLink@ ${addDriverRunpath.driverLink} \
        --replace-fail @drivers@ ${lib.getOutput "drivers" intel-compute-runtime} \
        --replace-fail @opencl@ ${intel-compute-runtime} \
        --replace-fail @levelZero@ ${level-zero} \
        --replace-fail @cc@ ${stdenv.cc} \
        --replace-fail @compilers@ ${compilers}
      chmod +x $out/bin/$program
    done
    ln -s comfyui-xpu $out/bin/comfyui-ipex
    runHook postInstall
  '';

  doInstallCheck = true;
  installCheckPhase = ''
    runHook preInstallCheck
    export HOME=$(mktemp -d)
    ${environment}/bin/python ${../checks/requirements.py} requirements.txt ${lib.escapeShellArgs nodeRequirements}
    ${environment}/bin/python ${../checks/torch_kind.py} "${lib.optionalString isXpu "xpu"}"
    ${environment}/bin/python ${../checks/xpu_host.py} $out/share/comfyui
    for program in comfyui comfyui-cuda comfyui-xpu; do
      $out/bin/$program --help-gpu > $program.gpu
      grep -q "^Chosen: " $program.gpu || { echo "$program --help-gpu names no device" >&2; exit 1; }
    done
    $out/bin/comfyui --cpu --quick-test-for-ci
    runHook postInstallCheck
  '';

  passthru = {
    inherit
      environment
      nodePacks
      python
      release
      ;
    tests = {
      # Needs KVM.
      service = testers.runNixOSTest (import ../checks/vm.nix { package = finalAttrs.finalPackage; });
    }
    // lib.mergeAttrsList (map (node: lib.mapAttrs' (test: lib.nameValuePair "${node.pname or node.name}-${test}") (node.tests or { })) nodePacks);
    updateScript = patchforge.updateScript "comfyui-xpu" [
      [
        "track"
        "--index"
      ]
      [
        "apply"
        "latest"
      ]
      [
        "pin"
        "comfyui"
        "python"
      ]
      [ "nix" ]
    ];
  };

  meta = {
    description = "Node-based interface to diffusion models, patched for Intel GPUs";
    homepage = "https://github.com/${release.owner}/${release.repo}";
    changelog = "https://github.com/${release.owner}/${release.repo}/releases/tag/${release.tag}";
    license = lib.licenses.gpl3Only;
    mainProgram = "comfyui";
    inherit maintainers;
    platforms = [ "x86_64-linux" ];
  };
})
