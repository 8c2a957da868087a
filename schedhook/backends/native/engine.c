#include "engine.h"
#include "locate.h"
#include "scanner.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

_Static_assert(sizeof(void *) == sizeof(uint64_t),
               "addresses are passed to the kernel as they are");

#define BATCH_ENTRIES 8192
#define FULL_AFTER 4
#define SMALLEST_BATCH (64u << 10)

/* Neither a node nor an errno: a status before the kernel has written it, and the status of a page
 * that the kernel did not reach. */
#define UNTOUCHED INT_MIN
#define NOT_TRIED (INT_MIN + 1)
/* That of a page that move_pages(2) finds neither in the move nor in a query: see sh_query(). Not
 * SH_UNKNOWN_NODE. */
#define HIDDEN (INT_MIN + 3)

/* ---- moving --------------------------------------------------------------------------------- */

struct batch {
    size_t count;
    uint64_t address[BATCH_ENTRIES];
    uint64_t size[BATCH_ENTRIES];
    int node[BATCH_ENTRIES];      /* where each was at the last query, or a negative errno */
    int before[BATCH_ENTRIES];    /* where each was before the move, -1: already counted */
    int error[BATCH_ENTRIES];     /* why a huge page stayed; its parts are checked later */
    bool reported[BATCH_ENTRIES]; /* the kernel reported that it moved */
    bool hidden[BATCH_ENTRIES];   /* the last query did not find it, and its frame gave the node */
};

/* The pages of a batch that go to one node: the arguments of a call. */
struct group {
    size_t count;
    void *page[BATCH_ENTRIES];
    int node[BATCH_ENTRIES];
    int status[BATCH_ENTRIES];
    size_t index[BATCH_ENTRIES]; /* in the batch */
    bool hidden[BATCH_ENTRIES];  /* as in the batch */
};

struct mover {
    const struct sh_range *range;
    const struct sh_options *options;
    struct sh_result *result;
    uint64_t batch_bytes;
    unsigned *no_memory; /* [nodes]: consecutive calls with ENOMEM that moved nothing there */
    struct batch batch, parts;
    struct group group;
};

/* Whether the number may mean another process. If this is false after a call, the call reached the
 * right process; if it is true, it may have reached another one. */
static bool may_be_another(const struct sh_range *range)
{
    return sh_exited(range->pidfd, range->task);
}

static int query_batch(const struct sh_range *range, struct batch *batch)
{
    return sh_query(range, batch->count, (void *const *)(uintptr_t)batch->address, batch->node,
                    batch->hidden);
}

static void add_failure(struct sh_result *result, uint64_t address, uint64_t size, int error)
{
    struct sh_failure *same = NULL;

    for (size_t i = result->failure_count; i-- > 0;)
        if (result->failures[i].error == error) {
            same = &result->failures[i];
            break;
        }
    /* Without room, the last range of this error is extended to the page. The last slots are
     * reserved for errors that have no range yet. */
    bool room = result->failure_count < (same ? SH_MAX_FAILURES - 32 : SH_MAX_FAILURES);
    if (same && (same->end == address || !room)) {
        same->start = address < same->start ? address : same->start;
        same->end = address + size > same->end ? address + size : same->end;
        same->size += size;
        same->page_size = size;
        return;
    }
    if (!room) { /* more different errors than exist: count it with the last */
        same = &result->failures[SH_MAX_FAILURES - 1];
        same->start = address < same->start ? address : same->start;
        same->end = address + size > same->end ? address + size : same->end;
        same->size += size;
        return;
    }
    result->failures[result->failure_count++] = (struct sh_failure){
        .start = address, .end = address + size, .size = size, .page_size = size, .error = error};
}

/* Count a page that stayed. A huge page may have been split, so that only parts stayed. */
static void stayed(struct mover *mover, struct batch *batch, size_t index, int error)
{
    if (batch->size[index] > mover->range->page_size)
        batch->error[index] = error;
    else
        add_failure(mover->result, batch->address[index], batch->size[index], error);
}

/* Adapt the batch size to the limit on a call's duration. A call for few pages says little about a
 * call for many, so the batch grows only if twice its size would keep the limit at this speed. */
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

/* Make one move_pages(2) call for the group, and adapt the batch size to its duration. */
static long submit(struct mover *mover, const struct batch *batch)
{
    struct group *group = &mover->group;
    uint64_t began = sh_now_ns(), bytes = 0;
    long left;

    for (size_t i = 0; i < group->count; i++) {
        group->status[i] = UNTOUCHED;
        bytes += batch->size[group->index[i]];
    }
    if (may_be_another(mover->range)) /* nothing must come between this and the call */
        return -ESRCH;
    left = sh_move_pages(mover->range->pid, group->count, group->page, group->node, group->status,
                         mover->options->flags);
    if (left < 0)
        left = -errno;
    mover->result->calls++;
    adapt(mover, sh_now_ns() - began, bytes);
    return left;
}

