"""Pages for browsers: one file each, which loads nothing and has no script in it."""
