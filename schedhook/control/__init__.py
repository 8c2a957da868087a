"""Writes to the host, each with its way back.

=================  =========================  ======================================================
module             writes                     way back
=================  =========================  ======================================================
affinity, threads  sched_setaffinity(2)       `Binding.undo` after a failure; if this process is
                                              killed, the rollback helper
freezer            cgroup.freeze              the end of the block; if this process is killed, the
                                              rollback helper
cpu_move           cpuset.cpus and affinity   `move_processors` restores both after a failure; if
                                              this process is killed, the agent finishes the move,
                                              which its caller has recorded in the journal, and the
                                              rollback helper thaws the cgroup
rebinding          memory policies, by        `Rebinding.undo` after a failure; if this process is
                   ptrace(2)                  killed, none: the same relocation completes it
cpusets            cpuset.cpus, cpuset.mems   none of its own: the caller restores what it wrote
=================  =========================  ======================================================

The rollback helper (`rollback`, `undo`) is a process that outlives this one, in another cgroup. If
both are killed, root's record stays in /run/schedhook/rollback, and `recover` restores what it
lists. What another process has frozen, thawed or bound since stays so.
"""
