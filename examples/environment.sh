#!/bin/bash
# Tells what the program knows about the request: the parameters of its URL, then the whole environment.
#
#     wsbridge --port 8080 --devconsole examples/environment.sh
#     (then connect to ws://localhost:8080/some/path?name=Ada+Lovelace&city=K%C3%B6ln)
#
# A program is told about its request as a CGI script is: QUERY_STRING is what stands behind the question mark, as the
# browser sent it; PATH_INFO the path; HTTP_… the request's headers. Of the server's own environment only PATH and
# LD_LIBRARY_PATH come through; `--passenv HOME,LANG,PATH` names others. LANG is not among them: bash counts bytes here.

# decode TEXT: prints it with + as a space and %41 as A.
decode() {
    local rest=${1//+/ } text='' character
    while [[ $rest =~ ^([^%]*)%([0-9A-Fa-f]{2})(.*)$ ]]; do
        # shellcheck disable=SC2059  # two hexadecimal digits, as the pattern above has made sure
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
