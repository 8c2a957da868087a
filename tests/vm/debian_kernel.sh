#!/bin/sh
# debian_kernel.sh SUITE DIRECTORY: unpack the newest kernel of a suite of Debian, such as
# trixie-backports, into a directory. Nothing is installed: neither /boot nor the host's sources for
# apt change. The kernel is then boot/vmlinuz-VERSION there, its modules lib/modules/VERSION.
set -eu
suite=$1
mkdir -p "$2"
cd "$2"
mkdir -p lists/partial cache
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${MIRROR:-http://deb.debian.org/debian}
echo "deb [signed-by=$keys] $mirror $suite main" > sources.list
options="-o Dir::Etc::SourceList=$PWD/sources.list -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists=$PWD/lists -o Dir::Cache=$PWD/cache -o APT::Sandbox::User=root"
apt-get $options --quiet=2 update
version=$(apt-cache $options depends linux-image-amd64 | sed -n 's/.*Depends: linux-image-//p')
# From Linux 7.2 on, Debian divides the kernel between several packages, all in /usr.
packages=$(apt-cache $options pkgnames | grep --fixed-strings --line-regexp \
    --regexp="linux-image-$version" --regexp="linux-binary-$version" \
    --regexp="linux-modules-$version" --regexp="linux-base-$version")
apt-get $options --quiet=2 download $packages
for package in *.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink
done
if [ -d usr/lib/modules ]; then
    mkdir -p boot lib
    ln -sfn ../usr/lib/modules lib/modules
    ln -f "usr/lib/modules/$version/vmlinuz" "boot/vmlinuz-$version"
fi
depmod --basedir . "$version"
rm -rf ./*.deb lists cache
