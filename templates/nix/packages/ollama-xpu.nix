# Ollama on Intel GPUs through Vulkan, the way that works today. SYCL is not in Ollama's releases: a package of your own
# that has it can be given, and is experimental.
{
  lib,
  symlinkJoin,
  makeWrapper,
  ollama-vulkan,
  data,
  maintainers,
  ollamaSycl ? null,
}:
let
  base = if ollamaSycl == null then ollama-vulkan else ollamaSycl;
in
symlinkJoin {
  name = "ollama-xpu-${base.version}";
  paths = [ base ];
  nativeBuildInputs = [ makeWrapper ];
  postBuild = ''
    wrapProgram $out/bin/ollama ${
      if ollamaSycl == null then "--set-default OLLAMA_VULKAN 1" else "--set-default ZES_ENABLE_SYSMAN 1"
    }
  '';
  passthru = {
    inherit (base) version;
    backend = if ollamaSycl == null then "vulkan" else "sycl";
    tracked = data.ollama;
    # nixpkgs builds it; this says whether it is as new as the version that patchforge tracks.
    isCurrent = !(lib.versionOlder base.version data.ollama.version);
  };
  meta = {
    description = "Large language models on Intel GPUs with Ollama";
    homepage = "https://ollama.com/";
    license = base.meta.license or lib.licenses.mit;
    mainProgram = "ollama";
    platforms = [ "x86_64-linux" ];
    inherit maintainers;
  };
}
