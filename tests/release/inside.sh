#!/bin/bash
# Run a command in a root: inside.sh ROOT COMMAND…, as root. In a mount namespace of its own, so that
# nothing stays mounted. The root is mounted, too: a program in it may make a namespace of its own.
exec unshare --mount bash -c 'mount --rbind "$0" "$0" && mount --rbind /proc "$0/proc" &&
    mount --rbind /sys "$0/sys" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"' "$@"
