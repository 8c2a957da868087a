"""How fast memory follows, against a peer and against the bare system call: see docs/speed.md."""
