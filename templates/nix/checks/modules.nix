# What is wrong with the modules: good configurations that an assertion of ours refuses, and bad ones that none refuses with
# the advice that it should give.
{
  lib,
  # configurations.nix
  cases,
  # From a configuration to `config`.
  evaluate,
}:
let
  failed =
    configuration:
    map (each: each.message) (
      lib.filter (each: lib.hasPrefix "services." each.message && !each.assertion) (evaluate configuration).assertions
    );
  refused = lib.mapAttrsToList (name: configuration: map (message: "${name}: ${message}") (failed configuration)) cases.good;
  accepted = lib.mapAttrsToList (
    name: case:
    let
      found = failed case.config;
    in
    lib.optional (!(lib.any (lib.hasInfix case.advice) found)) "${name}: expected \"${case.advice}\", found ${
      if found == [ ] then "nothing" else lib.concatStringsSep "; " found
    }"
  ) cases.bad;
in
lib.concatLists (refused ++ accepted)
