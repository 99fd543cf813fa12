# The part of nixpkgs' `lib` that the generated expressions use, written anew for tests. PATCHFORGE_NIXPKGS_LIB names the
# real one, with which the same tests run.
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    genList
    hasAttr
    head
    isAttrs
    isFunction
    isList
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    replaceStrings
    stringLength
    substring
    tail
    ;

  lib = rec {
    inherit
      attrNames
      concatLists
      concatMap
      concatStringsSep
      elem
      filter
      foldl'
      head
      isAttrs
      isFunction
      isList
      isString
      length
      listToAttrs
      mapAttrs
      replaceStrings
      tail
      ;
    inherit (builtins) any all toJSON attrValues groupBy isInt isBool toString pathExists;
    types = import ./types.nix { inherit lib; };
    inherit (types) mkOptionType;
    inherit (import ./modules.nix { inherit lib; })
      evalModules
      isOption
      mkOption
      mkEnableOption
      mkPackageOption
      mkIf
      mkMerge
      mkRenamedOptionModule
      mkDefault
      mkForce
      mkOverride
      mkOptionDefault
      optionAttrSetToDocList
      literalExpression
      ;
    isDerivation = value: isAttrs value && value.type or null == "derivation";
    importJSON = path: builtins.fromJSON (builtins.readFile path);
    importTOML = path: builtins.fromTOML (builtins.readFile path);
    trivial.release = "26.11";
    fakeHash = "sha256-${concatStringsSep "" (genList (_: "A") 43)}=";
    id = x: x;
    last = list: elemAt list (length list - 1);
    init = list: genList (elemAt list) (length list - 1);
    optional = cond: value: if cond then [ value ] else [ ];
    optionals = cond: list: if cond then list else [ ];
    optionalString = cond: text: if cond then text else "";
    optionalAttrs = cond: attrs: if cond then attrs else { };
    flatten = x: if isList x then concatMap flatten x else [ x ];
    unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
    subtractLists = out: filter (x: !(elem x out));
    intersectLists = one: filter (x: elem x one);
    sort = builtins.sort;
    versionOlder = a: b: builtins.compareVersions b a == 1;
    versionAtLeast = a: b: !(versionOlder a b);
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix =
      suffix: text:
      let
        cut = stringLength text - stringLength suffix;
      in
      cut >= 0 && substring cut (-1) text == suffix;
    hasInfix = infix: text: length (builtins.split (escapeRegex infix) text) > 1;
    escapeRegex = replaceStrings (strings ".*+?()[]{}|^$\\") (map (c: "\\${c}") (strings ".*+?()[]{}|^$\\"));
    strings = text: genList (at: substring at 1 text) (stringLength text);
    removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    removeSuffix =
      suffix: text: if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    splitString = sep: text: filter isString (builtins.split (escapeRegex sep) (toString text));
    toLower = replaceStrings (strings "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (strings "abcdefghijklmnopqrstuvwxyz");
    toUpper = replaceStrings (strings "abcdefghijklmnopqrstuvwxyz") (strings "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    inherit substring;
    stringToCharacters = strings;
    concatStrings = concatStringsSep "";
    singleton = x: [ x ];
    # Refuses what could be read in two ways, as nixpkgs' own does.
    toInt = text: if match "0|[1-9][0-9]*" text == null then throw "toInt: Could not convert ${text} to int." else builtins.fromJSON text;
    escapeShellArg = text: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString text)}'";
    escapeShellArgs = list: concatStringsSep " " (map escapeShellArg list);
    concatMapStringsSep = sep: f: list: concatStringsSep sep (map f list);
    concatMapStrings = concatMapStringsSep "";
    concatLines = concatMapStrings (line: line + "\n");
    makeLibraryPath = concatMapStringsSep ":" (package: "${package}/lib");
    makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
    getLib = package: package.lib or package;
    hasAttrByPath = path: attrs: path == [ ] || (isAttrs attrs && hasAttr (head path) attrs && hasAttrByPath (tail path) attrs.${head path});
    getOutput = name: package: package.${name} or package;
    getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname}";
    getExe' = package: name: "${package}/bin/${name}";
    getName = package: package.pname or (builtins.parseDrvName package.name).name;
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    mapAttrs' = f: attrs: listToAttrs (map (name: f name attrs.${name}) (attrNames attrs));
    mapAttrsToList = f: attrs: map (name: f name attrs.${name}) (attrNames attrs);
    filterAttrs = keep: attrs: listToAttrs (
      concatMap (name: optional (keep name attrs.${name}) (nameValuePair name attrs.${name})) (attrNames attrs)
    );
    attrByPath = path: default: attrs: if path == [ ] then attrs
      else if hasAttr (head path) attrs then attrByPath (tail path) default attrs.${head path}
      else default;
    setAttrByPath = path: value: if path == [ ] then value else { ${head path} = setAttrByPath (tail path) value; };
    recursiveUpdate = a: b: a // mapAttrs (name: value: if isAttrs value && isAttrs (a.${name} or null) then recursiveUpdate a.${name} value else value) b;
    mergeAttrsList = foldl' (a: b: a // b) { };
    fix = f: let x = f x; in x;
    composeManyExtensions = list: final: prev: foldl' (seen: f: seen // f final (prev // seen)) { } list;
    makeOverridable = f: args: let
      result = f args;
      override = new: makeOverridable f (args // (if isFunction new then new args else new));
    in if isAttrs result then result // { inherit override; } else result;
    callPackageWith = scope: file: args: let
      f = if isFunction file then file else import file;
    in makeOverridable f (builtins.intersectAttrs (builtins.functionArgs f) scope // args);
    makeScope = newScope: f: let
      self = f self // { callPackage = newScope self; newScope = extra: newScope (self // extra); };
    in self;
    licenses = listToAttrs (map (name: nameValuePair name { shortName = name; free = name != "issl"; }) [
      "agpl3Only" "asl20" "bsd2" "bsd3" "gpl3Only" "gpl3Plus" "issl" "mit"
    ]);
    meta.getLicenseFromSpdxIdOr = id: default: { "MIT" = licenses.mit; "GPL-3.0-only" = licenses.gpl3Only; }.${id} or default;
    sourceTypes = { binaryNativeCode = "binaryNativeCode"; binaryBytecode = "binaryBytecode"; };
    platforms.linux = [ "x86_64-linux" ];
    cleanSourceWith = { src, filter, name }: builtins.path { inherit filter name; path = src; };
    inherit match;
  };
in
lib
