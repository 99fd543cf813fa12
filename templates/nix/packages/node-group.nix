# Several node packs as one, for `nodePacks`.
{
  lib,
  symlinkJoin,
  maintainers,
  name,
  packs,
}:
symlinkJoin {
  inherit name;
  paths = packs;
  postBuild = ''
    rm $out/share/comfyui/extra_model_paths.yaml
    printf 'patchforge:\n  custom_nodes: %s\n' $out/share/comfyui/custom_nodes > $out/share/comfyui/extra_model_paths.yaml
  '';
  passthru = {
    requirements = lib.concatMap (pack: pack.requirements) packs;
    inherit packs;
  };
  meta = {
    description = "Node packs for ComfyUI: ${lib.concatMapStringsSep ", " (pack: pack.meta.description) packs}";
    license = lib.unique (lib.concatMap (pack: pack.meta.license) packs);
    platforms = [ "x86_64-linux" ];
    inherit maintainers;
  };
}
