#!/bin/bash
# Make a root directory of another Debian, which guests can boot: debian_root.sh SUITE ROOT VENV
# WHEEL PACKAGE..., as root. It has these packages, and at the path VENV an environment of its own
# Python with the wheel and what the tests need.
set -euo pipefail
suite=$1 root=$2 venv=$3 wheel=$4
shift 4
certificates=/etc/ssl/certs/ca-certificates.crt
# Should an earlier run have been killed, its mounts are left alone.
rm -rf --one-file-system "$root"
mkdir -p "$(dirname "$root")"
# pip reaches its index as on this host: with its certificates, and by pip's variables.
mmdebstrap --variant=apt --quiet --include="$(IFS=,; echo "$*"),ca-certificates" \
    --customize-hook="cp $certificates \"\$1$certificates\"" \
    --customize-hook="cp $wheel \"\$1/tmp\"" \
    --customize-hook="chroot \"\$1\" python3 -m venv $venv" \
    --customize-hook="chroot \"\$1\" $venv/bin/pip install --quiet '/tmp/${wheel##*/}[test]'" \
    --customize-hook="rm \"\$1/tmp/${wheel##*/}\"" \
    "$suite" "$root" "${MIRROR:-http://deb.debian.org/debian}"
