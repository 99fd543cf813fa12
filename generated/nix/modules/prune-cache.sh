# prune-cache FOLDER BYTES: removes the oldest files until the rest fits.
total=0
find "$1" -type f -printf '%T@ %s %p\n' | sort -rn | while read -r _ size file; do
  total=$((total + size))
  [ "$total" -le "$2" ] || rm -f -- "$file"
done
