"""Does not mark its function with @hookimpl."""


def schedhook_mappers():
    return []
