# The builder: nixpkgs' phases and hooks, in short (pkgs/stdenv/generic/setup.sh).
set -eu
export PATH=$path HOME=/homeless-shelter
hooks_after_fixup=
for input in $nativeBuildInputs $nativeInstallCheckInputs; do
  if [ -d "$input/bin" ]; then PATH=$input/bin:$PATH; fi
done

runHook() { if [ "$(type -t "$1")" = function ]; then "$1"; elif [ -n "${!1-}" ]; then eval "${!1}"; fi; }
# `$x` is a list here, as without structured attributes.
appendToVar() { local -n given=$1; given="${given-} ${*:2}"; }

substitute() { cp "$1" "$2"; chmod +w "$2"; local file=$2; shift 2; substituteInPlace "$file" "$@"; }
substituteInPlace() { "$python" "$tool" substitute "$@"; }

# Hooks are there when their package is among the inputs, as in nixpkgs.
for input in $nativeBuildInputs; do
  if [ -f "$input/nix-support/setup-hook" ]; then . "$input/nix-support/setup-hook"; fi
done

phase() {
  local name=$1 usual=$2 hook=${1%Phase}
  echo "phase: $name"
  if [ -n "${!name-}" ]; then eval "${!name}"; else runHook "pre${hook^}"; $usual; runHook "post${hook^}"; fi
}
unpack() {
  if [ -d "$src" ]; then cp -r "$src" source; chmod -R u+w source; cd source; else mkdir source; cd source; fi
}
apply() { for one in $patches; do echo "applying patch $one"; patch ${patchFlags:--p1} < "$one"; done; }
fix() {
  [ -d "$out" ] || return 0
  if [ -d "$out/bin" ]; then
    for file in "$out"/bin/*; do if [ -f "$file" ]; then sed -i "1s|^#! */usr/bin/env |#!/usr/bin/env |" "$file"; fi; done
  fi
  [ -n "${dontStrip-}" ] || "$python" "$tool" strip "$out"
  [ -n "${dontPatchELF-}" ] || "$python" "$tool" shrink "$out"
  for each in $hooks_after_fixup; do $each; done
}
none() { :; }

if [ -n "${buildCommand-}" ]; then mkdir -p work; cd work; eval "$buildCommand"; exit 0; fi
mkdir -p work; cd work
[ -n "${dontUnpack-}" ] || phase unpackPhase unpack
phase patchPhase apply
[ -n "${dontConfigure-}" ] || phase configurePhase none
[ -n "${dontBuild-}" ] || phase buildPhase none
phase installPhase none
phase fixupPhase fix
[ -z "${doInstallCheck-}" ] || phase installCheckPhase none
