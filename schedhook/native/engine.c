#include "engine.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(void *) == sizeof(uint64_t), "addresses are handed to the kernel as they are");

#define BATCH_ENTRIES 4096
#define PAGEMAP_ENTRIES 4096
#define SCAN_REGIONS 128
#define SCAN_PAGES 16384 /* bounds how long one scan holds the target's mmap lock */
#define SMALLEST_BATCH (64u << 10)

/* No node and no errno: what a status holds until the kernel writes it. */
#define UNTOUCHED INT_MIN

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_FRAME ((1ull << 55) - 1)

/* Linux 6.7's struct page_region and struct pm_scan_arg, and the categories used here. */
struct scan_region {
    uint64_t start, end, categories;
};

struct scan_arguments {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_IS_PRESENT (1u << 3)
#define SCAN_IS_ZERO_FRAME (1u << 5)
#define SCAN_IS_HUGE (1u << 6)

/* ---- finding present pages ------------------------------------------------------------------ */

struct scanner {
    const struct sh_range *range;
    uint64_t position; /* next address to hand out */
    /* PAGEMAP_SCAN */
    struct scan_region regions[SCAN_REGIONS];
    size_t region, region_count;
    uint64_t walked; /* scanned up to here */
    /* pagemap as text of 64-bit entries */
    uint64_t *entries;
    size_t entry_room;
    uint64_t entries_start, entries_end; /* addresses that `entries` describes */
};

struct page {
    uint64_t address;
    uint64_t size;
};

static int scanner_open(struct scanner *scanner, const struct sh_range *range)
{
    memset(scanner, 0, sizeof *scanner);
    scanner->range = range;
    scanner->position = scanner->walked = range->start;
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

static void scanner_close(struct scanner *scanner)
{
    free(scanner->entries);
}

/* A whole transparent huge page may start at `address` and end within `limit`. */
static bool folio_fits(const struct sh_range *range, uint64_t address, uint64_t limit)
{
    return range->folio_size && range->page_size == range->base_size &&
           address % range->folio_size == 0 && limit - address >= range->folio_size;
}

static int scan_more(struct scanner *scanner)
{
    const struct sh_range *range = scanner->range;
    struct scan_arguments arguments = {
        .size = sizeof arguments,
        .start = scanner->walked,
        .end = range->end,
        .regions = (uint64_t)(uintptr_t)scanner->regions,
        .region_count = SCAN_REGIONS,
        .max_pages = SCAN_PAGES,
        .category_inverted = SCAN_IS_ZERO_FRAME,
        .category_mask = SCAN_IS_PRESENT | SCAN_IS_ZERO_FRAME,
        .return_mask = SCAN_IS_PRESENT | SCAN_IS_HUGE,
    };
    int found;

    /* A hugetlb page is counted as its base pages: leave room for one at least. */
    if (range->page_size / range->base_size > arguments.max_pages)
        arguments.max_pages = range->page_size / range->base_size;
    do
        found = sh_scan_pagemap(range->pagemap, &arguments);
    while (found < 0 && errno == EINTR);
    if (found < 0)
        return errno;
    scanner->region = 0;
    scanner->region_count = (size_t)found;
    scanner->walked = arguments.walk_end > scanner->walked ? arguments.walk_end : range->end;
    return 0;
}

static int next_scanned(struct scanner *scanner, struct page *page)
{
    const struct sh_range *range = scanner->range;

    for (;;) {
        while (scanner->region < scanner->region_count) {
            const struct scan_region *region = &scanner->regions[scanner->region];
            uint64_t address = scanner->position > region->start ? scanner->position : region->start;

            if (address >= region->end) {
                scanner->region++;
                continue;
            }
            page->address = address;
            page->size = range->page_size;
            if ((region->categories & SCAN_IS_HUGE) && folio_fits(range, address, region->end))
                page->size = range->folio_size;
            scanner->position = address + page->size;
            return 0;
        }
        if (scanner->walked >= range->end) {
            page->size = 0;
            return 0;
        }
        int error = scan_more(scanner);
        if (error)
            return error;
    }
}

/* Frames that follow each other from an aligned one: a transparent huge page, or small pages that
 * look like one, which the mover finds out when only the first of them has moved. */
static bool looks_like_folio(const uint64_t *entries, size_t count)
{
    uint64_t first = entries[0] & PAGEMAP_FRAME;

    if (!first || first % count) /* frames read as 0 without CAP_SYS_ADMIN */
        return false;
    for (size_t i = 1; i < count; i++)
        if (!(entries[i] & PAGEMAP_PRESENT) || (entries[i] & PAGEMAP_FRAME) != first + i)
            return false;
    return true;
}

static int read_more(struct scanner *scanner)
{
    const struct sh_range *range = scanner->range;
    uint64_t base = range->base_size, end = range->end;
    size_t wanted;
    ssize_t got;

    if (range->page_size > base) { /* hugetlb: the entry of each page's head says it all */
        end = scanner->position + range->page_size;
        wanted = 1;
    } else {
        if (end - scanner->position > scanner->entry_room * base) {
            end = scanner->position + scanner->entry_room * base;
            /* A huge page never lies across two reads. */
            if (range->folio_size && end / range->folio_size * range->folio_size > scanner->position)
                end = end / range->folio_size * range->folio_size;
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
    scanner->entries_end = range->page_size > base
                               ? end
                               : scanner->position + (size_t)got / sizeof(uint64_t) * base;
    return 0;
}

static int next_read(struct scanner *scanner, struct page *page)
{
    const struct sh_range *range = scanner->range;

    while (scanner->position < range->end) {
        if (scanner->position >= scanner->entries_end) {
            int error = read_more(scanner);
            if (error)
                return error;
        }
        uint64_t address = scanner->position;
        size_t index = (address - scanner->entries_start) / range->base_size;

        page->address = address;
        page->size = range->page_size;
        if ((scanner->entries[index] & PAGEMAP_PRESENT) &&
            folio_fits(range, address, scanner->entries_end) &&
            looks_like_folio(&scanner->entries[index], range->folio_size / range->base_size))
            page->size = range->folio_size;
        scanner->position += page->size;
        if (scanner->entries[index] & PAGEMAP_PRESENT)
            return 0;
    }
    page->size = 0;
    return 0;
}

/* The next present page or huge page; size 0 at the end. Returns 0 or errno. */
static int scanner_next(struct scanner *scanner, struct page *page)
{
    return scanner->range->use_scan ? next_scanned(scanner, page) : next_read(scanner, page);
}

bool sh_can_scan(int pagemap)
{
    struct scan_arguments arguments = {.size = sizeof arguments};

    return sh_scan_pagemap(pagemap, &arguments) == 0;
}

/* ---- moving --------------------------------------------------------------------------------- */

struct batch {
    size_t count;
    uint64_t address[BATCH_ENTRIES];
    uint64_t size[BATCH_ENTRIES];
    int node[BATCH_ENTRIES]; /* where each was when asked, or a negative errno */
};

/* Pages of a batch on their way to one node: what is handed to the kernel. */
struct group {
    size_t count;
    void *page[BATCH_ENTRIES];
    int node[BATCH_ENTRIES];
    int status[BATCH_ENTRIES];
    size_t index[BATCH_ENTRIES]; /* in the batch */
};

struct mover {
    const struct sh_range *range;
    const struct sh_options *options;
    struct sh_result *result;
    uint64_t batch_bytes;
    bool *full; /* [nodes]: that destination gave ENOMEM */
    struct batch batch, parts;
    struct group group;
};

static int ask(const struct sh_range *range, size_t count, void *const *pages, int *status)
{
    if (count && sh_move_pages(range->pid, count, pages, NULL, status, 0) < 0)
        return errno;
    return 0;
}

static int ask_batch(const struct sh_range *range, struct batch *batch)
{
    return ask(range, batch->count, (void *const *)(uintptr_t)batch->address, batch->node);
}

static void add_failure(struct sh_result *result, uint64_t address, uint64_t size, int error)
{
    struct sh_failure *same = NULL;

    for (size_t i = result->failure_count; i-- > 0;)
        if (result->failures[i].error == error) {
            same = &result->failures[i];
            break;
        }
    /* Out of room: the last range of this error grows to cover the page. The last slots are for
     * errors that have no range yet. */
    bool room = result->failure_count < (same ? SH_MAX_FAILURES - 32 : SH_MAX_FAILURES);
    if (same && (same->end == address || !room)) {
        same->start = address < same->start ? address : same->start;
        same->end = address + size > same->end ? address + size : same->end;
        same->size += size;
        same->page_size = size;
        return;
    }
    if (!room) { /* more kinds of errors than there are: count it with the last */
        same = &result->failures[SH_MAX_FAILURES - 1];
        same->start = address < same->start ? address : same->start;
        same->end = address + size > same->end ? address + size : same->end;
        same->size += size;
        return;
    }
    result->failures[result->failure_count++] = (struct sh_failure){
        .start = address, .end = address + size, .size = size, .page_size = size, .error = error};
}

/* One move_pages call on the group, timed; the batch follows the bound on a call's duration. */
static long submit(struct mover *mover)
{
    struct group *group = &mover->group;
    uint64_t began = sh_now_ns(), took;
    long left;

    for (size_t i = 0; i < group->count; i++)
        group->status[i] = UNTOUCHED;
    left = sh_move_pages(mover->range->pid, group->count, group->page, group->node, group->status,
                         mover->options->flags);
    if (left < 0)
        left = -errno;
    took = sh_now_ns() - began;
    mover->result->calls++;
    if (took > mover->result->longest_ns)
        mover->result->longest_ns = took;
    if (mover->options->call_ns) {
        if (took > mover->options->call_ns && mover->batch_bytes > SMALLEST_BATCH)
            mover->batch_bytes /= 2;
        else if (took < mover->options->call_ns / 2 &&
                 mover->batch_bytes < mover->options->batch_bytes)
            mover->batch_bytes *= 2;
    }
    return left;
}

/* Sort the group's pages by what became of them. Those that must be sent again stay in the group.
 * A status of EBUSY is not believed: the page may have gone with an earlier address of its folio.
 * Pages without a status were moved, failed, or were never tried: only asking tells. */
static int settle(struct mover *mover, struct batch *batch, int node, size_t *refused)
{
    struct group *group = &mover->group;
    size_t open = 0;
    static const int no_answer = UNTOUCHED;

    *refused = 0;
    for (size_t i = 0; i < group->count; i++) {
        size_t index = group->index[i];
        int status = group->status[i];

        if (status == node) {
            batch->node[index] = node;
            continue;
        }
        if (status < 0 && status != no_answer) {
            ++*refused;
            if (status == -ENOENT || status == -EFAULT) { /* the process let go of it */
                batch->node[index] = status;
                continue;
            }
        }
        group->page[open] = group->page[i];
        group->index[open] = index;
        group->node[open] = status; /* what the kernel said, until it is asked again */
        open++;
    }
    group->count = open;
    return ask(mover->range, open, group->page, group->status);
}

/* Move what the group holds to `node`; afterwards batch->node says where each page is, and what
 * stayed has been counted. Returns 0 or the errno of a whole call. */
static int move_group(struct mover *mover, struct batch *batch, int node)
{
    struct group *group = &mover->group;

    while (group->count) {
        size_t refused, again = 0;
        long left;
        int error;

        if (sh_exited(mover->range->pidfd))
            return ESRCH;
        for (size_t i = 0; i < group->count; i++)
            group->node[i] = node;
        left = submit(mover);
        if (left < 0 && left != -ENOMEM)
            return (int)-left;
        error = settle(mover, batch, node, &refused);
        if (error)
            return error;
        for (size_t i = 0; i < group->count; i++) {
            size_t index = group->index[i];
            int before = batch->node[index], said = group->node[i], now = group->status[i];

            if (now != before) { /* moved after all, or gone, or moved by somebody else */
                batch->node[index] = now;
            } else if (said != UNTOUCHED) {
                add_failure(mover->result, batch->address[index], batch->size[index],
                            said < 0 ? -said : EAGAIN);
            } else if (left == -ENOMEM) {
                mover->full[node] = true;
                add_failure(mover->result, batch->address[index], batch->size[index], ENOMEM);
            } else if (!refused) {
                /* No isolation error cut the call short: it was tried, and the move failed. */
                add_failure(mover->result, batch->address[index], batch->size[index], EAGAIN);
            } else {
                group->page[again] = group->page[i];
                group->index[again] = index;
                again++;
            }
        }
        group->count = again;
    }
    return 0;
}

static int move_batch(struct mover *mover, struct batch *batch, bool whole_folios);

/* Small pages that looked like a huge one, or a huge page that the kernel split: only its first
 * page has moved. The others are asked for and moved one by one. */
static int finish_split_folios(struct mover *mover, struct batch *batch, const int *before)
{
    const struct sh_range *range = mover->range;

    for (size_t i = 0; i < batch->count; i++) {
        uint64_t size = batch->size[i], base = range->page_size;
        void *probe[2];
        int where[2], node = batch->node[i], error;

        if (size == base || before[i] == node || node < 0)
            continue;
        probe[0] = (void *)(uintptr_t)(batch->address[i] + base);
        probe[1] = (void *)(uintptr_t)(batch->address[i] + size - base);
        error = ask(range, 2, probe, where);
        if (error)
            return error;
        if (where[0] == node && where[1] == node)
            continue;
        batch->size[i] = base;
        for (uint64_t offset = base; offset < size;) {
            struct batch *parts = &mover->parts;

            parts->count = 0;
            for (; offset < size && parts->count < BATCH_ENTRIES; offset += base) {
                parts->address[parts->count] = batch->address[i] + offset;
                parts->size[parts->count++] = base;
            }
            error = move_batch(mover, parts, false);
            if (error)
                return error;
        }
    }
    return 0;
}

static int move_batch(struct mover *mover, struct batch *batch, bool whole_folios)
{
    const struct sh_options *options = mover->options;
    int before[BATCH_ENTRIES];
    int error = ask_batch(mover->range, batch);

    if (error)
        return error;
    memcpy(before, batch->node, batch->count * sizeof *before);
    for (size_t target = 0; target < options->nodes; target++) {
        struct group *group = &mover->group;

        group->count = 0;
        for (size_t i = 0; i < batch->count; i++) {
            int node = before[i];

            if (node < 0 || (size_t)node >= options->nodes || node == (int)target ||
                options->destination[node] != (int)target)
                continue;
            if (mover->full[target]) {
                add_failure(mover->result, batch->address[i], batch->size[i], ENOMEM);
                continue;
            }
            group->page[group->count] = (void *)(uintptr_t)batch->address[i];
            group->index[group->count++] = i;
        }
        error = move_group(mover, batch, (int)target);
        if (error)
            break;
    }
    if (!error && whole_folios)
        error = finish_split_folios(mover, batch, before);
    for (size_t i = 0; i < batch->count; i++) {
        int node = before[i];

        if (node >= 0 && (size_t)node < options->nodes && batch->node[i] != node &&
            batch->node[i] == options->destination[node])
            mover->result->moved[node] += batch->size[i];
    }
    return error;
}

int sh_sweep(const struct sh_range *range, const struct sh_options *options,
             struct sh_result *result)
{
    struct scanner scanner;
    struct mover *mover = NULL;
    int error = scanner_open(&scanner, range);

    if (error)
        return error;
    mover = calloc(1, sizeof *mover);
    if (mover)
        mover->full = calloc(options->nodes, sizeof *mover->full);
    if (!mover || !mover->full) {
        error = SH_NO_LOCAL_MEMORY;
        goto out;
    }
    mover->range = range;
    mover->options = options;
    mover->result = result;
    mover->batch_bytes = options->batch_bytes;
    /* With a bound on the call's duration, start small and grow. */
    if (options->call_ns && mover->batch_bytes > 16 * SMALLEST_BATCH)
        mover->batch_bytes = 16 * SMALLEST_BATCH;

    for (bool more = true; more && !error;) {
        struct batch *batch = &mover->batch;
        uint64_t gathered = 0;
        struct page page;

        batch->count = 0;
        while (batch->count < BATCH_ENTRIES && gathered < mover->batch_bytes) {
            error = scanner_next(&scanner, &page);
            more = !error && page.size;
            if (!more)
                break;
            batch->address[batch->count] = page.address;
            batch->size[batch->count++] = page.size;
            gathered += page.size;
        }
        if (!error)
            error = move_batch(mover, batch, true);
    }
out:
    if (mover)
        free(mover->full);
    free(mover);
    scanner_close(&scanner);
    return error;
}

/* ---- asking --------------------------------------------------------------------------------- */

static int add_run(struct sh_runs *runs, uint64_t start, uint64_t end, int node)
{
    if (runs->count) {
        struct sh_run *last = &runs->items[runs->count - 1];

        if (last->end == start && last->node == node) {
            last->end = end;
            return 0;
        }
    }
    if (runs->count == runs->room) {
        size_t room = runs->room ? 2 * runs->room : 64;
        struct sh_run *items = realloc(runs->items, room * sizeof *items);

        if (!items)
            return SH_NO_LOCAL_MEMORY;
        runs->items = items;
        runs->room = room;
    }
    runs->items[runs->count++] = (struct sh_run){.start = start, .end = end, .node = node};
    return 0;
}

int sh_locate(const struct sh_range *range, struct sh_runs *runs)
{
    struct scanner scanner;
    struct batch *batch = NULL;
    int error = scanner_open(&scanner, range);

    if (error)
        return error;
    batch = malloc(sizeof *batch);
    if (!batch)
        error = SH_NO_LOCAL_MEMORY;
    for (bool more = true; more && !error;) {
        struct page page;

        batch->count = 0;
        while (batch->count < BATCH_ENTRIES) {
            error = scanner_next(&scanner, &page);
            more = !error && page.size;
            if (!more)
                break;
            batch->address[batch->count] = page.address;
            batch->size[batch->count++] = page.size;
        }
        if (!error)
            error = ask_batch(range, batch);
        for (size_t i = 0; !error && i < batch->count; i++)
            if (batch->node[i] >= 0)
                error = add_run(runs, batch->address[i], batch->address[i] + batch->size[i],
                                batch->node[i]);
    }
    free(batch);
    scanner_close(&scanner);
    return error;
}
