#include "scanner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGEMAP_ENTRIES 4096
#define SCAN_PAGES 16384 /* limits how long one scan holds the target's mmap lock */
#define NEAR 256         /* base pages: to look at so many costs about as much as one more call */

/* /proc/kpageflags */
#define FLAG_COMPOUND_HEAD (1ull << 15)
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

bool sh_tells_folios(const struct sh_range *range)
{
    return range->kpageflags >= 0 && range->folio_size && range->page_size == range->base_size;
}

void sh_scanner_close(struct sh_scanner *scanner)
{
    free(scanner->entries);
    free(scanner->flags);
}

int sh_scanner_open(struct sh_scanner *scanner, const struct sh_range *range)
{
    memset(scanner, 0, sizeof *scanner);
    scanner->range = range;
    scanner->position = scanner->walked = range->start;
    scanner->until = range->end;
    scanner->entries_start = scanner->entries_end = range->start;
    if (!range->use_scan || sh_tells_folios(range)) {
        scanner->entry_room = PAGEMAP_ENTRIES;
        if (2 * range->folio_size / range->base_size > scanner->entry_room)
            scanner->entry_room = 2 * range->folio_size / range->base_size;
        scanner->entries = malloc(scanner->entry_room * sizeof *scanner->entries);
        scanner->flags = malloc(scanner->entry_room * sizeof *scanner->flags);
        if (!scanner->entries || !scanner->flags) {
            sh_scanner_close(scanner);
            return SH_NO_LOCAL_MEMORY;
        }
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

/* Make `region` the next one that ends after the position, or let there be none. */
static int next_region(struct sh_scanner *scanner, const struct sh_scan_region **region)
{
    for (;;) {
        for (; scanner->region < scanner->region_count; scanner->region++) {
            *region = &scanner->regions[scanner->region];
            if (scanner->position < (*region)->end) {
                if (scanner->position < (*region)->start)
                    scanner->position = (*region)->start;
                return 0;
            }
        }
        *region = NULL;
        if (scanner->walked >= scanner->until) {
            if (scanner->position < scanner->until)
                scanner->position = scanner->until;
            if (!next_extents(scanner))
                return 0;
            scanner->walked = scanner->position;
        }
        int error = scan_more(scanner);
        if (error)
            return error;
    }
}

/* Return the next page without a look at its entry in pagemap. */
static int next_scanned(struct sh_scanner *scanner, struct sh_page *page)
{
    const struct sh_range *range = scanner->range;
    const struct sh_scan_region *region;
    int error = next_region(scanner, &region);

    *page = (struct sh_page){.address = scanner->position, .node = SH_UNKNOWN_NODE};
    if (error || !region)
        return error;
    page->size = range->page_size;
    if ((region->categories & SCAN_IS_HUGE) && folio_fits(range, page->address, region->end))
        page->size = range->folio_size;
    scanner->position += page->size;
    return 0;
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
    if (only_folios && (range->kpageflags < 0 ||
                        sh_read_pagemap(range->kpageflags, &flags, sizeof flags,
                                        entry * sizeof flags) != sizeof flags ||
                        !(flags & FLAG_THP) || (flags & FLAG_ZERO_PAGE)))
        return SH_UNKNOWN_NODE;
    return sh_node_of_frame(range, entry);
}

/* Read the entries of [position, end), or as many as there is room for. */
static int read_more(struct sh_scanner *scanner, uint64_t end)
{
    const struct sh_range *range = scanner->range;
    uint64_t base = range->base_size, step = base;
    size_t wanted = (end - scanner->position) / base, count = 0;
    ssize_t got;

    if (range->page_size > base) { /* hugetlb: the entry of each page's head suffices */
        step = range->page_size;
        wanted = 1;
    } else if (wanted > scanner->entry_room) {
        wanted = scanner->entry_room;
    }
    while (count < wanted) {
        got = sh_read_pagemap(range->pagemap, scanner->entries + count,
                              (wanted - count) * sizeof(uint64_t),
                              (scanner->position / base + count) * sizeof(uint64_t));
        if (got < 0 && errno != EINTR)
            return errno;
        if (got >= 0 && (size_t)got < sizeof(uint64_t)) /* the address space is gone */
            return ESRCH;
        if (got > 0)
            count += (size_t)got / sizeof(uint64_t);
    }
    scanner->entries_start = scanner->row_end = scanner->position;
    scanner->entries_end = scanner->position + count * step;
    return 0;
}

/* Have the entry at the position, and those up to `end` if they must be read. */
static int have_entry(struct sh_scanner *scanner, uint64_t end)
{
    if (scanner->position >= scanner->entries_start && scanner->position < scanner->entries_end)
        return 0;
    return read_more(scanner, end);
}

static uint64_t *entry_at(const struct sh_scanner *scanner, uint64_t address)
{
    return &scanner->entries[(address - scanner->entries_start) / scanner->range->base_size];
}

static uint64_t *flags_at(const struct sh_scanner *scanner, uint64_t address)
{
    return &scanner->flags[(address - scanner->entries_start) / scanner->range->base_size];
}

/* Whether the pages at two addresses are in frames as far apart. */
static bool are_in_a_row(const struct sh_scanner *scanner, uint64_t first, uint64_t other)
{
    uint64_t entry = *entry_at(scanner, other), frame = *entry_at(scanner, first);

    return (entry & SH_PAGEMAP_PRESENT) &&
           (entry & SH_PAGEMAP_FRAME) ==
               (frame & SH_PAGEMAP_FRAME) + (other - first) / scanner->range->base_size;
}

/* Have `row_end`: up to there the frames of the pages from `address` on follow one another. */
static void find_row(struct sh_scanner *scanner, uint64_t address)
{
    uint64_t base = scanner->range->base_size;

    if (address < scanner->row_end)
        return;
    scanner->row_end = scanner->flags_end = address;
    do
        scanner->row_end += base;
    while (scanner->row_end < scanner->entries_end &&
           are_in_a_row(scanner, address, scanner->row_end));
}

/* Store the flags of frames; they are 0 if the kernel does not show them. */
static void read_flags(const struct sh_range *range, uint64_t frame, size_t count, uint64_t *flags)
{
    ssize_t size = (ssize_t)(count * sizeof *flags);

    if (sh_read_pagemap(range->kpageflags, flags, (size_t)size, frame * sizeof *flags) != size)
        memset(flags, 0, (size_t)size);
}

/* The base pages, at most `most`, of the folio whose first frame this is. It has a power of two of
 * them, and so many frames behind its first one is the first one that is no tail of it. */
static uint64_t folio_pages(const struct sh_range *range, uint64_t frame, uint64_t most)
{
    for (uint64_t pages = 1; pages < most; pages *= 2) {
        uint64_t flags;

        read_flags(range, frame + pages, 1, &flags);
        if (!(flags & FLAG_COMPOUND_TAIL))
            return pages;
    }
    return most;
}

/* The bytes from `address` on that are the same folio: its frames follow one another, and only its
 * first one is not flagged as a tail. Those of small pages can follow one another, too, so the
 * flags decide. To read them takes a fraction of the time of a move, so those of a page whose
 * neighbour is elsewhere are not read, and of what may be a large folio only a few. Without
 * permission to see frames (CAP_SYS_ADMIN) or flags, folios are taken for small pages, which takes
 * more calls and moves them as well. Sets `whole` to false if the folio may go on behind what was
 * read. */
static uint64_t folio_bytes(struct sh_scanner *scanner, uint64_t address, bool *whole,
                            uint64_t *flags)
{
    const struct sh_range *range = scanner->range;
    uint64_t base = range->base_size, end = address + base, most, large;
    uint64_t frame = *entry_at(scanner, address) & SH_PAGEMAP_FRAME;

    *whole = true;
    *flags = 0;
    if (!sh_tells_folios(range) || !frame)
        return base;
    find_row(scanner, address);
    if (scanner->row_end == end && end < scanner->entries_end)
        return base;
    most = (scanner->row_end - address) / base;
    large = range->folio_size / base;
    if (address >= scanner->flags_end && most >= large && frame % large == 0)
        read_flags(range, frame, 1, flags);
    if (*flags & FLAG_COMPOUND_HEAD) {
        end = address + folio_pages(range, frame, most) * base;
    } else {
        if (address >= scanner->flags_end) {
            read_flags(range, frame, most, flags_at(scanner, address));
            scanner->flags_end = scanner->row_end;
        }
        *flags = *flags_at(scanner, address);
        if (!(*flags & (FLAG_COMPOUND_HEAD | FLAG_COMPOUND_TAIL)))
            return base;
        while (end < scanner->flags_end && (*flags_at(scanner, end) & FLAG_COMPOUND_TAIL))
            end += base;
    }
    *whole = end < scanner->entries_end;
    return end - address;
}

/* Return the next present page whose entries are read, up to `limit`; its size is 0 if there is
 * none. A folio that goes on behind what was read is read again, as a whole, up to `read_end`. */
static int next_read(struct sh_scanner *scanner, uint64_t limit, uint64_t read_end,
                     struct sh_page *page)
{
    const struct sh_range *range = scanner->range;

    while (scanner->position < limit) {
        uint64_t address = scanner->position, flags;
        bool whole;
        int error = have_entry(scanner, read_end);

        if (error)
            return error;
        if (!(*entry_at(scanner, address) & SH_PAGEMAP_PRESENT)) {
            scanner->position += range->page_size;
            continue;
        }
        page->address = address;
        page->size = range->page_size;
        page->entry = *entry_at(scanner, address);
        page->node = sh_node_of_frame(range, page->entry & SH_PAGEMAP_FRAME);
        page->is_zero = false;
        if (range->page_size == range->base_size) {
            page->size = folio_bytes(scanner, address, &whole, &flags);
            page->is_zero = flags & FLAG_ZERO_PAGE;
            if (!whole && address > scanner->entries_start && scanner->entries_end < read_end) {
                scanner->entries_end = scanner->entries_start; /* read again from here */
                continue;
            }
        }
        scanner->position += page->size;
        return 0;
    }
    page->size = 0;
    return 0;
}

/* Return the page at the position, which a scan has found to be huge, from its first entry and the
 * flags of that frame; its size is 0 if it is no longer huge. They also tell the huge zero page,
 * which the scan of some kernels does not leave out. */
static int next_huge(struct sh_scanner *scanner, struct sh_page *page)
{
    const struct sh_range *range = scanner->range;
    int error = have_entry(scanner, scanner->position + range->base_size);
    uint64_t entry, frame, flags = 0;

    if (error)
        return error;
    entry = *entry_at(scanner, scanner->position);
    if (!(entry & SH_PAGEMAP_PRESENT))
        return 0;
    frame = entry & SH_PAGEMAP_FRAME;
    if (frame) {
        read_flags(range, frame, 1, &flags);
        if (frame % (range->folio_size / range->base_size) || !(flags & FLAG_COMPOUND_HEAD)) {
            scanner->entries_end = scanner->entries_start; /* all entries must be read */
            return 0;
        }
    }
    *page = (struct sh_page){.address = scanner->position,
                             .size = range->folio_size,
                             .node = sh_node_of_frame(range, frame),
                             .entry = entry,
                             .is_zero = flags & FLAG_ZERO_PAGE};
    scanner->position += page->size;
    return 0;
}

/* Return the next page of the regions that a scan finds, from its entry in pagemap. */
static int next_both(struct sh_scanner *scanner, struct sh_page *page)
{
    const struct sh_range *range = scanner->range;

    for (;;) {
        const struct sh_scan_region *region;
        uint64_t read_end;
        int error = next_region(scanner, &region);

        page->size = 0;
        if (error || !region)
            return error;
        if ((region->categories & SCAN_IS_HUGE) &&
            folio_fits(range, scanner->position, region->end)) {
            error = next_huge(scanner, page);
            if (error || page->size)
                return error;
        }
        read_end = region->end;
        if (read_end == scanner->walked) /* a folio can go on in the next region */
            read_end += range->end - read_end < range->folio_size ? range->end - read_end
                                                                  : range->folio_size;
        error = next_read(scanner, region->end, read_end, page);
        if (error || page->size)
            return error;
    }
}

int sh_scanner_next(struct sh_scanner *scanner, struct sh_page *page)
{
    const struct sh_range *range = scanner->range;

    if (range->use_scan)
        return sh_tells_folios(range) ? next_both(scanner, page) : next_scanned(scanner, page);
    page->size = 0;
    while (scanner->position < scanner->until || next_extents(scanner)) {
        int error = next_read(scanner, scanner->until, scanner->until, page);

        if (error || page->size)
            return error;
    }
    return 0;
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

uint64_t sh_boundary(const struct sh_range *range)
{
    struct sh_range whole = *range;
    struct sh_scanner scanner;
    uint64_t end = 0, flags = 0;
    bool is_whole;

    whole.start -= range->base_size; /* the page before the cut */
    whole.use_scan = false;
    if (!sh_tells_folios(range) || sh_scanner_open(&scanner, &whole))
        return 0;
    if (!read_more(&scanner, whole.end)) {
        uint64_t before = *entry_at(&scanner, whole.start);
        uint64_t behind = *entry_at(&scanner, range->start);

        if (before & SH_PAGEMAP_PRESENT) {
            if (before & SH_PAGEMAP_FRAME)
                end = whole.start + folio_bytes(&scanner, whole.start, &is_whole, &flags);
        } else if (!(behind & SH_PAGEMAP_PRESENT)) {
            end = range->start;
        } else if (behind & SH_PAGEMAP_FRAME) {
            /* A tail belongs to a folio whose pages before the cut are not mapped. */
            end = range->start;
            read_flags(range, behind & SH_PAGEMAP_FRAME, 1, &flags);
            if (flags & FLAG_COMPOUND_TAIL)
                end += folio_bytes(&scanner, range->start, &is_whole, &flags);
        }
    }
    sh_scanner_close(&scanner);
    return end;
}
