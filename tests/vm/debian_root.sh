#!/bin/sh
# Make a root directory of another Debian, as root: debian_root.sh SUITE ROOT PACKAGE...
# ARCH=arm64: for other processors than this host's; qemu-user-static runs its programs.
set -eu
suite=$1 root=$2
shift 2
arch=${ARCH:-$(dpkg --print-architecture)}
if [ "$arch" = arm64 ] && [ "$(dpkg --print-architecture)" != arm64 ]; then
    binfmt=/proc/sys/fs/binfmt_misc
    mountpoint --quiet $binfmt || mount -t binfmt_misc binfmt_misc $binfmt
    [ -e $binfmt/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf > $binfmt/register
fi
# Should an earlier run have been killed, its mounts are left alone.
rm -rf --one-file-system "$root"
mkdir -p "$(dirname "$root")"
# pip shall reach its index as on this host: by its variables, and with its certificates.
certificates=/etc/ssl/certs/ca-certificates.crt
# A mirror of sid can be a few days old. virtme-ng makes its own initramfs.
INITRD=No mmdebstrap --variant=apt --quiet --architectures="$arch" --aptopt='Acquire::Check-Valid-Until "false"' \
    --include="$* ca-certificates" --customize-hook="cp $certificates \"\$1$certificates\"" \
    "$suite" "$root" "${MIRROR:-http://deb.debian.org/debian}"
