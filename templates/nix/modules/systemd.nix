# Text as systemd reads it in a unit: quoted, and without its specifiers; on a command line without variables too.
{ lib }:
let
  escaped = builtins.replaceStrings [ "%" ] [ "%%" ];
  quoted = text: escaped (builtins.toJSON (toString text));
in
{
  inherit escaped quoted;
  commandLine = lib.concatMapStringsSep " " (word: builtins.replaceStrings [ "$" ] [ "$$" ] (quoted word));
}
