# Modules: imports, options, mkIf, mkMerge, priorities, unknown options. Enough for the project's own modules.
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

  known = [ "imports" "options" "config" "_file" "key" "meta" "disabledModules" ];
  load = args: module: let
    value = if isFunction module then module (builtins.intersectAttrs (builtins.functionArgs module) args)
      else if isAttrs module then module
      else load args (import module) // { key = toString module; };
    structured = value ? options || value ? config;
  in if !structured then { imports = value.imports or [ ]; config = removeAttrs value known; options = { }; key = value.key or null; }
     else { imports = value.imports or [ ]; config = value.config or { }; options = value.options or { }; key = value.key or null; };
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

  configOf = location: options: definitions: let
    flat = concatMap pushed definitions;
    unknown = lib.filter (name: !(options ? ${name})) (lib.unique (concatMap attrNames flat));
  in if unknown != [ ] then throw "The option `${shown (location ++ [ (lib.head unknown) ])}' does not exist."
     else mapAttrs (name: option: let
       here = location ++ [ name ];
       given = concatMap (x: optional (x ? ${name}) x.${name}) flat;
     in if isOption option then valueOf here option given else configOf here option given) options;

  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }: let
    args = specialArgs // { inherit lib config options; };
    found = collect args modules;
    options = mergedOptions prefix (map (x: x.options) found);
    config = configOf prefix options (map (x: x.config) found);
  in { inherit config options; };

  literalExpression = text: { _type = "literalExpression"; inherit text; };
  documented = location: name: option:
    if isOption option then [
      ({
        name = shown (location ++ [ name ]);
        description = option.description or "";
        type = option.type.description;
        readOnly = option.readOnly or false;
        internal = false;
        visible = option.visible or true;
      }
      // lib.optionalAttrs (option ? defaultText || option ? default) { default = rendered (option.defaultText or option.default); }
      // lib.optionalAttrs (option ? example) { example = rendered option.example; })
    ] ++ nested (location ++ [ name ]) option.type
    else concatMap (inner: documented (location ++ [ name ]) inner option.${inner}) (attrNames option);
  nested = location: t:
    if t.name == "attrsOf" then nested (location ++ [ "<name>" ]) t.nested
    else if t.name == "listOf" then nested (location ++ [ "*" ]) t.nested
    else if t ? module then let inner = evalModules { modules = [ t.module ]; specialArgs.name = "‹name›"; }; in
      concatMap (name: documented location name inner.options.${name}) (attrNames inner.options)
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
  inherit evalModules discharge mkIf mkMerge mkOverride mkOption;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkOptionDefault = mkOverride 1500;
  mkEnableOption = what: mkOption { type = lib.types.bool; default = false; example = true; description = "Whether to enable ${what}."; };
  mkPackageOption = pkgs: name: _: mkOption { type = lib.types.package; default = pkgs.${name}; defaultText = literalExpression "pkgs.${name}"; description = "The ${name} package to use."; };
  inherit literalExpression;
  optionAttrSetToDocList = options: concatMap (name: documented [ ] name options.${name}) (attrNames options);
}
