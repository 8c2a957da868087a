#!/bin/bash
# Run Ansible's role on a fresh root, twice: ansible.sh BIN ROOT PACKAGE, as root. BIN has Ansible's programs;
# the second time nothing may change.
set -euo pipefail
bin=$(realpath "$1") root=$(realpath "$2") package=$(realpath "$3")
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
export ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_HOME=$root/root/.ansible
run() {
    # A mount namespace, so that nothing stays mounted below the root.
    unshare --mount bash -c 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec "$@"' "$root" \
        "$bin/ansible-playbook" --inventory "$root," --connection community.general.chroot \
        --extra-vars "{\"schedhook_package\": \"$package\", \"schedhook_scheduler\": \"slurm\",
            \"schedhook_config\": \"[journal]\\nkeep_days = 30\\n\"}" \
        "$here/../../packaging/ansible/site.yml"
}
"$here/inside.sh" "$root" apt-get update --quiet > /dev/null
run
again=$(run)
grep -q 'changed=0 .*failed=0' <<< "$again" || { echo "the second run changed something: $again" >&2; exit 1; }
"$here/inside.sh" "$root" schedhook doctor --json > "$root/root/findings" || true
grep -q '"subject": "journal"' "$root/root/findings" || { echo "schedhook does not run" >&2; exit 1; }
for path in etc/slurm/schedhook/prolog etc/systemd/system/multi-user.target.wants/schedhook-agent.service; do
    [[ -e $root/$path || -L $root/$path ]] || { echo "no $path" >&2; exit 1; }
done
grep -q 'keep_days = 30' "$root/etc/schedhook/config.toml"
echo "ansible: set up once, unchanged the second time"
