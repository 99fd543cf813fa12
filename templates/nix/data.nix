# What `patchforge nix` collected from upstream/ and generated/comfyui/; nothing else in these files is a version or hash.
{ lib }:
let
  comfyui = lib.importJSON ./data/comfyui.json;
  attributeOf = version: "comfyui-xpu_" + builtins.replaceStrings [ "." ] [ "_" ] (lib.removePrefix "v" version);
in
{
  inherit comfyui;
  # comfyui-xpu_0_32_0 and so on.
  byAttribute = lib.mapAttrs' (version: lib.nameValuePair (attributeOf version)) comfyui.releases;
  door = lib.importJSON ./data/door.json;
  names = lib.importJSON ./data/names.json;
  nodes = lib.importJSON ./data/nodes.json;
  ollama = lib.importJSON ./data/ollama.json;
  python = lib.importJSON ./data/python.json;
  torch = lib.importJSON ./data/torch.json;
}
