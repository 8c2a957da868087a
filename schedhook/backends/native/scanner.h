/* Finds the present pages of a range, by the PAGEMAP_SCAN ioctl or by reading pagemap. */
#ifndef SCHEDHOOK_SCANNER_H
#define SCHEDHOOK_SCANNER_H

#include "engine.h"

#include <limits.h>

/* The node of a page if only a query to the kernel can give it. */
#define SH_UNKNOWN_NODE (INT_MIN + 2)

#define SH_SCAN_REGIONS 128

/* struct page_region of Linux 6.7. */
struct sh_scan_region {
    uint64_t start, end, categories;
};

struct sh_scanner {
    const struct sh_range *range;
    uint64_t position;            /* next address to return */
    uint64_t until;               /* no page is looked for from here on, before `only` says where */
    const struct sh_extent *only; /* the parts of the range that were not reached yet */
    size_t only_left;
    /* PAGEMAP_SCAN */
    struct sh_scan_region regions[SH_SCAN_REGIONS];
    size_t region, region_count;
    uint64_t walked; /* scanned up to here */
    /* pagemap as an array of 64-bit entries, and the flags of the frames in them */
    uint64_t *entries, *flags;
    size_t entry_room;
    uint64_t entries_start, entries_end; /* addresses that `entries` describes */
    uint64_t row_end;   /* up to here each frame follows the one before, from the position on */
    uint64_t flags_end; /* `flags` are known up to here, from the position on */
};

/* Bits of an entry of /proc/PID/pagemap. */
#define SH_PAGEMAP_PRESENT (1ull << 63)
#define SH_PAGEMAP_FILE (1ull << 61) /* or shared memory: not the process's own */
#define SH_PAGEMAP_FRAME ((1ull << 55) - 1)

struct sh_page {
    uint64_t address;
    uint64_t size;
    int node;       /* SH_UNKNOWN_NODE if no frame number was seen */
    uint64_t entry; /* of pagemap, the first one's of a huge page; 0: it was not read */
    bool is_zero;   /* the huge zero page, unless a scan has left it out */
};

/* Whether the kernel's flags of frames can tell which pages of the range belong to one folio. */
bool sh_tells_folios(const struct sh_range *range);

/* Returns 0 or SH_NO_LOCAL_MEMORY. */
int sh_scanner_open(struct sh_scanner *scanner, const struct sh_range *range);
void sh_scanner_close(struct sh_scanner *scanner);

/* Pass over what is far from all of these ascending extents; no extents: pass over nothing. The
 * caller still gets pages that are near one. A huge page is not cut. */
void sh_scanner_restrict(struct sh_scanner *scanner, const struct sh_extent *only, size_t count);

/* Store the next present page or huge page; its size is 0 at the end. Returns 0 or errno. */
int sh_scanner_next(struct sh_scanner *scanner, struct sh_page *page);

/* The node of a frame, or SH_UNKNOWN_NODE. */
int sh_node_of_frame(const struct sh_range *range, uint64_t frame);

/* The node of the present base page at `address` by its frame; SH_UNKNOWN_NODE if there is none or
 * frames give no nodes, -ESRCH if the address space is gone. `only_folios`: only if it is a part of
 * a transparent huge page, and not of the zero page. */
int sh_node_by_frame(const struct sh_range *range, uint64_t address, bool only_folios);

/* Make sh_scanner_next return this page again. */
void sh_scanner_return(struct sh_scanner *scanner, const struct sh_page *page);

/* Whether the process has exited or replaced its address space: then pagemap reads as empty. */
bool sh_address_space_gone(const struct sh_range *range);

#endif
