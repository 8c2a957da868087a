#include "engine.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(void *) == sizeof(uint64_t),
               "addresses are handed to the kernel as they are");

#define BATCH_ENTRIES 8192
#define PAGEMAP_ENTRIES 4096
#define SCAN_REGIONS 128
#define SCAN_PAGES 16384 /* bounds how long one scan holds the target's mmap lock */
#define FULL_AFTER 4
#define SMALLEST_BATCH (64u << 10)

/* No node and no errno: what a status holds until the kernel writes it; and what is noted for a
 * page that the kernel did not come to. */
#define UNTOUCHED INT_MIN
#define NOT_TRIED (INT_MIN + 1)
/* A page's node, when only a question to the kernel can tell. */
#define UNKNOWN (INT_MIN + 2)

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_FRAME ((1ull << 55) - 1)

/* /proc/kpageflags */
#define FLAG_COMPOUND_TAIL (1ull << 16)

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
    int node; /* UNKNOWN where no frame number was seen */
};

static void scanner_close(struct scanner *scanner)
{
    free(scanner->entries);
}

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

/* A whole transparent huge page may start at `address` and end within `limit`. */
static bool folio_fits(const struct sh_range *range, uint64_t address, uint64_t limit)
{
    return range->folio_size && range->page_size == range->base_size &&
           address % range->folio_size == 0 && limit - address >= range->folio_size;
}

/* The process has exited or replaced its address space: then pagemap reads as an empty file. */
static bool address_space_gone(const struct sh_range *range)
{
    uint64_t entry;
    ssize_t got;

    do
        got = sh_read_pagemap(range->pagemap, &entry, sizeof entry,
                              range->start / range->base_size * sizeof entry);
    while (got < 0 && errno == EINTR);
    return got == 0;
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
    /* A scan of an address space that is gone succeeds and finds nothing. */
    if (!found && address_space_gone(range))
        return ESRCH;
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
            uint64_t address =
                scanner->position > region->start ? scanner->position : region->start;

            if (address >= region->end) {
                scanner->region++;
                continue;
            }
            page->address = address;
            page->size = range->page_size;
            page->node = UNKNOWN;
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

/* Whether these entries are one transparent huge page. Its frames follow each other; so can those
 * of small pages, so the kernel's flags decide. Folios are aligned to their size: a frame half-way
 * that is no folio's first can only belong to one that covers all of these frames. Without the
 * right to see frames (CAP_SYS_ADMIN) or flags it goes as small pages, which costs more calls and
 * moves it all the same. */
static bool is_folio(const struct scanner *scanner, const uint64_t *entries, size_t count)
{
    uint64_t first = entries[0] & PAGEMAP_FRAME, flags;

    if (!first || first % count || scanner->range->kpageflags < 0)
        return false;
    for (size_t i = 1; i < count; i++)
        if (!(entries[i] & PAGEMAP_PRESENT) || (entries[i] & PAGEMAP_FRAME) != first + i)
            return false;
    return sh_read_pagemap(scanner->range->kpageflags, &flags, sizeof flags,
                           (first + count / 2) * sizeof flags) == sizeof flags &&
           (flags & FLAG_COMPOUND_TAIL);
}

/* The node that a frame belongs to, or UNKNOWN. */
static int node_of_frame(const struct sh_range *range, uint64_t frame)
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
            return frame ? (int)span->node : UNKNOWN;
    }
    return UNKNOWN;
}

