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
  # As nixpkgs words it: what could be misread is in parentheses.
  plain = [ "attrsOf" "listOf" "path" "strMatching" ];
  inner = t: if t.name == "submodule" || (lib.hasInfix " " t.description && !(lib.elem t.name plain)) then "(${t.description})" else t.description;
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
  package = type "package" "package" lib.isDerivation;
  raw = type "raw" "raw value" (_: true);
  enum = values: type "enum" (if lib.length values == 1 then ''value ${describe values} (singular enum)'' else "one of ${describe values}") (x: lib.elem x values);
  functionTo = t: (type "functionTo" "function that evaluates to a(n) ${t.description}" lib.isFunction);
  nullOr = t: t // { name = "nullOr"; description = "null or ${if t.name == "enum" then t.description else inner t}"; check = x: x == null || t.check x;
    merge = location: definitions: if all (x: x == null) definitions then null else t.merge location (lib.filter (x: x != null) definitions); };
  either = a: b: type "either" "${a.description} or ${b.description}" (x: a.check x || b.check x);
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
  submodule = module: { name = "submodule"; description = "submodule"; nested = null; check = x: isAttrs x || lib.isFunction x; inherit module;
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
  shown = x: if lib.isFunction x then "<function>" else if lib.isDerivation x then x.name else builtins.toJSON x;
}
