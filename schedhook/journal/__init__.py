"""The journal: what was seen of each job and done about it."""
