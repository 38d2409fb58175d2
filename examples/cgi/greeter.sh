#!/bin/bash
# A CGI script, which a plain HTTP request runs: a form, and a greeting for the name in it, without a WebSocket.
#
#     wsbridge --port 8080 --cgidir examples/cgi
#     (then open http://localhost:8080/greeter.sh)
#
# A CGI script prints headers, then an empty line, then the body. `Status:` sets the status. The body of a POST is on stdin, and
# has CONTENT_LENGTH bytes. The script escapes all input in its HTML.

# from_form TEXT: decode a form's value, with + for a space and %41 for A.
from_form() {
    local rest=${1//+/ } text='' character
    while [[ $rest =~ ^([^%]*)%([0-9A-Fa-f]{2})(.*)$ ]]; do
        # shellcheck disable=SC2059  # the pattern above guarantees two hexadecimal digits
        printf -v character "\x${BASH_REMATCH[2]}"
        text+=${BASH_REMATCH[1]}$character
        rest=${BASH_REMATCH[3]}
    done
    printf '%s' "$text$rest"
}

# to_html TEXT: escape TEXT. The replacements are quoted, because an unquoted & stands for the matched text.
to_html() {
    local text=${1//&/"&amp;"}
    text=${text//</"&lt;"}
    text=${text//>/"&gt;"}
    printf '%s' "${text//\"/"&quot;"}"
}

page() {
    printf 'Status: %s\r\nContent-Type: text/html; charset=utf-8\r\n\r\n' "$1"
    cat <<END
<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Greeter</title>
<style>input, button { font: inherit; padding: .3rem .7rem }</style>
<body style="font: 1.1rem/1.5 system-ui; max-width: 30rem; margin: 3rem auto; padding: 0 1rem">
<h1>$2</h1>
<form method="post">
  <label>Your name <input name="name" autofocus></label>
  <button>Greet me</button>
</form>
END
}

case $REQUEST_METHOD in
    GET | HEAD)
        page "200 OK" "Who are you?"
        ;;
    POST)
        if ! [[ $CONTENT_LENGTH =~ ^[0-9]{1,4}$ ]]; then
            page "413 Content Too Large" "That is too long a name."
            exit
        fi
        body=$(head -c "$CONTENT_LENGTH")
        page "200 OK" "Hello, $(to_html "$(from_form "${body#name=}")")!"
        ;;
    *)
        page "405 Method Not Allowed" "GET or POST, please."
        ;;
esac
