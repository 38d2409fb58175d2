#!/bin/bash
# A chat with a program: it asks for a name, thinks of a number, and answers each guess.
#
#     wsbridge --port 8080 --devconsole examples/chat.sh
#
# Each client has its own process, so plain variables hold its state: the name, the number and the count of guesses. The program
# needs no session store and no cookie, and clients cannot affect each other.

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
        # Only a few digits reach the arithmetic, because bash accepts more than numbers there, and would run the command
        # in a "guess" like x[$(reboot)].
        *[!0-9]* | '' | ????*)
            echo "A number from 1 to 100, please."
            continue
            ;;
    esac
    ((++guesses))
    # 10#, because a leading zero would make the number octal.
    if ((10#$guess < secret)); then
        echo "Higher."
    elif ((10#$guess > secret)); then
        echo "Lower."
    else
        echo "Yes, $secret! Guesses: $guesses."
        think
    fi
done
