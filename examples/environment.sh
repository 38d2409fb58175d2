#!/bin/bash
# Prints the parameters of the request's URL, then the whole environment.
#
#     wsbridge --port 8080 --devconsole examples/environment.sh
#     (then connect to ws://localhost:8080/some/path?name=Ada+Lovelace&city=K%C3%B6ln)
#
# A program gets its request in the variables of CGI: QUERY_STRING has the raw text after the question mark, PATH_INFO the path
# and HTTP_… the headers. From the server's own environment it gets only PATH and LD_LIBRARY_PATH; `--passenv HOME,LANG,PATH`
# selects others. Without LANG, bash counts bytes.

# decode TEXT: print TEXT with + as a space and %41 as A.
decode() {
    local rest=${1//+/ } text='' character
    while [[ $rest =~ ^([^%]*)%([0-9A-Fa-f]{2})(.*)$ ]]; do
        # shellcheck disable=SC2059  # the pattern above guarantees two hexadecimal digits
        printf -v character "\x${BASH_REMATCH[2]}"
        text+=${BASH_REMATCH[1]}$character
        rest=${BASH_REMATCH[3]}
    done
    printf '%s' "$text$rest"
}

IFS='&' read -ra parameters <<<"$QUERY_STRING"
for parameter in "${parameters[@]}"; do
    [[ $parameter == *=* ]] || parameter+="="
    printf 'parameter %s is "%s"\n' "$(decode "${parameter%%=*}")" "$(decode "${parameter#*=}")"
done

env | sort