/* The number of pages of the group that the call reached. The kernel collects pages until one
 * cannot be collected (or is already there), writes the status of that page, moves the collected
 * pages and writes their status; it stops if such a move fails. So if pages without a status
 * precede one with a status, the call stopped at the latter; else the pages without a status are
 * the last collection, which was tried. */
static size_t count_tried(const struct group *group)
{
    size_t first_open = group->count, last_reported = 0;

    for (size_t i = 0; i < group->count; i++) {
        if (group->status[i] != UNTOUCHED)
            last_reported = i;
        else if (first_open == group->count)
            first_open = i;
    }
    return first_open < last_reported ? last_reported : group->count;
}

/* Remove the pages from the group that the kernel reports as moved, and query the others. An error
 * is not conclusive: a busy page may have moved with an earlier address of its folio, and a missing
 * one may have been in transit. Pages without a status moved, failed, or were not tried. */
static int settle(struct mover *mover, struct batch *batch, int node)
{
    struct group *group = &mover->group;
    size_t open = 0, tried = count_tried(group);
    int error;

    for (size_t i = 0; i < group->count; i++) {
        size_t index = group->index[i];
        int status = group->status[i];

        if (status == node) {
            batch->node[index] = node;
            batch->reported[index] = true;
            continue;
        }
        group->page[open] = group->page[i];
        group->index[open] = index;
        /* Keep what the kernel reported; the query below overwrites the status. */
        group->node[open] = status == UNTOUCHED && i >= tried ? NOT_TRIED : status;
        open++;
    }
    group->count = open;
    error = sh_query(mover->range, open, group->page, group->status, group->hidden);
    for (size_t i = 0; i < open && !error; i++)
        if (group->hidden[i] && (group->node[i] == -ENOENT || group->node[i] == -EFAULT))
            group->node[i] = HIDDEN;
    return error;
}

/* The errno of a page that was tried and did not move. */
static int why(int said)
{
    if (said == HIDDEN)
        return ENOENT;
    if (said == -ENOENT) /* another process, or the kernel, was moving it */
        return EBUSY;
    return said == UNTOUCHED ? EAGAIN : -said;
}

/* A single page can fail with ENOMEM, such as a pinned huge page that the kernel tries to split.
 * The node counts as full only if several consecutive calls find no room and move nothing. */
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

