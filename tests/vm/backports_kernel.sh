#!/bin/sh
# Unpack the kernel of Debian 12's backports into a directory, which is the argument. Nothing is
# installed: neither /boot nor the host's sources for apt change.
set -eu
mkdir -p "$1"
cd "$1"
mkdir -p lists/partial cache
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${MIRROR:-http://deb.debian.org/debian}
echo "deb [signed-by=$keys] $mirror bookworm-backports main" > sources.list
options="-o Dir::Etc::SourceList=$PWD/sources.list -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists=$PWD/lists -o Dir::Cache=$PWD/cache -o APT::Sandbox::User=root"
apt-get $options --quiet=2 update
package=$(apt-cache $options depends linux-image-amd64 | sed -n 's/.*Depends: //p')
apt-get $options --quiet=2 download "$package"
dpkg-deb --extract "$package"_*.deb .
depmod --basedir . "${package#linux-image-}"
rm -rf "$package"_*.deb lists cache
