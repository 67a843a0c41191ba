#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command on a machine that has nothing: a fresh minimal Debian with git, make, python3, python3-venv
# and certificates, in a folder of its own, with a clone of what is committed here.
#
#   tools/bare_machine.sh ['make test']
#
# Ends with the command's exit code; with 0 and 'skipped: ...' where such a machine cannot be made, for want of
# root, debootstrap or packages. apt and pip are set up as they are here. ../shared lies beside the clone, to be
# read only. KEEP=1 leaves the folder and names it.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
include=git,make,python3,python3-venv,ca-certificates

skip() {
    echo "skipped: $1"
    exit 0
}

# A file or folder of this machine, at the same place there.
bring() {
    for path in "$@"; do
        test -e "$path" || continue
        mkdir -p "$root$(dirname "$path")"
        cp -RLT "$path" "$root$path" 2>/dev/null || true # links that lead nowhere stay behind
    done
}

# The same without a copy, and not to be written to: WHAT, [WHERE]
show() {
    if [ -d "$1" ]; then mkdir -p "$root${2:-$1}"; else mkdir -p "$(dirname "$root${2:-$1}")" && touch "$root${2:-$1}"; fi
    mount --bind "$1" "$root${2:-$1}"
    mount -o remount,bind,ro "$root${2:-$1}"
}

ours() { # this repository, whoever owns it
    git -c 'safe.directory=*' -C "$here" "$@"
}

# Folders of packages that pip's configuration names; an index links to files beside itself.
package_folders() {
    python3 -m pip config list 2>/dev/null | tr "'\"=, " '\n' | while read -r word; do
        case $word in
        file:///*) dirname "${word#file://}" ;;
        /*) echo "$word" ;;
        esac
    done | sort -u | while read -r path; do if [ -d "$path" ] && [ "$path" != / ]; then echo "$path"; fi; done
}

inside() { # in a mount namespace of its own: what is mounted here ends with it
    . /etc/os-release
    mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n "s/^$VERSION_CODENAME main //p" | head -n 1)
    echo "making a bare $VERSION_CODENAME in $root"
    # shellcheck disable=SC2086
    debootstrap --variant=minbase --include=$include "$VERSION_CODENAME" "$root" $mirror >"$root.log" 2>&1 ||
        skip "debootstrap fails: $(tail -n 1 "$root.log")"

    rm -f "$root/etc/apt/sources.list"
    bring /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/preferences.d /etc/apt/auth.conf.d \
        /etc/apt/keyrings /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d /usr/share/keyrings
    apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/01as-outside" || true
    bring /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" "$HOME/.pip" "${PIP_CONFIG_FILE:-}" /etc/resolv.conf /etc/hosts \
        /usr/local/share/ca-certificates
    chroot "$root" update-ca-certificates >/dev/null 2>&1 || true
    bring /etc/ssl/certs/ca-certificates.crt
    package_folders | while read -r path; do show "$path"; done

    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind -o ro /sys "$root/sys"
    mkdir "$root/src"
    ours bundle create -q "$root/src/bundle" HEAD
    git -c advice.detachedHead=false clone -q "$root/src/bundle" "$root/src/medyate"
    [ -z "$(ours status --porcelain)" ] || echo "what is not committed does not take part"
    if [ -d "$here/../shared" ]; then show "$(readlink -f "$here/../shared")" /src/shared; fi

    set -- HOME="$HOME" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    for name in $(env | sed -nE 's/^((PIP|SSL|UV)_[A-Z_]+|[A-Z]+_CA_BUNDLE|GIT_SSL_CAINFO|([a-z]+|[A-Z]+)_(proxy|PROXY))=.*/\1/p'); do
        eval "set -- \"\$@\" $name=\"\$$name\""
    done
    code=0
    env -i "$@" chroot "$root" sh -c "cd /src/medyate && $command" || code=$?
    echo "on a bare machine '$command' ended with exit code $code"
    exit "$code"
}

if [ "${BARE_MACHINE:-}" ]; then
    root=$BARE_MACHINE command=$1
    unset BARE_MACHINE
    inside
fi

[ "$(id -u)" = 0 ] || skip "a machine in a folder needs root"
command -v apt-get >/dev/null || skip "only Debian and its kin can make a machine in a folder"
command -v debootstrap >/dev/null || apt-get install -qy --no-install-recommends debootstrap >/dev/null 2>&1 ||
    { apt-get update -q && apt-get install -qy --no-install-recommends debootstrap; } >/dev/null 2>&1 ||
    skip "debootstrap is not installed, and apt cannot install it"
unshare --mount --pid --fork true 2>/dev/null || skip "this machine lets nobody mount"

root=$(mktemp -d "${TMPDIR:-/tmp}/bare-machine.XXXXXX")
chmod 755 "$root"
[ "${KEEP:-}" ] || trap 'rm -rf --one-file-system "$root" "$root.log"' EXIT
trap 'exit 130' INT TERM
BARE_MACHINE=$root unshare --mount --pid --fork --kill-child sh "$0" "${1:-make test}"
