#include "scanner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGEMAP_ENTRIES 4096
#define SCAN_PAGES 16384 /* limits how long one scan holds the target's mmap lock */
#define NEAR 256         /* base pages: to look at so many costs about as much as one more call */

/* /proc/kpageflags */
#define FLAG_COMPOUND_TAIL (1ull << 16)
#define FLAG_THP (1ull << 22)
#define FLAG_ZERO_PAGE (1ull << 24)

/* struct pm_scan_arg of Linux 6.7, and the categories that are used here. */
struct scan_arguments {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_IS_PRESENT (1u << 3)
#define SCAN_IS_ZERO_FRAME (1u << 5)
#define SCAN_IS_HUGE (1u << 6)

void sh_scanner_close(struct sh_scanner *scanner)
{
    free(scanner->entries);
}

int sh_scanner_open(struct sh_scanner *scanner, const struct sh_range *range)
{
    memset(scanner, 0, sizeof *scanner);
    scanner->range = range;
    scanner->position = scanner->walked = range->start;
    scanner->until = range->end;
    scanner->entries_start = scanner->entries_end = range->start;
    if (!range->use_scan) {
        scanner->entry_room = PAGEMAP_ENTRIES;
        if (range->folio_size / range->base_size > scanner->entry_room)
            scanner->entry_room = range->folio_size / range->base_size;
        scanner->entries = malloc(scanner->entry_room * sizeof *scanner->entries);
        if (!scanner->entries)
            return SH_NO_LOCAL_MEMORY;
    }
    return 0;
}

void sh_scanner_restrict(struct sh_scanner *scanner, const struct sh_extent *only, size_t count)
{
    if (!count)
        return;
    scanner->only = only;
    scanner->only_left = count;
    scanner->until = scanner->position;
}

/* Go on to the next extent, and those near it. Returns false at the end. */
static bool next_extents(struct sh_scanner *scanner)
{
    const struct sh_range *range = scanner->range;
    uint64_t unit = range->folio_size > range->page_size ? range->folio_size : range->page_size;

    while (scanner->only_left) {
        uint64_t start = scanner->only->start / unit * unit, end;

        do
            end = scanner->only++->end;
        while (--scanner->only_left && scanner->only->start <= end + NEAR * range->base_size);
        end = (end + unit - 1) / unit * unit;
        if (scanner->position < start)
            scanner->position = start;
        scanner->until = end < range->end ? end : range->end;
        if (scanner->position < scanner->until)
            return true;
    }
    return false;
}

/* A whole transparent huge page may start at `address` and end within `limit`. */
static bool folio_fits(const struct sh_range *range, uint64_t address, uint64_t limit)
{
    return range->folio_size && range->page_size == range->base_size &&
           address % range->folio_size == 0 && limit - address >= range->folio_size;
}

bool sh_address_space_gone(const struct sh_range *range)
{
    uint64_t entry;
    ssize_t got;

    do
        got = sh_read_pagemap(range->pagemap, &entry, sizeof entry,
                              range->start / range->base_size * sizeof entry);
    while (got < 0 && errno == EINTR);
    return got == 0;
}

static int scan_more(struct sh_scanner *scanner)
{
    const struct sh_range *range = scanner->range;
    struct scan_arguments arguments = {
        .size = sizeof arguments,
        .start = scanner->walked,
        .end = scanner->until,
        .regions = (uint64_t)(uintptr_t)scanner->regions,
        .region_count = SH_SCAN_REGIONS,
        .max_pages = SCAN_PAGES,
        .category_inverted = SCAN_IS_ZERO_FRAME,
        .category_mask = SCAN_IS_PRESENT | SCAN_IS_ZERO_FRAME,
        .return_mask = SCAN_IS_PRESENT | SCAN_IS_HUGE,
    };
    int found;

    /* A hugetlb page counts as its base pages: leave room for at least one. */
    if (range->page_size / range->base_size > arguments.max_pages)
        arguments.max_pages = range->page_size / range->base_size;
    do
        found = sh_scan_pagemap(range->pagemap, &arguments);
    while (found < 0 && errno == EINTR);
    if (found < 0)
        return errno;
    /* A scan of an address space that is gone succeeds and finds nothing. */
    if (!found && sh_address_space_gone(range))
        return ESRCH;
    scanner->region = 0;
    scanner->region_count = (size_t)found;
    scanner->walked = arguments.walk_end > scanner->walked ? arguments.walk_end : scanner->until;
    return 0;
}

static int next_scanned(struct sh_scanner *scanner, struct sh_page *page)
{
    const struct sh_range *range = scanner->range;

    for (;;) {
        while (scanner->region < scanner->region_count) {
            const struct sh_scan_region *region = &scanner->regions[scanner->region];
            uint64_t address =
                scanner->position > region->start ? scanner->position : region->start;

            if (address >= region->end) {
                scanner->region++;
                continue;
            }
            page->address = address;
            page->size = range->page_size;
            page->node = SH_UNKNOWN_NODE;
            page->entry = 0;
            page->is_zero = false;
            if ((region->categories & SCAN_IS_HUGE) && folio_fits(range, address, region->end))
                page->size = range->folio_size;
            scanner->position = address + page->size;
            return 0;
        }
        if (scanner->walked >= scanner->until) {
            if (scanner->position < scanner->until)
                scanner->position = scanner->until;
            if (!next_extents(scanner)) {
                page->size = 0;
                return 0;
            }
            scanner->walked = scanner->position;
        }
        int error = scan_more(scanner);
        if (error)
            return error;
    }
}

/* The flags of a frame in it if these entries are one transparent huge page, else 0. Its frames are
 * consecutive; those of small pages can be, too, so the kernel's flags decide. Folios are aligned
 * to their size: a frame in the middle that is not the first of a folio can only belong to one that
 * covers all of these frames. Without permission to see frames (CAP_SYS_ADMIN) or flags, the page
 * is treated as small pages, which takes more calls and moves it as well. */
static uint64_t folio_flags(const struct sh_scanner *scanner, const uint64_t *entries, size_t count)
{
    uint64_t first = entries[0] & SH_PAGEMAP_FRAME, flags;

    if (!first || first % count || scanner->range->kpageflags < 0)
        return 0;
    for (size_t i = 1; i < count; i++)
        if (!(entries[i] & SH_PAGEMAP_PRESENT) || (entries[i] & SH_PAGEMAP_FRAME) != first + i)
            return 0;
    if (sh_read_pagemap(scanner->range->kpageflags, &flags, sizeof flags,
                        (first + count / 2) * sizeof flags) != sizeof flags)
        return 0;
    return flags & FLAG_COMPOUND_TAIL ? flags : 0;
}

int sh_node_of_frame(const struct sh_range *range, uint64_t frame)
{
    size_t low = 0, high = range->span_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct sh_span *span = &range->spans[middle];

        if (frame < span->start)
            high = middle;
        else if (frame >= span->end)
            low = middle + 1;
        else
            return frame ? (int)span->node : SH_UNKNOWN_NODE;
    }
    return SH_UNKNOWN_NODE;
}

