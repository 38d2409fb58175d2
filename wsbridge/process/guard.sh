# Ends the process groups of a bridge that was killed before it could end them itself.
#
# stdin is a pipe from the bridge: "+ GROUP" when a group begins, "- GROUP" when it has ended. The arguments are the
# ladder: SECONDS SIGNAL, twice or more. When the pipe closes the bridge is gone, and what is left is led down the ladder;
# a bridge that ended in good order has left nothing.
trap '' HUP INT TERM
while read -r sign group; do
  case $sign in
    +) eval "group_$group=1" ;;
    -) unset "group_$group" ;;
  esac
done
left=$(set | sed -n 's/^group_\([0-9]*\)=.*/\1/p')
while [ -n "$left" ] && [ $# -ge 2 ]; do
  sleep "$1"
  remaining=
  for group in $left; do
    kill -s "$2" -- "-$group" 2>/dev/null && remaining="$remaining $group"
  done
  left=$remaining
  shift 2
done
