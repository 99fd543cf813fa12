# The lock of torch for a Python: which wheels, or a message that says what is missing.
{
  data,
  version ? data.torch.default,
}:
python:
let
  abi = "cp" + builtins.replaceStrings [ "." ] [ "" ] python.pythonVersion;
  known = data.torch.locks."${version}-${abi}" or null;
  lacks =
    if known == null then
      "there is no such file"
    else
      "it lacks " + builtins.concatStringsSep ", " known.missing;
in
{
  inherit version abi;
  isComplete = known != null && known.complete;
  wheels =
    if known != null && known.complete then
      known.wheels
    else
      throw ''
        torch ${version} for Intel XPU is not locked for Python ${python.pythonVersion}
          expected: a complete upstream/pins/torch/${version}-${abi}.json
          found: ${lacks}
          to do: in a checkout, python -m patchforge lock-torch ${version} --python ${python.pythonVersion} --online,
                 then python -m patchforge nix; or bring your own torch: comfyui-xpu.override { python = ...; }'';
}
