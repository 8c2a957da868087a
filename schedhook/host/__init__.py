"""What this machine says about itself: read-only readers of /sys and /proc.

Every reader takes the directory that stands for `/`, so that a tree of files can stand for a host;
see schedhook.testing.
"""