int sh_node_by_frame(const struct sh_range *range, uint64_t address, bool only_folios)
{
    uint64_t entry, flags;
    ssize_t got;

    if (!range->span_count)
        return SH_UNKNOWN_NODE;
    got = sh_read_pagemap(range->pagemap, &entry, sizeof entry,
                          address / range->base_size * sizeof entry);
    if (got == 0)
        return -ESRCH;
    if (got != sizeof entry || !(entry & SH_PAGEMAP_PRESENT))
        return SH_UNKNOWN_NODE;
    entry &= SH_PAGEMAP_FRAME;
    if (only_folios && (sh_read_pagemap(range->kpageflags, &flags, sizeof flags,
                                        entry * sizeof flags) != sizeof flags ||
                        !(flags & FLAG_THP) || (flags & FLAG_ZERO_PAGE)))
        return SH_UNKNOWN_NODE;
    return sh_node_of_frame(range, entry);
}

/* The end of the next read, at most `end`: a huge page must not span two reads. */
static uint64_t before_torn_folio(const struct sh_range *range, uint64_t start, uint64_t end)
{
    uint64_t aligned = range->folio_size ? end / range->folio_size * range->folio_size : end;

    return aligned > start ? aligned : end;
}

static int read_more(struct sh_scanner *scanner)
{
    const struct sh_range *range = scanner->range;
    uint64_t base = range->base_size, end = scanner->until;
    size_t wanted;
    ssize_t got;

    if (range->page_size > base) { /* hugetlb: the entry of each page's head suffices */
        end = scanner->position + range->page_size;
        wanted = 1;
    } else {
        if (end - scanner->position > scanner->entry_room * base) {
            end = scanner->position + scanner->entry_room * base;
            end = before_torn_folio(range, scanner->position, end);
        }
        wanted = (end - scanner->position) / base;
    }
    do
        got = sh_read_pagemap(range->pagemap, scanner->entries, wanted * sizeof(uint64_t),
                              scanner->position / base * sizeof(uint64_t));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno;
    if ((size_t)got < sizeof(uint64_t)) /* the address space is gone */
        return ESRCH;
    scanner->entries_start = scanner->position;
    if ((size_t)got / sizeof(uint64_t) < wanted) {
        end = scanner->position + (size_t)got / sizeof(uint64_t) * base;
        end = before_torn_folio(range, scanner->position, end);
    }
    scanner->entries_end = end;
    return 0;
}

static int next_read(struct sh_scanner *scanner, struct sh_page *page)
{
    const struct sh_range *range = scanner->range;

    while (scanner->position < scanner->until || next_extents(scanner)) {
        if (scanner->position >= scanner->entries_end) {
            int error = read_more(scanner);
            if (error)
                return error;
        }
        uint64_t address = scanner->position;
        size_t index = (address - scanner->entries_start) / range->base_size;

        page->address = address;
        page->size = range->page_size;
        if (!(scanner->entries[index] & SH_PAGEMAP_PRESENT)) {
            scanner->position += page->size;
            continue;
        }
        page->entry = scanner->entries[index];
        page->is_zero = false;
        if (folio_fits(range, address, scanner->entries_end)) {
            uint64_t flags = folio_flags(scanner, &scanner->entries[index],
                                         range->folio_size / range->base_size);

            if (flags)
                page->size = range->folio_size;
            page->is_zero = flags & FLAG_ZERO_PAGE;
        }
        page->node = sh_node_of_frame(range, scanner->entries[index] & SH_PAGEMAP_FRAME);
        scanner->position += page->size;
        return 0;
    }
    page->size = 0;
    return 0;
}

int sh_scanner_next(struct sh_scanner *scanner, struct sh_page *page)
{
    return scanner->range->use_scan ? next_scanned(scanner, page) : next_read(scanner, page);
}

void sh_scanner_return(struct sh_scanner *scanner, const struct sh_page *page)
{
    scanner->position = page->address;
}

bool sh_can_scan(int pagemap)
{
    struct scan_arguments arguments = {.size = sizeof arguments};

    return sh_scan_pagemap(pagemap, &arguments) == 0;
}
