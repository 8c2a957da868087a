#!/bin/bash
# Move a running program's memory from node to node, by two strategies.
# Usage: demo.sh DIRECTORY-OF-SCHEDHOOK, as root, on a host with two nodes with memory or more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PATH=$1:$PATH
MIB=400
export COLUMNS=110

node=/sys/devices/system/node
nodes=()
for path in $node/node[0-9]*; do
    grep -q 'MemTotal: *[1-9]' "$path/meminfo" && nodes+=("${path##*node}")
done
((${#nodes[@]} >= 2)) || { echo "this demo needs two NUMA nodes with memory; this host has ${#nodes[@]}" >&2; exit 1; }
first=${nodes[0]} second=${nodes[2]:-${nodes[1]}} third=${nodes[1]}
[[ $third != "$second" ]] || third=$first

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
try() { echo "\$ $*"; "$@"; }

# Print how many MiB are on one node, independently of schedhook, by /proc/PID/numa_maps (proc(5)).
mib_on() {
    awk -v node="N$1=" '{
        size = 4
        for (i = 1; i <= NF; i++) if ($i ~ /^kernelpagesize_kB=/) size = substr($i, 19)
        for (i = 1; i <= NF; i++) if (index($i, node) == 1) kib += substr($i, length(node) + 1) * size
    } END { printf "%d", kib / 1024 }' "/proc/$pid/numa_maps"
}

report() {
    try schedhook show --pid "$pid"
    try numastat -p "$pid"
    local line="by /proc/$pid/numa_maps:"
    for n in "${nodes[@]}"; do line+="  node $n: $(mib_on "$n") MiB"; done
    echo "$line"
}

# relocate FROM TO STRATEGY: change the processors first, as a scheduler does, then move the memory.
relocate() {
    say "Bind the program to node $2: its memory stays on node $1 until schedhook moves it ($3)"
    local cpus
    cpus=$(< "$node/node$2/cpulist")
    if [[ -n $cpus ]]; then try taskset --all-tasks --cpu-list --pid "$cpus" "$pid"; fi
    try schedhook relocate --pid "$pid" --from "$1" --to "$2" --strategy "$3"
    report
    (($(mib_on "$2") >= MIB)) || { echo "FAILED: the memory is not on node $2" >&2; exit 1; }
}

say "Start a program with $MIB MiB on node $first"
output=$(mktemp)
numactl --cpunodebind="$first" --preferred="$first" python3 worker.py $MIB > "$output" &
pid=$!
trap 'kill -KILL $pid 2> /dev/null || true; rm -f "$output"' EXIT
until [[ -s $output ]]; do kill -0 $pid; sleep 0.5; done
cat "$output"
report
(($(mib_on "$first") >= MIB)) || { echo "FAILED: the memory was not on node $first at the start" >&2; exit 1; }

relocate "$first" "$second" move-pages
relocate "$second" "$third" migrate-process

say "Stop the program, which checks its data"
kill -TERM $pid
wait $pid && right=yes || right=no
tail -1 "$output"
[[ $right == yes ]] || { echo "FAILED: the program's data changed" >&2; exit 1; }
say "The memory moved twice, and every byte is unchanged."
