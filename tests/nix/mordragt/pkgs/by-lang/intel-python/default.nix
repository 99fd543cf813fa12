final: prev: { ipex = final.callPackage ./ipex.nix { }; }
