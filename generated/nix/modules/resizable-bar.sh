# resizable-bar.sh FOLDER: for each Intel GPU in FOLDER (/sys/bus/pci/devices) that has memory of its own, how much of it
# is reached at once. Status 0 in any case: it is advice.
for device in "$1"/*; do
  [ "$(cat "$device/vendor" 2> /dev/null)" = 0x8086 ] || continue
  case $(cat "$device/class" 2> /dev/null) in 0x0300* | 0x0380*) ;; *) continue ;; esac
  largest=0
  while read -r first last _; do
    size=$((last - first + 1))
    [ "$first" = 0x0000000000000000 ] || [ "$size" -le "$largest" ] || largest=$size
  done < "$device/resource"
  # One that can grow says which sizes it can have.
  ls "$device"/resource*_resize > /dev/null 2>&1 || continue
  name=${device##*/}
  if [ "$largest" -le 268435456 ]; then
    echo "<4>$name: only $((largest / 1048576)) MiB of the card's memory can be reached at once. Switch on Resizable BAR (and Above 4G decoding) in the firmware's setup."
  else
    echo "$name: $((largest / 1048576)) MiB of the card's memory can be reached at once."
  fi
done
