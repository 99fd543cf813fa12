#!@shell@
# compare, history, report and so on are about files; everything else is a run of the release that belongs to this.
case "${1-}" in
  compare | history | report | record | costs | submit | -h | --help) exec @program@ "$@" ;;
  run) shift ;;
esac
exec @program@ @version@ --from @source@ --no-venv --python @python@ "$@"
