# Types of options: a description, a test, and how definitions are merged.
{ lib }:
let
  inherit (lib) all isAttrs isList isString;
  inherit (import ./modules.nix { inherit lib; }) discharge;
  type = name: description: check: { inherit name description check; merge = one; nested = null; };
  one = location: definitions: if lib.length definitions == 1 then lib.head definitions
    else if all (x: x == lib.head definitions) definitions then lib.head definitions
    else throw "The option `${lib.concatStringsSep "." location}' has conflicting definition values";
  describe = list: lib.concatMapStringsSep ", " (x: if isString x then ''"${x}"'' else toString x) list;
  # As nixpkgs words it: what could be misread is in parentheses (lib/types.nix, optionDescriptionPhrase).
  classes = {
    noun = [ "bool" "float" "int" "nonEmptyStr" "package" "path" "raw" "str" "strMatching" "unsignedInt16" ];
    composite = [ "attrsOf" "functionTo" "listOf" ];
    conjunction = [ "either" "enum" "nullOr" ];
  };
  phrase = allowed: t: if lib.any (class: lib.elem t.name classes.${class}) allowed then t.description else "(${t.description})";
  inner = phrase [ "noun" "composite" ];
in
rec {
  bool = type "bool" "boolean" builtins.isBool;
  int = type "int" "signed integer" builtins.isInt;
  ints = {
    unsigned = type "unsignedInt" "unsigned integer, meaning >=0" (x: builtins.isInt x && x >= 0);
    positive = type "positiveInt" "positive integer, meaning >0" (x: builtins.isInt x && x > 0);
    between = low: high: type "intBetween" "integer between ${toString low} and ${toString high} (both inclusive)" (x: builtins.isInt x && x >= low && x <= high);
  };
  port = type "unsignedInt16" "16 bit unsigned integer; between 0 and 65535 (both inclusive)" (x: builtins.isInt x && x >= 0 && x <= 65535);
  numbers.nonnegative = type "numberNonnegative" "nonnegative integer or floating point number, meaning >=0" (x: (builtins.isInt x || builtins.isFloat x) && x >= 0);
  str = type "str" "string" isString;
  nonEmptyStr = type "nonEmptyStr" "non-empty string" (x: isString x && x != "");
  strMatching = pattern: type "strMatching" "string matching the pattern ${pattern}" (x: isString x && builtins.match pattern x != null);
  path = type "path" "absolute path" (x: builtins.isPath x || lib.isDerivation x || (isString x && lib.hasPrefix "/" x));
  externalPath = type "path" "absolute path not in the Nix store" (x: isString x && lib.hasPrefix "/" x && builtins.match "${builtins.storeDir}/[0-9a-z]{32}-.*" x == null);
  package = type "package" "package" lib.isDerivation;
  raw = type "raw" "raw value" (_: true);
  enum = values: type "enum" (if lib.length values == 1 then ''value ${describe values} (singular enum)'' else "one of ${describe values}") (x: lib.elem x values);
  functionTo = t: (type "functionTo" "function that evaluates to a(n) ${t.description}" lib.isFunction) // {
    merge = location: definitions: argument: checked t location (map (f: f argument) definitions);
  };
  nullOr = t: t // { name = "nullOr"; description = "null or ${phrase [ "noun" "conjunction" ] t}"; check = x: x == null || t.check x;
    merge = location: definitions: if all (x: x == null) definitions then null else t.merge location (lib.filter (x: x != null) definitions); };
  either = a: b: (type "either" "${phrase [ "noun" "conjunction" ] a} or ${phrase [ "noun" "conjunction" "composite" ] b}" (x: a.check x || b.check x)) // {
    merge = location: definitions: if all a.check definitions then a.merge location definitions else if all b.check definitions then b.merge location definitions else one location definitions;
  };
  coercedTo = from: f: to: {
    name = "coercedTo"; nested = null;
    description = "${phrase [ "noun" ] to} or ${phrase [ "noun" ] from} convertible to it";
    check = x: (from.check x && to.check (f x)) || to.check x;
    merge = location: definitions: to.merge location (map (x: if from.check x then f x else x) definitions);
  };
  nonEmptyListOf = t: listOf t // { name = "nonEmptyListOf"; description = "non-empty (${(listOf t).description})"; check = x: isList x && x != [ ]; };
  addCheck = t: check: t // { check = x: t.check x && check x; };
  float = type "float" "floating point number" builtins.isFloat;
  # As nixpkgs' own, to which definitions come with their files.
  mkOptionType = { name, description ? name, check ? (_: true), merge }: {
    inherit name description check;
    nested = null;
    merge = location: definitions: merge location (map (value: { inherit value; file = "a file"; }) definitions);
  };
  oneOf = list: lib.foldl' either (lib.head list) (lib.tail list);
  listOf = t: { name = "listOf"; description = "list of ${inner t}"; nested = t; check = isList;
    merge = location: definitions: map (x: checked t (location ++ [ "*" ]) [ x ]) (lib.concatLists definitions); };
  attrsOf = t: { name = "attrsOf"; description = "attribute set of ${inner t}"; nested = t; check = isAttrs;
    merge = location: definitions: let
      names = lib.unique (lib.concatMap lib.attrNames definitions);
      of = name: lib.concatMap (d: lib.optional (d ? ${name}) d.${name}) definitions;
      defined = lib.filter (name: discharge (of name) != [ ]) names;
    in lib.genAttrs defined (name: checked t (location ++ [ name ]) (of name)); };
  lines = type "lines" "strings concatenated with \"\\n\"" isString // { merge = _: lib.concatStringsSep "\n"; };
  attrs = type "attrs" "attribute set" isAttrs // { merge = _: lib.mergeAttrsList; };
  submodule = module: { name = "submodule"; nested = null; check = x: isAttrs x || lib.isFunction x; inherit module;
    description = let form = if isAttrs module then module.freeformType or null else null; in
      if form == null then "submodule" else "open submodule of ${inner form}";
    merge = location: definitions: (lib.evalModules {
      prefix = location;
      specialArgs.name = lib.last location;
      modules = [ module ] ++ map (config: { inherit config; }) definitions;
    }).config; };

  # The values left after mkIf, mkMerge and priorities, tested and merged.
  checked = t: location: definitions: let
    values = discharge definitions;
    wrong = lib.filter (x: !(t.check x)) values;
  in if wrong != [ ] then throw "A definition for option `${lib.concatStringsSep "." location}' is not of type `${t.description}'. Value: ${shown (lib.head wrong)}"
     else t.merge location values;
  shown = x: if builtins.isPath x then toString x else if lib.isFunction x then "<function>" else if lib.isDerivation x then x.name else builtins.toJSON x;
}
