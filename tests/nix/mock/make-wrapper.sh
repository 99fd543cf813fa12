# As pkgs/build-support/setup-hooks/make-wrapper.sh, of it what is used.
wrapProgram() { "$python" "$tool" wrap "$shell" "$@"; }
