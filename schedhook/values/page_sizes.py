"""The sizes of a kernel's pages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSizes:
    """The sizes of a kernel's pages, in bytes.

    They differ between processors and configurations: on x86-64 a base page has 4 KiB and a
    transparent huge page 2 MiB, on arm64 a base page has 4, 16 or 64 KiB and a transparent huge
    page 2, 32 or 512 MiB.
    """

    base: int
    """The processor's page, the smallest unit that can be mapped."""
    folio: int = 0
    """A transparent huge page: the largest unit in which ordinary memory moves; 0 without them."""
    pools: tuple[int, ...] = ()
    """The huge pages of which there can be pools (hugetlbfs), ascending."""
    default_pool: int = 0
    """The huge page of MAP_HUGETLB without a size, mmap(2); 0 without pools."""

    def largest(self, page_size: int) -> int:
        """Return the most that moves as one in a mapping whose pages have `page_size` bytes."""
        return max(page_size, self.folio)
