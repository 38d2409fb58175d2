# Ends the programs of a server that was killed before it could end them itself.
#
# stdin is a pipe from the server:
#
#   = LADDER SECONDS SIGNAL SECONDS SIGNAL ...   before the first program with this ladder begins
#   + SESSION LADDER                             when a program begins
#   - SESSION                                    when none of its processes is left
#
# When the pipe closes, the server has exited, and the guard terminates each remaining program by its ladder. A server that
# shut down normally leaves none. The processes of a program are those of its session, in any process group; a signal goes
# to each of the groups.
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

# Terminate the sessions in `left` by a ladder: SECONDS SIGNAL, twice or more.
terminate() {
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
}

while read -r sign number words; do
  case $sign in
    =) eval "ladder_$number=\$words" ;;
    +) eval "session_$number=\$words" ;;
    -) unset "session_$number" ;;
  esac
done
# A line for each session: the session, and its ladder. Some shells write the value in quotes.
sessions=$(set | sed -n "s/^session_\([0-9]*\)='\{0,1\}\([0-9]*\)'\{0,1\}\$/\1 \2/p")
for ladder in $(echo "$sessions" | sed 's/.* //' | sort -u); do
  left=$(echo "$sessions" | sed -n "s/ $ladder\$//p" | tr '\n' ' ')
  eval "terminate \$ladder_$ladder" &
done
wait