/* Where to stop reading, at `end` at most: a huge page never lies across two reads. */
static uint64_t before_torn_folio(const struct sh_range *range, uint64_t start, uint64_t end)
{
    uint64_t aligned = range->folio_size ? end / range->folio_size * range->folio_size : end;

    return aligned > start ? aligned : end;
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
        if (!(scanner->entries[index] & PAGEMAP_PRESENT)) {
            scanner->position += page->size;
            continue;
        }
        if (folio_fits(range, address, scanner->entries_end) &&
            is_folio(scanner, &scanner->entries[index], range->folio_size / range->base_size))
            page->size = range->folio_size;
        page->node = node_of_frame(range, scanner->entries[index] & PAGEMAP_FRAME);
        scanner->position += page->size;
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

/* Make scanner_next return this page once more. */
static void scanner_return(struct scanner *scanner, const struct page *page)
{
    scanner->position = page->address;
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
    int node[BATCH_ENTRIES];   /* where each was when last asked, or a negative errno */
    int before[BATCH_ENTRIES]; /* where each was before the move, -1: counted already */
    int error[BATCH_ENTRIES];  /* why a huge page stayed, to be looked at closer */
    bool told[BATCH_ENTRIES];  /* the kernel itself said that it moved */
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
    unsigned *no_memory; /* [nodes]: calls in a row that gave ENOMEM and moved nothing there */
    struct batch batch, parts;
    struct group group;
};

/* Whether the number may mean another process by now. What was asked or done before is the right
 * one's where this is false afterwards, and may be another's where it is not. */
static bool is_anothers(const struct sh_range *range)
{
    return sh_exited(range->pidfd, range->task);
}

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

/* A page stayed. A huge one may have been split, and stayed only in part. */
static void stayed(struct mover *mover, struct batch *batch, size_t index, int error)
{
    if (batch->size[index] > mover->range->page_size)
        batch->error[index] = error;
    else
        add_failure(mover->result, batch->address[index], batch->size[index], error);
}

/* Let the batch follow the bound on a call's duration. A call of few pages says little about one
 * of many, so the batch grows only where twice its size at the same speed keeps the bound. */
static void adapt(struct mover *mover, uint64_t took, uint64_t bytes)
{
    const struct sh_options *options = mover->options;

    if (!options->call_ns)
        return;
    if (took > options->call_ns) {
        if (mover->batch_bytes > SMALLEST_BATCH)
            mover->batch_bytes /= 2;
    } else if (2.0 * (double)took * (double)mover->batch_bytes <=
               (double)options->call_ns * (double)bytes) {
        mover->batch_bytes *= 2;
        if (mover->batch_bytes > options->batch_bytes)
            mover->batch_bytes = options->batch_bytes;
    }
}

/* One move_pages call on the group, timed. */
static long submit(struct mover *mover, const struct batch *batch)
{
    struct group *group = &mover->group;
    uint64_t began = sh_now_ns(), bytes = 0;
    long left;

    for (size_t i = 0; i < group->count; i++) {
        group->status[i] = UNTOUCHED;
        bytes += batch->size[group->index[i]];
    }
    if (is_anothers(mover->range)) /* nothing comes between this and the call */
        return -ESRCH;
    left = sh_move_pages(mover->range->pid, group->count, group->page, group->node, group->status,
                         mover->options->flags);
    if (left < 0)
        left = -errno;
    mover->result->calls++;
    adapt(mover, sh_now_ns() - began, bytes);
    return left;
}

/* How many pages of the group the call came to. The kernel collects pages until one cannot be
 * collected (or is there already), writes that one's status, moves what it has and writes theirs;
 * it stops where such a move fails. So pages without a status ahead of one with mean that it
 * stopped at the latter; else those without a status are the last collection, which was tried. */
static size_t count_tried(const struct group *group)
{
    size_t first_open = group->count, last_told = 0;

    for (size_t i = 0; i < group->count; i++) {
        if (group->status[i] != UNTOUCHED)
            last_told = i;
        else if (first_open == group->count)
            first_open = i;
    }
    return first_open < last_told ? last_told : group->count;
}

/* Take out of the group what the kernel says has moved, and ask where the others are. An error is
 * not believed: a page that is busy may have gone with an earlier address of its folio, one that
 * is not there may just have been on its way. Pages without a status moved, failed, or were never
 * tried. */
static int settle(struct mover *mover, struct batch *batch, int node)
{
    struct group *group = &mover->group;
    size_t open = 0, tried = count_tried(group);

    for (size_t i = 0; i < group->count; i++) {
        size_t index = group->index[i];
        int status = group->status[i];

        if (status == node) {
            batch->node[index] = node;
            batch->told[index] = true;
            continue;
        }
        group->page[open] = group->page[i];
        group->index[open] = index;
        /* What the kernel said, beside what it answers now. */
        group->node[open] = status == UNTOUCHED && i >= tried ? NOT_TRIED : status;
        open++;
    }
    group->count = open;
    return ask(mover->range, open, group->page, group->status);
}

/* The errno of a page that was tried and is where it was. */
static int why(int said)
{
    if (said == -ENOENT) /* somebody else was about to move it */
        return EBUSY;
    return said == UNTOUCHED ? EAGAIN : -said;
}

/* One page can get ENOMEM for itself: a pinned huge page does, which the kernel wants to split.
 * Only when several calls in a row find no room, and nothing moves, is the node taken to be full.
 */
static bool is_full(const struct mover *mover, int node)
{
    return mover->no_memory[node] >= FULL_AFTER;
}

static void note_room(struct mover *mover, int node, long left)
{
    const struct group *group = &mover->group;
    bool moved = left >= 0;

    for (size_t i = 0; i < group->count && !moved; i++)
        moved = group->status[i] == node;
    mover->no_memory[node] = moved ? 0 : mover->no_memory[node] + 1;
}

/* Move what the group holds to `node`; afterwards batch->node says where each page is, and what
 * stayed has been counted. Returns 0 or the errno of a whole call. */
static int move_group(struct mover *mover, struct batch *batch, int node)
{
    struct group *group = &mover->group;

    while (group->count) {
        size_t again = 0;
        bool found_culprit = false;
        long left;
        int error;

        for (size_t i = 0; i < group->count; i++)
            group->node[i] = node;
        left = submit(mover, batch);
        if (left < 0 && left != -ENOMEM)
            return (int)-left;
        error = settle(mover, batch, node);
        if (error)
            return error;
        note_room(mover, node, left);
        for (size_t i = 0; i < group->count; i++) {
            size_t index = group->index[i];
            int said = group->node[i], now = group->status[i];
            bool silent = said == UNTOUCHED || said == NOT_TRIED;

            if (now != batch->node[index]) { /* moved after all, or gone, or moved by others */
                batch->node[index] = now;
            } else if (silent && left == -ENOMEM && (is_full(mover, node) || !found_culprit)) {
                /* The kernel goes by order, so it stopped at the first that is still there. */
                found_culprit = true;
                stayed(mover, batch, index, ENOMEM);
            } else if (said == NOT_TRIED || (silent && left == -ENOMEM)) {
                group->page[again] = group->page[i];
                group->index[again++] = index;
            } else {
                stayed(mover, batch, index, why(said));
            }
        }
        group->count = again;
    }
    return 0;
}

/* Where the pages of node `node` go, -1: they stay. */
static int destination_of(const struct sh_options *options, int node)
{
    if (node < 0 || (size_t)node >= options->nodes || options->destination[node] == node)
        return -1;
    return options->destination[node];
}

static int move_batch(struct mover *mover, struct batch *batch, int origin);

/* Fill `parts` with the pages of a huge page from `offset` on. Returns the next offset. */
static uint64_t take_parts(struct mover *mover, const struct batch *batch, size_t index,
                           uint64_t offset)
{
    struct batch *parts = &mover->parts;
    uint64_t base = mover->range->page_size;

    for (parts->count = 0; offset < batch->size[index] && parts->count < BATCH_ENTRIES;
         offset += base) {
        parts->address[parts->count] = batch->address[index] + offset;
        parts->size[parts->count++] = base;
    }
    return offset;
}

/* Move page by page what was a huge page on node `origin` (-1: unknown). One that is still whole
 * where it was is a failure, and not tried again: each of its addresses would fail alike. */
static int move_parts(struct mover *mover, struct batch *batch, size_t index, int origin)
{
    struct batch *parts = &mover->parts;
    uint64_t size = batch->size[index];
    bool whole = batch->error[index] != 0;
    int error;

    for (uint64_t offset = 0; whole && offset < size;) {
        offset = take_parts(mover, batch, index, offset);
        error = ask_batch(mover->range, parts);
        if (error)
            return error;
        for (size_t i = 0; i < parts->count; i++)
            whole = whole && parts->node[i] == origin;
    }
    if (whole) {
        add_failure(mover->result, batch->address[index], size, batch->error[index]);
        return 0;
    }
    for (uint64_t offset = 0; offset < size;) {
        offset = take_parts(mover, batch, index, offset);
        error = move_batch(mover, parts, origin);
        if (error)
            return error;
    }
    return 0;
}

static bool is_on_the_way(const struct mover *mover, const struct batch *batch, size_t index,
                          int origin)
{
    return batch->size[index] != mover->range->page_size &&
           (origin < 0 || destination_of(mover->options, origin) >= 0);
}

/* Look at both ends of the huge pages of which the kernel says that they moved: it may have moved a
 * split one's head only. Those not whole are no longer `told`. */
static int probe_huge_pages(struct mover *mover, struct batch *batch, const int *before)
{
    struct group *group = &mover->group;
    uint64_t base = mover->range->page_size;

    for (size_t next = 0; next < batch->count;) {
        int error;

        for (group->count = 0; next < batch->count && group->count < BATCH_ENTRIES; next++) {
            uint64_t address = batch->address[next];

            if (!batch->told[next] || !is_on_the_way(mover, batch, next, before[next]))
                continue;
            group->page[group->count] = (void *)(uintptr_t)(address + base);
            group->index[group->count++] = next;
            group->page[group->count] = (void *)(uintptr_t)(address + batch->size[next] - base);
            group->index[group->count++] = next;
        }
        error = ask(mover->range, group->count, group->page, group->status);
        if (error)
            return error;
        for (size_t i = 0; i < group->count; i++)
            if (group->status[i] != batch->node[group->index[i]])
                batch->told[group->index[i]] = false;
    }
    return 0;
}

/* Huge pages that the kernel may have split: it does so where the destination has no free huge
 * page, or the process gave back a part. `before` is set to -1 for those that were counted here. */
static int finish_huge_pages(struct mover *mover, struct batch *batch, int *before)
{
    int error = probe_huge_pages(mover, batch, before);

    for (size_t i = 0; i < batch->count && !error; i++) {
        int origin = before[i];

        if (batch->told[i] || !is_on_the_way(mover, batch, i, origin))
            continue;
        error = move_parts(mover, batch, i, origin);
        before[i] = -1;
    }
    return error;
}

/* Whether the frames have told where all pages are. The zero page has a frame, too, and stays: what
 * is not even tried, since its destination is full, has to be asked for. */
static bool is_known(const struct mover *mover, const struct batch *batch)
{
    if (batch == &mover->parts)
        return false;
    for (size_t i = 0; i < batch->count; i++) {
        int target = destination_of(mover->options, batch->node[i]);

        if (batch->node[i] == UNKNOWN || (target >= 0 && is_full(mover, target)))
            return false;
    }
    return true;
}

/* Ask where the batch's pages are, unless their frames have told, and move those that should.
 * `origin`: they are parts of what was a huge page there, so those at its destination have moved
 * already; -1: nothing is known. */
static int move_batch(struct mover *mover, struct batch *batch, int origin)
{
    const struct sh_options *options = mover->options;
    int *before = batch->before;
    int error = is_known(mover, batch) ? 0 : ask_batch(mover->range, batch);

    if (!error && is_anothers(mover->range))
        error = ESRCH;
    if (error)
        return error;
    for (size_t i = 0; i < batch->count; i++) {
        before[i] = batch->node[i];
        batch->error[i] = 0;
        batch->told[i] = false;
        if (origin >= 0 && before[i] != origin) {
            if (before[i] == destination_of(options, origin))
                mover->result->moved[origin] += batch->size[i];
            before[i] = -1;
        }
    }
    for (size_t target = 0; target < options->nodes; target++) {
        struct group *group = &mover->group;

        group->count = 0;
        for (size_t i = 0; i < batch->count; i++) {
            if (destination_of(options, before[i]) != (int)target)
                continue;
            if (is_full(mover, (int)target)) {
                stayed(mover, batch, i, ENOMEM);
                continue;
            }
            group->page[group->count] = (void *)(uintptr_t)batch->address[i];
            group->index[group->count++] = i;
        }
        error = move_group(mover, batch, (int)target);
        if (error)
            break;
    }
    if (!error && batch != &mover->parts)
        error = finish_huge_pages(mover, batch, before);
    if (is_anothers(mover->range)) /* whose pages these answers are about, nobody knows */
        return ESRCH;
    for (size_t i = 0; i < batch->count; i++) {
        int target = destination_of(options, before[i]);

        if (target >= 0 && batch->node[i] == target)
            mover->result->moved[before[i]] += batch->size[i];
    }
    return error;
}

/* Whether the page is among those that are meant. Pages come in ascending order, so `next` is the
 * first extent that can hold one. A huge page is meant as a whole or not at all. */
static bool is_meant(const struct sh_options *options, const struct page *page, size_t *next)
{
    if (!options->only_count)
        return true;
    while (*next < options->only_count && options->only[*next].end <= page->address)
        ++*next;
    return *next < options->only_count && options->only[*next].start <= page->address &&
           page->address + page->size <= options->only[*next].end;
}

/* What ended a sweep. Of a process whose address space is gone the kernel says EINVAL, and of one
 * that has become another program perhaps that it may not be touched. */
static int explain(const struct sh_range *range, int error)
{
    return error && address_space_gone(range) ? ESRCH : error;
}

int sh_sweep(const struct sh_range *range, const struct sh_options *options,
             struct sh_result *result)
{
    struct scanner scanner;
    struct mover *mover = NULL;
    size_t extent = 0;
    int error = scanner_open(&scanner, range);

    if (error)
        return error;
    mover = calloc(1, sizeof *mover);
    if (mover)
        mover->no_memory = calloc(options->nodes, sizeof *mover->no_memory);
    if (!mover || !mover->no_memory) {
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
        while (batch->count < BATCH_ENTRIES) {
            error = scanner_next(&scanner, &page);
            more = !error && page.size;
            if (!more)
                break;
            if (!is_meant(options, &page, &extent))
                continue;
            if (batch->count && gathered + page.size > mover->batch_bytes) {
                scanner_return(&scanner, &page);
                break;
            }
            batch->address[batch->count] = page.address;
            batch->node[batch->count] = page.node;
            batch->size[batch->count++] = page.size;
            gathered += page.size;
        }
        if (!error)
            error = move_batch(mover, batch, -1);
    }
out:
    if (mover)
        free(mover->no_memory);
    free(mover);
    scanner_close(&scanner);
    return explain(range, error);
}

/* ---- asking --------------------------------------------------------------------------------- */

static int add_run(struct sh_runs *runs, uint64_t start, uint64_t page_size, int node)
{
    uint64_t end = start + page_size;

    if (runs->count) {
        struct sh_run *last = &runs->items[runs->count - 1];

        if (last->end == start && last->node == node && last->page_size == page_size) {
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
    runs->items[runs->count++] =
        (struct sh_run){.start = start, .end = end, .page_size = page_size, .node = node};
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
        if (!error && is_anothers(range))
            error = ESRCH;
        for (size_t i = 0; !error && i < batch->count; i++)
            if (batch->node[i] >= 0)
                error = add_run(runs, batch->address[i], batch->size[i], batch->node[i]);
    }
    free(batch);
    scanner_close(&scanner);
    return explain(range, error);
}
