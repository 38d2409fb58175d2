# shellcheck shell=sh disable=SC2154,SC2016,SC2164
# The virtual environment and Debian packages. The other scripts source this file, with `root` set to this clone.
#
#   need_packages [EXTRA]     install wsbridge, from this clone, and the packages of its extra (`test`, `lint`) into .venv
#   make_venv FOLDER          create a virtual environment with pip, even if Debian's python3 has neither ensurepip nor pip
#   install_debian PACKAGE…   install Debian packages without starting their services
#   apt_command PACKAGE…      print the command with which an administrator installs them
#   is_help WORD…             succeed if the command line asks for help, before any installation
#
# Set PYTHON to choose the Python of the virtual environment. The messages go to stderr.

venv=$root/.venv
# The sources of .venv. It contains "unfinished" during the installation, and afterwards only if this was interrupted.
stamp=$venv/made-from

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Run a command as root, with sudo if necessary.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

need_packages() {
    if has_packages "$@"; then return; fi
    # Simultaneous starts take turns. The lock is on the clone's folder, and ends with the process that holds it.
    (
        flock 9
        if ! has_packages "$@"; then install_packages "$@"; fi
    ) 9<"$root"
}

has_packages() {
    [ -x "$venv/bin/python" ] && grep -qxF "$(made_from "${1:-}")" "$stamp" 2>/dev/null
}

# The line of the stamp for an extra.
made_from() {
    echo "$(place) made from $(cat "$root/pyproject.toml" "$root/setup.py" | cksum) ${1:+with $1}"
}

# An environment is valid for one folder and one Python. After a move, or an upgrade of Debian's python3, it is created again.
place() {
    echo "$venv, $(readlink -f "$venv/bin/python")"
}

install_packages() {
    cd "$root"
    what=.${1:+"[$1]"}
    if ! can_be_updated; then
        say "wsbridge: creating the virtual environment .venv (once; this takes a minute)"
        rm -rf "$venv"
        mkdir "$venv"
        echo unfinished >"$stamp"
        make_venv "$venv"
    fi
    still_true=$(grep -F "$(made_from)" "$stamp" 2>/dev/null || true)
    echo unfinished >"$stamp"
    say "wsbridge: installing the Python packages of $what into .venv ($(download_size "${1:-}") to download, unless pip has cached them)"
    "$venv/bin/python" -m pip install --progress-bar off --disable-pip-version-check --editable "$what" >&2
    ln -sf bin/wsbridge "$venv/websocketd"
    printf '%s\n' "$(made_from)" "$(made_from "${1:-}")" "$still_true" >"$stamp"
}

# Measured on x86-64 with Python 3.11; the size differs a little on other machines.
download_size() {
    case $1 in test) echo '8 MB' ;; lint) echo '32 MB' ;; *) echo '5 MB' ;; esac
}

# A complete environment for this place, or one that the user created, is kept, and its packages are updated.
can_be_updated() {
    if [ -e "$stamp" ]; then
        case $(cat "$stamp") in "$(place) "*) ;; *) return 1 ;; esac
    fi
    "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

make_venv() {
    find_python venv >/dev/null || fail "wsbridge needs Python 3.11 or newer${PYTHON:+, but PYTHON=$PYTHON is not}. On Debian, run this as root:
$(apt_command python3)"
    if python=$(find_python ensurepip); then
        "$python" -m venv "$1"
    elif python=$(find_python pip); then
        "$python" -m venv --without-pip "$1"
        "$python" -m pip --python "$1/bin/python" install --quiet pip >&2
    elif command -v virtualenv >/dev/null; then
        virtualenv --quiet --python "$(find_python venv)" "$1" >&2
    elif install_debian python3-venv && python=$(find_python ensurepip); then
        "$python" -m venv "$1"
    else
        fail "wsbridge needs pip for its virtual environment. Run this as root, then try again:
$(apt_command python3-venv)"
    fi
}

# Print the first Python, version 3.11 or newer, that has a module.
find_python() {
    for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c "import sys, $1; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

apt_command() {
    echo "apt-get update && apt-get install -y --no-install-recommends $*"
}

is_help() {
    for word; do
        case $word in -h | -help | --help) return ;; esac
    done
    return 1
}

install_debian() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || return 1
    say "wsbridge: installing Debian packages without starting their services: $*"
    [ "$(id -u)" = 0 ] || say "wsbridge: sudo may ask for your password"
    # Packages ask policy-rc.d before they start a service, with and without systemd; 101 forbids it. This one forbids it while
    # this script runs.
    as_root sh -eu -c '
        policy=/usr/sbin/policy-rc.d
        restore() { rm -f "$policy"; if [ -e "$policy.kept" ]; then mv "$policy.kept" "$policy"; fi; }
        trap restore EXIT
        trap "exit 130" HUP INT TERM
        if [ -e "$policy" ] && ! [ -e "$policy.kept" ]; then mv "$policy" "$policy.kept"; fi
        printf "#!/bin/sh\nif kill -0 %d 2>/dev/null; then exit 101; fi\n" $$ >"$policy"
        chmod 755 "$policy"
        export DEBIAN_FRONTEND=noninteractive LC_ALL=C
        apt-get -qq update
        # apt prints the size: "Need to get … of archives", "After this operation, …".
        apt-get -q --assume-no install --no-install-recommends "$@" | grep -E "^(Need to get|After this)" || true
        apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
    ' sh "$@" </dev/null >&2
}
