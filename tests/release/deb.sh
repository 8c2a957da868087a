#!/bin/bash
# Use the Debian package in a root of its own: deb.sh STAGE ROOT [FILE], as root.
#   install FILE    with apt from a fresh root, then run every command
#   relocate        a job on a host with several nodes, and let the job check its memory
#   upgrade FILE    from the package before, and keep what the administrator wrote
#   purge           and leave nothing but the journal
set -euo pipefail
stage=$1 root=$(realpath "$2") file=${3:-}
here=$(dirname "${BASH_SOURCE[0]}")
tour=$here/tour.py

say() { echo "$stage: $*"; }
fail() { say "$*" >&2; exit 1; }
inside() { "$here/inside.sh" "$root" "$@"; }
install_package() {
    cp "$file" "$root/root/schedhook.deb"
    inside env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet \
        -o Dpkg::Options::=--force-confold /root/schedhook.deb
}
# Go on in the same root with all changes to it in memory.
in_memory() {
    local layer
    layer=$(mktemp -d)
    mount -t tmpfs none "$layer"
    mkdir "$layer"/{upper,work,root}
    mount -t overlay -o "lowerdir=$root,upperdir=$layer/upper,workdir=$layer/work" none "$layer/root"
    root=$layer/root
}
# All that schedhook's package or its programs have put anywhere, but for what Debian's own tools keep.
left() {
    find "$root" -xdev \( -path "$root/proc" -o -path "$root/sys" -o -path "$root/dev" \) -prune \
        -o -name '*schedhook*' -not -path "$root/root/*" -not -path '*/apt/*' -print
}

case $stage in
install)
    before=$(left)
    [[ -z $before ]] || fail "not a fresh root: $before"
    inside apt-get update --quiet
    install_package
    cp "$tour" "$root/root/tour.py"
    inside /usr/lib/schedhook/bin/python3 -P /root/tour.py /usr/bin/schedhook
    inside schedhook --version
    # No systemd runs here, which would make the spool.
    mkdir -p -m 0700 "$root/var/spool/schedhook"
    inside schedhook setup slurm
    inside env SLURM_JOB_ID=7 SLURM_JOB_UID=0 /etc/slurm/schedhook/prolog
    ls "$root"/var/spool/schedhook/*.event > /dev/null || fail "the hook's event is not in the spool"
    inside /etc/slurm/schedhook/job-migrate --help > /dev/null
    for page in schedhook schedhook-relocate job-migrate; do
        [[ -e $root/usr/share/man/man1/$page.1.gz ]] || fail "no manual page $page"
    done
    [[ -e $root/lib/systemd/system/schedhook-agent.service ]] || fail "no unit"
    ;;
relocate)
    [[ -w $root/root ]] || in_memory # a virtual machine may not write to this host's files
    cat > "$root/root/job.py" << 'END'
import hashlib, os, sys, time
data = bytearray(os.urandom(1 << 20)) * 16
before = hashlib.sha256(data).digest()
open("/root/ready", "w").write(str(os.getpid()))
while not os.path.exists("/root/moved"):
    time.sleep(0.1)
sys.exit(hashlib.sha256(data).digest() != before)
END
    rm -f "$root"/root/{ready,moved}
    # The job's memory is touched by a CPU of node 0, which it then leaves.
    numactl --cpunodebind=0 chroot "$root" /usr/bin/python3 /root/job.py &
    job=$!
    trap 'kill $job 2> /dev/null || true' EXIT
    until [[ -s $root/root/ready ]]; do sleep 0.2; done
    inside schedhook relocate --pid "$job" --from 0 --to 2
    on_2=$(grep -o 'N2=[0-9]*' "/proc/$job/numa_maps" | awk -F= '{ pages += $2 } END { print pages + 0 }')
    ((on_2 >= 16 * 256)) || fail "only $on_2 pages are on node 2, by /proc/PID/numa_maps"
    touch "$root/root/moved"
    wait "$job" || fail "the job's memory has changed"
    say "16 MiB of a job moved, and the job read them back"
    inside schedhook metrics | grep '^schedhook_relocations_total{outcome="complete"' > /dev/null ||
        fail "the journal has no report"
    ;;
upgrade)
    echo '# kept' >> "$root/etc/schedhook/config.toml"
    old=$(inside dpkg-query --show --showformat '${Version}' schedhook)
    install_package
    new=$(inside dpkg-query --show --showformat '${Version}' schedhook)
    [[ $new != "$old" ]] || fail "still $old"
    grep -q '# kept' "$root/etc/schedhook/config.toml" || fail "the configuration was replaced"
    inside /usr/lib/schedhook/bin/python3 -P /root/tour.py /usr/bin/schedhook
    say "from $old to $new"
    ;;
purge)
    inside schedhook setup slurm --undo
    mkdir -p "$root/var/lib/schedhook" && touch "$root/var/lib/schedhook/journal.db"
    said=$(inside env DEBIAN_FRONTEND=noninteractive apt-get purge --yes --quiet schedhook)
    grep -q 'journal is kept: rm -r /var/lib/schedhook' <<< "$said" || fail "does not say the journal"
    [[ $(left) == "$root/var/lib/schedhook" ]] || fail "left: $(left)"
    say "only the journal is left"
    ;;
*)
    fail "no such stage"
    ;;
esac
