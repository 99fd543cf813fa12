# Words of a command line as systemd reads them: quoted, without its specifiers and variables.
{ lib }:
let
  word = text: builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON (toString text));
in
lib.concatMapStringsSep " " word
