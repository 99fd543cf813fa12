# As nixpkgs' lib.maintainers has them; whoever takes these packages over puts other names here.
[ { name = "The patchforge contributors"; } ]
