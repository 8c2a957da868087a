#!/bin/bash
# Run a command in a root: inside.sh ROOT COMMAND…, as root. In a mount namespace of its own, so that
# nothing stays mounted.
exec unshare --mount bash -c 'mount --rbind /proc "$0/proc" && mount --rbind /sys "$0/sys" &&
    mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"' "$@"
