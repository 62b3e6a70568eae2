# Sourced by the other scripts: where things are, messages, packages.
# shellcheck shell=bash
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# What takes long to make and can always be made again: the guest's kernel, builds.
cache=${BOUGH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bough}

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "this needs root, and sudo is not installed: run as root: $*"
    fi
}

# packages_listed [HEADING]: the packages of scripts/packages, or only those up to a heading.
packages_listed() {
    awk -v stop="${1:-}" 'stop != "" && index($0, stop) { exit } /^[^#]/ { print $1 }' "$top/scripts/packages"
}

packages_missing() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done
}

# Installs those of the given packages that are not installed.
packages_install() {
    local missing
    command -v dpkg-query >/dev/null 2>&1 ||
        fail "this script installs packages with apt-get, on Debian 12; elsewhere install by hand what scripts/packages lists"
    mapfile -t missing < <(packages_missing "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "installing: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
}
