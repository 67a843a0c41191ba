#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that medyate needs, when root or sudo allows it; else says which.
set -u

missing=""
python=${PYTHON:-python3}
venv=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' 2>/dev/null || echo python3-venv)
need() { # command, package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need cc gcc
need make make
need clang clang
need arm-none-eabi-gcc gcc-arm-none-eabi
need qemu-system-arm qemu-system-arm
arm-none-eabi-gcc -print-file-name=libc_nano.a 2>/dev/null | grep -q / || missing="$missing libnewlib-arm-none-eabi"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing $venv"
# libFuzzer and the sanitizers; a part of clang's own package where apt knows no other.
ls "$(clang -print-runtime-dir 2>/dev/null)"/*fuzzer* >/dev/null 2>&1 || {
    apt-cache show clang >/dev/null 2>&1 && ! apt-cache show libclang-rt-dev >/dev/null 2>&1
} || missing="$missing libclang-rt-dev"
test -e /usr/include/stdio.h || missing="$missing libc6-dev"
# The tests compile one runtime for many networks: wanted, but asked of nobody.
wanted=""
command -v ccache >/dev/null 2>&1 || wanted=" ccache"
[ -z "$missing" ] && { [ -z "$wanted" ] || [ "$(id -u)" != 0 ]; } && exit 0

command="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
    run=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    run="sudo"
else
    echo "medyate needs these system packages; run as root:" >&2
    echo "    apt-get update && $command" >&2
    exit 2
fi
command="$command$wanted"
echo "installing system packages:$missing$wanted"
log=$(mktemp)
quiet="env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a"
if ! { $run apt-get update -q && $run $quiet $command; } >"$log" 2>&1 </dev/null; then
    [ -n "$missing" ] && tail -n 5 "$log" >&2
    rm -f "$log"
    [ -z "$missing" ] && exit 0
    echo "the installation failed; run as root: apt-get update && $command" >&2
    exit 2
fi
rm -f "$log"
