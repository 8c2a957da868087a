"""Takes an argument that the plug-in hook does not have."""

from schedhook import hookimpl


@hookimpl
def schedhook_before_migrate(plan, mood):
    raise RuntimeError(plan, mood)
