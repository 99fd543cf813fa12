# As pkgs/build-support/setup-hooks/auto-patchelf.sh: what it finds, where it looks, and what it refuses.
searched=
for input in ${buildInputs-} ${propagatedBuildInputs-}; do searched="$searched $input/lib"; done

addAutoPatchelfSearchPath() {
  local folder
  for folder in "$@"; do
    searched="$searched $(find "$folder" \( -name '*.so' -o -name '*.so.*' \) -printf '%h\n' | sort -u | tr '\n' ' ')"
  done
}

autoPatchelfPostFixup() {
  if [ -n "${dontAutoPatchelf-}" ]; then return; fi
  if [ "${autoPatchelfIgnoreMissingDeps-}" = 1 ]; then
    echo "autoPatchelf: setting 'autoPatchelfIgnoreMissingDeps = true;' is deprecated; here it is refused" >&2
    exit 1
  fi
  "$python" "$tool" autopatchelf "$out" "$searched" "${autoPatchelfIgnoreMissingDeps-}" "${appendRunpaths-}" "${patchelfFlags-}"
}
hooks_after_fixup="$hooks_after_fixup autoPatchelfPostFixup"
