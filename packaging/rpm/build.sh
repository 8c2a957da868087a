#!/bin/bash
# Build the RPM package: packaging/rpm/build.sh PYTHON SDIST DIRECTORY
# PYTHON has pip and what the program needs; rpmbuild is RHEL's or another distribution's.
set -euo pipefail
python=$1 sdist=$(realpath "$2") directory=$(realpath -m "$3")
spec=$(realpath "$(dirname "$0")/schedhook.spec")
version=$(basename "$sdist" .tar.gz)
version=${version#schedhook-}
grep -q "^Version: *$version\$" "$spec" || { echo "$spec has another version than $version" >&2; exit 1; }
top=$directory/rpmbuild
rm -rf "$top"
mkdir -p "$top/SOURCES/wheels"
cp "$sdist" "$top/SOURCES/"
# Only pure ones, which suit every version of Python and every processor.
"$python" -m pip --disable-pip-version-check download --quiet --only-binary :all: --platform any --python-version 3.11 \
    --dest "$top/SOURCES/wheels" 'setuptools>=77' \
    $("$python" -P -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["metrics"])')
tar -C "$top/SOURCES" -czf "$top/SOURCES/schedhook-wheels-$version.tar.gz" wheels
rm -r "$top/SOURCES/wheels"
options=()
# Debian's rpm knows nothing of Debian's packages, which the build needs.
command -v dpkg > /dev/null && options=(--nodeps --define 'python python3')
rpmbuild --define "_topdir $top" "${options[@]}" -ba "$spec" > "$directory/rpmbuild.log" 2>&1 ||
    { tail -40 "$directory/rpmbuild.log" >&2; exit 1; }
cp "$top"/RPMS/*/*.rpm "$top"/SRPMS/*.rpm "$directory/"
ls "$directory"/*.rpm
