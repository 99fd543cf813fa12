{
  description = "A pretended nixpkgs for tests";
  outputs = { self }: {
    lib = import ./lib;
    legacyPackages.x86_64-linux = import ./. { };
  };
}
