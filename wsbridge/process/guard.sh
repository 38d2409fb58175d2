# Ends the programs of a server that was killed before it could end them itself.
#
# stdin is a pipe from the server: "+ SESSION" when a program begins, "- SESSION" when none of its processes is left. The
# arguments are the ladder: SECONDS SIGNAL, twice or more. When the pipe closes, the server has exited, and the guard
# terminates the remaining programs by the ladder. A server that shut down normally leaves none. The processes of a
# program are those of its session, in any process group; a signal goes to each of the groups.
trap '' HUP INT TERM

# Set `groups` to the process groups of the sessions in `left`, and `left` to the sessions that still have a process.
find_groups() {
  groups= still=
  for stat in /proc/[0-9]*/stat; do
    fields=
    # A name may contain line feeds, blanks and parentheses: the needed fields follow the last parenthesis.
    while read -r line; do fields=$line; done 2>/dev/null <"$stat"
    set -- ${fields##*) }
    [ $# -ge 4 ] || continue
    case $1 in Z | X) continue ;; esac
    case " $left " in *" $4 "*) ;; *) continue ;; esac
    case " $still " in *" $4 "*) ;; *) still="$still $4" ;; esac
    case " $groups " in *" $3 "*) ;; *) groups="$groups $3" ;; esac
  done
  left=$still
}

while read -r sign session; do
  case $sign in
    +) eval "session_$session=1" ;;
    -) unset "session_$session" ;;
  esac
done
left=$(set | sed -n 's/^session_\([0-9]*\)=.*/\1/p' | tr '\n' ' ')
while [ -n "$left" ] && [ $# -ge 2 ]; do
  sleep "$1"
  find_groups
  for group in $groups; do
    kill -s "$2" -- "-$group" 2>/dev/null
  done
  shift 2
done
# End the processes that began while KILL was being sent.
for again in 1 2 3 4 5; do
  [ -n "$left" ] || break
  sleep 0.1
  find_groups
  for group in $groups; do
    kill -s KILL -- "-$group" 2>/dev/null
  done
done
