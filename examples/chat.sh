#!/bin/bash
# A chat with a program: it asks for a name, thinks of a number, and answers each guess.
#
#     wsbridge --port 8080 --devconsole examples/chat.sh
#
# Every visitor has a process of their own, so what the program remembers is in plain variables: who is there, the number, the
# guesses so far. No session store, no cookie; and what one visitor does cannot disturb another.

echo "Good day. What is your name?"
IFS= read -r name || exit 0
name=${name:-stranger}

think() {
    secret=$((RANDOM % 100 + 1)) guesses=0
    echo "$name, I am thinking of a number from 1 to 100. Your guess? (\"bye\" ends this.)"
}

think
while IFS= read -r guess; do
    case $guess in
        bye)
            echo "Good-bye, $name."
            exit 0
            ;;
        # Only digits, and few of them, get as far as the arithmetic: bash would take more than numbers for one,
        # and run the command in a "guess" like x[$(reboot)].
        *[!0-9]* | '' | ????*)
            echo "A number from 1 to 100, please."
            continue
            ;;
    esac
    ((++guesses))
    # 10# because a leading zero would make the number octal.
    if ((10#$guess < secret)); then
        echo "Higher."
    elif ((10#$guess > secret)); then
        echo "Lower."
    else
        echo "Yes, $secret! Guesses: $guesses."
        think
    fi
done
