# Modules: imports, options, mkIf, mkMerge, priorities, free forms, renamed and unknown options. Enough for the project's
# own modules; tests run the same configurations with the real ones where they are at hand.
{ lib }:
let
  inherit (lib) concatMap isAttrs isFunction mapAttrs optional attrNames;
  isType = name: x: isAttrs x && x._type or null == name;
  default = 100;

  # mkIf, mkMerge and mkOverride move inwards, so that names of attributes never depend on conditions.
  pushed = x:
    if isType "merge" x then concatMap pushed x.contents
    else if isType "if" x then map (mapAttrs (_: v: mkIf x.condition v)) (pushed x.content)
    else if isType "override" x then map (mapAttrs (_: v: mkOverride x.priority v)) (pushed x.content)
    else [ x ];
  ranked = x:
    if isType "merge" x then concatMap ranked x.contents
    else if isType "if" x then if x.condition then ranked x.content else [ ]
    else if isType "override" x then map (y: y // { inherit (x) priority; }) (ranked x.content)
    else [ { value = x; priority = default; } ];
  discharge = definitions: let
    all = concatMap ranked definitions;
    best = lib.foldl' (a: b: if b.priority < a then b.priority else a) 10000 all;
  in map (x: x.value) (lib.filter (x: x.priority == best) all);

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOption = attrs: attrs // { _type = "option"; };
  isOption = isType "option";

  known = [ "imports" "options" "config" "freeformType" "_file" "key" "meta" "disabledModules" "_module" ];
  load = args: module: let
    value = if isFunction module then module (builtins.intersectAttrs (builtins.functionArgs module) args)
      else if isAttrs module then module
      else load args (import module) // { key = toString module; };
    structured = value ? options || value ? config;
    common = { imports = value.imports or [ ]; key = value.key or null; freeformType = value.freeformType or null; };
  in if !structured then common // { config = removeAttrs value known; options = { }; }
     else common // { config = value.config or { }; options = value.options or { }; };
  collect = args: modules: let
    go = seen: list: lib.foldl' (state: module: let
      loaded = load args module;
      here = state.seen ++ optional (loaded.key != null) loaded.key;
      deeper = go here loaded.imports;
    in if loaded.key != null && lib.elem loaded.key state.seen then state
       else { seen = deeper.seen; found = state.found ++ [ loaded ] ++ deeper.found; }) { inherit seen; found = [ ]; } list;
  in (go [ ] modules).found;

  mergedOptions = location: list: let
    names = lib.unique (concatMap attrNames list);
  in lib.genAttrs names (name: let
    found = concatMap (x: optional (x ? ${name}) x.${name}) list;
    options = lib.filter isOption found;
  in if options == [ ] then mergedOptions (location ++ [ name ]) found
     else if lib.length found > 1 then throw "The option `${shown (location ++ [ name ])}' is declared twice"
     else lib.head options);
  shown = lib.concatStringsSep ".";

  valueOf = location: option: definitions: let
    all = definitions ++ optional (option ? default) (mkOverride 1500 option.default);
    values = discharge all;
  in if values == [ ] then throw "The option `${shown location}' was accessed but has no value defined. Try setting the option."
     else if option.readOnly or false && lib.length definitions > 1 then throw "The option `${shown location}' is read-only, but it's set multiple times."
     else (option.apply or (x: x)) (if option ? type then lib.types.checked option.type location all else lib.head values);

  # Options as modules see them: what they were declared with, what was defined, and the value.
  treeOf = location: options: definitions: let
    flat = concatMap pushed definitions;
    given = name: concatMap (x: optional (x ? ${name}) x.${name}) flat;
  in mapAttrs (name: option: let here = location ++ [ name ]; in
    if !isOption option then treeOf here option (given name)
    else option // {
      loc = here;
      files = [ "the configuration" ];
      definitions = discharge (given name);
      isDefined = discharge (given name) != [ ];
      value = valueOf here option (given name);
    }) options;
  valuesOf = mapAttrs (_: option: if isOption option then option.value else valuesOf option);
  strangers = location: options: definitions: let
    flat = concatMap pushed definitions;
    names = lib.filter (name: !(options ? ${name})) (lib.unique (concatMap attrNames flat));
    deeper = concatMap (name: if isOption options.${name} then [ ] else
      strangers (location ++ [ name ]) options.${name} (concatMap (x: optional (x ? ${name}) x.${name}) flat)) (attrNames options);
  in map (name: location ++ [ name ]) names ++ deeper;

  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }: let
    args = specialArgs // { inherit lib config options; };
    found = collect args modules;
    declared = mergedOptions prefix (map (x: x.options) found);
    definitions = map (x: x.config) found;
    options = treeOf prefix declared definitions;
    forms = lib.filter (x: x != null) (map (x: x.freeformType) found);
    unknown = strangers [ ] declared definitions;
    free = map (x: lib.filterAttrs (name: _: !(declared ? ${name})) x) (concatMap pushed definitions);
    checked = if unknown == [ ] then { }
      else if forms != [ ] then lib.types.checked (lib.head forms) prefix free
      else throw "The option `${shown (prefix ++ lib.head unknown)}' does not exist.";
    # Values stay lazy: a rename is defined by what others define.
    config = valuesOf options // (if forms != [ ] then checked else { });
  in { inherit options; config = if forms == [ ] then builtins.seq checked config else config; inherit (args) lib; };

  attrByPath = path: otherwise: x: if path == [ ] then x else if x ? ${lib.head path} then attrByPath (lib.tail path) otherwise x.${lib.head path} else otherwise;
  setAttrByPath = path: value: if path == [ ] then value else { ${lib.head path} = setAttrByPath (lib.tail path) value; };
  mkRenamedOptionModule = from: to: { config, options, ... }: let
    old = attrByPath from (throw "no option ${shown from}") options;
  in {
    options = setAttrByPath from (mkOption {
      visible = false;
      description = "Alias of {option}`${shown to}`.";
      apply = _: attrByPath to (throw "no option ${shown to}") config;
    });
    config = mkMerge [
      { warnings = optional old.isDefined "The option `${shown from}' defined in ${shown old.files} has been renamed to `${shown to}'."; }
      (setAttrByPath to (mkIf old.isDefined (mkMerge old.definitions)))
    ];
  };

  literalExpression = text: if !(lib.isString text) then throw "literalExpression expects a string." else { _type = "literalExpression"; inherit text; };
  documented = location: name: option:
    if isOption option then [
      ({
        name = shown (location ++ [ name ]);
        description = option.description or "";
        type = option.type.description or "unspecified value";
        readOnly = option.readOnly or false;
        internal = option.internal or false;
        visible = let v = option.visible or true; in if builtins.isBool v then v else v == "shallow";
      }
      // lib.optionalAttrs (option ? defaultText || option ? default) { default = rendered (option.defaultText or option.default); }
      // lib.optionalAttrs (option ? example) { example = rendered option.example; })
    ] ++ lib.optionals (option.visible or true == true) (nested (location ++ [ name ]) option.type)
    else concatMap (inner: documented (location ++ [ name ]) inner option.${inner}) (attrNames option);
  nested = location: t:
    if t.name == "attrsOf" then nested (location ++ [ "<name>" ]) t.nested
    else if t.name == "listOf" then nested (location ++ [ "*" ]) t.nested
    else if t ? module then let
      form = (load { inherit lib; name = ""; } t.module).freeformType;
      inner = evalModules { modules = [ t.module ]; specialArgs.name = "‹name›"; };
    in lib.optionals (form != null) (nested location form)
      ++ concatMap (name: documented location name inner.options.${name}) (attrNames inner.options)
    else [ ];
  rendered = x: if isType "literalExpression" x then x else { _type = "literalExpression"; text = pretty x; };
  pretty = prettyAt "";
  prettyAt = indent: x: let
    deeper = prettyAt "${indent}  ";
    block = begin: items: end: "${begin}\n${lib.concatMapStrings (item: "${indent}  ${item}\n") items}${indent}${end}";
  in
    if x == null then "null"
    else if lib.isList x then if x == [ ] then "[ ]" else block "[" (map deeper x) "]"
    else if isAttrs x then if x == { } then "{ }" else block "{" (lib.mapAttrsToList (n: v: "${n} = ${deeper v};") x) "}"
    else builtins.toJSON x;
in
{
  inherit attrByPath evalModules discharge isOption mkIf mkMerge mkOverride mkOption mkRenamedOptionModule setAttrByPath;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkOptionDefault = mkOverride 1500;
  mkEnableOption = what: mkOption { type = lib.types.bool; default = false; example = true; description = "Whether to enable ${what}."; };
  mkPackageOption = pkgs: name: { default ? name, nullable ? false, example ? null, extraDescription ? "", pkgsText ? "pkgs" }: let
    path = if lib.isList default then default else [ default ];
  in mkOption ({
    type = if nullable then lib.types.nullOr lib.types.package else lib.types.package;
    default = attrByPath path (throw "${shown path} cannot be found in ${pkgsText}") pkgs;
    defaultText = literalExpression (shown ([ pkgsText ] ++ path));
    description = "The ${name} package to use." + (if extraDescription == "" then "" else " ") + extraDescription;
  } // lib.optionalAttrs (example != null) { example = literalExpression (if lib.isList example then shown ([ pkgsText ] ++ example) else example); });
  inherit literalExpression;
  optionAttrSetToDocList = options: concatMap (name: documented [ ] name options.${name}) (attrNames options);
}
