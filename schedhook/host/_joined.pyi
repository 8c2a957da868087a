def join_mappings(
    numa_maps: bytes,
    maps: bytes,
    resident_only: bool,
    largest: int,
    furthest: int,
    base: int,
    /,
) -> list[
    tuple[int, int, bytes, list[tuple[int, int]], bytearray | None]
    | tuple[int, int | None, bytes, int]
]:
    """Read both files together; return joined mappings, and lines that are not joined.

    In ascending order. What is joined: start, end, policy as numa_maps has it, base pages on each
    node, and start and end of each part as 64-bit words, None if there is one. A line that is not
    joined: its address, that of the next line (None for the last), what follows the address, and
    where in `maps` to begin to look for its mapping.

    Mappings of private anonymous memory with one policy are joined, each of at most `largest`
    bytes and at most `furthest` bytes behind the last one, of base pages (`base`, bytes) that no
    other process maps. `resident_only` leaves out those without pages in memory and without a
    policy. Malformed addresses are left out; other malformed lines are returned as they are.
    """
