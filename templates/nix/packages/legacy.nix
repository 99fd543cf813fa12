# Intel's old stack as MordragT/nixos packages it. IPEX is archived since March 2026; nothing of ours needs these.
{
  lib,
  pkgs,
  mordragt,
}:
let
  folders = [
    "by-attr"
    "by-lang"
    "by-name"
    "by-scope"
    "overrides"
    "lib"
  ];
  given = mordragt != null && builtins.pathExists (mordragt + "/pkgs/by-name");
  extended = pkgs.extend (
    lib.composeManyExtensions (map (folder: import (mordragt + "/pkgs/${folder}")) folders)
  );
  legacy =
    name: package:
    if given then
      package
    else
      throw ''
        ${name} comes from MordragT/nixos, which is not at hand
          expected: the flake's input `mordragt`, or mordragt = <source> beside pkgs
          found: ${if mordragt == null then "nothing" else "a source without pkgs/by-name"}
          to do: do not blank inputs.patchforge.inputs.mordragt; for new work use python-xpu, which needs none of this'';
in
{
  # A scope there: its compiler, with the other parts as attributes.
  intel-dpcpp = legacy "intel-dpcpp" (extended.intel-dpcpp // extended.intel-dpcpp.clang);
  intel-mkl = legacy "intel-mkl" extended.intel-mkl;
  intel-tbb = legacy "intel-tbb" extended.intel-tbb;
  python-ipex = legacy "python-ipex" (extended.intel-python.withPackages (ps: [ ps.ipex ]));
}
