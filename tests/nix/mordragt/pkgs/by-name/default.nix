# What MordragT/nixos is to us, in miniature: folders of overlays, and the packages that packages/legacy.nix takes.
final: prev: {
  intel-mkl = final.callPackage ./intel-mkl { };
  intel-tbb = final.callPackage ./intel-tbb { };
}