/* Move the pages of the group to `node`. Afterwards batch->node is where each page is, and pages
 * that stayed are counted. Returns 0 or the errno of a call that failed as a whole. */
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

            if (now !=
                batch->node[index]) { /* moved after all, or freed, or moved by another process */
                batch->node[index] = now;
            } else if (silent && left == -ENOMEM && (is_full(mover, node) || !found_culprit)) {
                /* The kernel proceeds in order, so it stopped at the first page that is still
                 * there. */
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

/* The destination of pages on `node`, -1: they stay. */
static int destination_of(const struct sh_options *options, int node)
{
    if (node < 0 || (size_t)node >= options->nodes || options->destination[node] == node)
        return -1;
    return options->destination[node];
}

static int move_batch(struct mover *mover, struct batch *batch, int origin);

/* Fill `parts` with the pages of a huge page from `offset` on. Returns the next offset. */
static uint64_t fill_parts(struct mover *mover, const struct batch *batch, size_t index,
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

/* Move, page by page, what was a huge page on node `origin` (-1: unknown). If it is still whole and
 * has not moved, it is a failure and is not retried: each of its addresses would fail equally. */
static int move_parts(struct mover *mover, struct batch *batch, size_t index, int origin)
{
    struct batch *parts = &mover->parts;
    uint64_t size = batch->size[index];
    bool whole = batch->error[index] != 0;
    int error;

    for (uint64_t offset = 0; whole && offset < size;) {
        offset = fill_parts(mover, batch, index, offset);
        error = query_batch(mover->range, parts);
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
        offset = fill_parts(mover, batch, index, offset);
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

/* Query both ends of the huge pages that the kernel reports as moved: of a split one it may have
 * moved only the head. Those that are not whole are no longer `reported`. */
static int probe_huge_pages(struct mover *mover, struct batch *batch, const int *before)
{
    struct group *group = &mover->group;
    uint64_t base = mover->range->page_size;

    for (size_t next = 0; next < batch->count;) {
        int error;

        for (group->count = 0; next < batch->count && group->count < BATCH_ENTRIES; next++) {
            uint64_t address = batch->address[next];

            if (!batch->reported[next] || !is_on_the_way(mover, batch, next, before[next]))
                continue;
            group->page[group->count] = (void *)(uintptr_t)(address + base);
            group->index[group->count++] = next;
            group->page[group->count] = (void *)(uintptr_t)(address + batch->size[next] - base);
            group->index[group->count++] = next;
        }
        error = sh_query(mover->range, group->count, group->page, group->status, group->hidden);
        if (error)
            return error;
        for (size_t i = 0; i < group->count; i++)
            if (group->status[i] != batch->node[group->index[i]])
                batch->reported[group->index[i]] = false;
    }
    return 0;
}

/* Finish huge pages that the kernel may have split: it does so if the destination has no free huge
 * page, or the process has freed a part. Sets `before` to -1 for those that are counted here. */
static int finish_huge_pages(struct mover *mover, struct batch *batch, int *before)
{
    int error = probe_huge_pages(mover, batch, before);

    for (size_t i = 0; i < batch->count && !error; i++) {
        int origin = before[i];

        if (batch->reported[i] || !is_on_the_way(mover, batch, i, origin))
            continue;
        error = move_parts(mover, batch, i, origin);
        before[i] = -1;
    }
    return error;
}

/* Whether the frames give the nodes of all pages. The zero page has a frame, too, but never moves;
 * so pages that are not even tried, since their destination is full, must be queried. */
static bool is_known(const struct mover *mover, const struct batch *batch)
{
    if (batch == &mover->parts)
        return false;
    for (size_t i = 0; i < batch->count; i++) {
        int target = destination_of(mover->options, batch->node[i]);

        if (batch->node[i] == SH_UNKNOWN_NODE || (target >= 0 && is_full(mover, target)))
            return false;
    }
    return true;
}

/* Query the nodes of the batch's pages, unless their frames give them, and move the pages to their
 * destinations. `origin`: they are parts of what was a huge page on that node, so parts at its
 * destination have already moved; -1: not known. */
static int move_batch(struct mover *mover, struct batch *batch, int origin)
{
    const struct sh_options *options = mover->options;
    int *before = batch->before;
    int error = is_known(mover, batch) ? 0 : query_batch(mover->range, batch);

    if (!error && may_be_another(mover->range))
        error = ESRCH;
    if (error)
        return error;
    for (size_t i = 0; i < batch->count; i++) {
        before[i] = batch->node[i];
        batch->error[i] = 0;
        batch->reported[i] = false;
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
    if (may_be_another(mover->range)) /* the results may be about another process's pages */
        return ESRCH;
    for (size_t i = 0; i < batch->count; i++) {
        int target = destination_of(options, before[i]);

        if (target >= 0 && batch->node[i] == target)
            mover->result->moved[before[i]] += batch->size[i];
    }
    return error;
}

/* Whether the page is selected. Pages come in ascending order, so `next` is the first extent that
 * can contain one. A folio is selected as a whole or not at all. */
static bool is_selected(const struct sh_options *options, const struct sh_page *page, size_t *next)
{
    if (!options->only_count)
        return true;
    while (*next < options->only_count && options->only[*next].end <= page->address)
        ++*next;
    return *next < options->only_count && options->only[*next].start <= page->address &&
           page->address + page->size <= options->only[*next].end;
}

/* Whether the batch must be moved before the page is added. If frames do not tell folios, a batch
 * ends where none can lie, if it may be as large as one: what follows of a folio that has moved
 * would look as if it had always been there. */
static bool is_batch_full(const struct mover *mover, const struct sh_page *page, uint64_t gathered)
{
    const struct sh_range *range = mover->range;
    size_t count = mover->batch.count;
    uint64_t unit = range->folio_size, last;

    if (!count)
        return false;
    if (!unit || unit > mover->batch_bytes || range->page_size != range->base_size ||
        sh_tells_folios(range))
        return count == BATCH_ENTRIES || gathered + page->size > mover->batch_bytes;
    last = mover->batch.address[count - 1];
    return page->address / unit != last / unit && (gathered + unit > mover->batch_bytes ||
                                                   count + unit / range->base_size > BATCH_ENTRIES);
}

int sh_sweep(const struct sh_range *range, const struct sh_options *options,
             struct sh_result *result)
{
    struct sh_scanner scanner;
    struct mover *mover = NULL;
    size_t extent = 0;
    int error = sh_scanner_open(&scanner, range);

    if (error)
        return error;
    sh_scanner_restrict(&scanner, options->only, options->only_count);
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
    /* With a limit on the call's duration, start small and grow. */
    if (options->call_ns && mover->batch_bytes > 16 * SMALLEST_BATCH)
        mover->batch_bytes = 16 * SMALLEST_BATCH;

    for (bool more = true; more && !error;) {
        struct batch *batch = &mover->batch;
        uint64_t gathered = 0;
        struct sh_page page;

        batch->count = 0;
        for (;;) {
            error = sh_scanner_next(&scanner, &page);
            more = !error && page.size;
            if (!more)
                break;
            if (!is_selected(options, &page, &extent))
                continue;
            if (is_batch_full(mover, &page, gathered)) {
                sh_scanner_return(&scanner, &page);
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
    sh_scanner_close(&scanner);
    return sh_explain(range, error);
}
