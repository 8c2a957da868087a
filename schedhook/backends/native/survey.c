#include "survey.h"
#include "scanner.h"

#include <errno.h>
#include <stdlib.h>

#define CHUNK_FRAMES (1ull << 18)
#define MOST_FRAMES (1ull << 40) /* of 4 KiB: all that 52 bits can address */
#define ENTRIES 4096
#define PENDING 4096

/* ---- frames --------------------------------------------------------------------------------- */

void sh_frames_free(struct sh_frames *frames)
{
    for (size_t i = 0; i < frames->count; i++)
        free(frames->chunks[i]);
    free(frames->chunks);
}

static uint64_t *chunk_of(struct sh_frames *frames, uint64_t frame)
{
    size_t index = (size_t)(frame / CHUNK_FRAMES);

    if (index >= frames->count) {
        size_t count = index + 64;
        uint64_t **chunks = realloc(frames->chunks, count * sizeof *chunks);

        if (!chunks)
            return NULL;
        for (size_t i = frames->count; i < count; i++)
            chunks[i] = NULL;
        frames->chunks = chunks;
        frames->count = count;
    }
    if (!frames->chunks[index])
        frames->chunks[index] = calloc(CHUNK_FRAMES / 64, sizeof(uint64_t));
    return frames->chunks[index];
}

/* Add a frame; set `fresh` if it was not there. Returns 0 or SH_NO_LOCAL_MEMORY. */
static int add_frame(struct sh_frames *frames, uint64_t frame, bool *fresh)
{
    uint64_t bit = 1ull << frame % 64, *chunk;

    *fresh = true;
    if (!frame || frame >= MOST_FRAMES) /* hidden, or in transit */
        return 0;
    chunk = chunk_of(frames, frame);
    if (!chunk)
        return SH_NO_LOCAL_MEMORY;
    chunk += frame % CHUNK_FRAMES / 64;
    *fresh = !(*chunk & bit);
    *chunk |= bit;
    return 0;
}

/* ---- survey --------------------------------------------------------------------------------- */

struct surveyor {
    const struct sh_range *range;
    struct sh_frames *frames;
    enum sh_part part;
    struct sh_survey *survey;
    size_t pending; /* pages whose node only the kernel knows */
    void *page[PENDING];
    int status[PENDING];
    uint64_t size[PENDING];
    uint64_t entries[ENTRIES];
};

static int add_extent(struct sh_survey *survey, uint64_t start, uint64_t end)
{
    struct sh_extent *last = survey->count ? &survey->extents[survey->count - 1] : NULL;

    if (last && (last->end == start || survey->count == SH_MAX_EXTENTS)) {
        last->end = end;
        return 0;
    }
    if (survey->count == survey->room) {
        size_t room = survey->room ? 2 * survey->room : 64;
        struct sh_extent *extents = realloc(survey->extents, room * sizeof *extents);

        if (!extents)
            return SH_NO_LOCAL_MEMORY;
        survey->extents = extents;
        survey->room = room;
    }
    survey->extents[survey->count++] = (struct sh_extent){.start = start, .end = end};
    return 0;
}

static void add_bytes(struct surveyor *surveyor, int node, uint64_t size)
{
    if (node >= 0 && node < SH_NODES) /* an errno: the zero page, or gone */
        surveyor->survey->bytes[node] += size;
}

/* Ask the kernel for the nodes of the pages that have none yet. */
static int query_pending(struct surveyor *surveyor)
{
    size_t count = surveyor->pending;

    surveyor->pending = 0;
    if (count &&
        sh_move_pages(surveyor->range->pid, count, surveyor->page, NULL, surveyor->status, 0) < 0)
        return errno;
    if (sh_exited(surveyor->range->pidfd, surveyor->range->task))
        return ESRCH;
    for (size_t i = 0; i < count; i++)
        add_bytes(surveyor, surveyor->status[i], surveyor->size[i]);
    return 0;
}

/* Count a page that was not seen before. */
static int count_page(struct surveyor *surveyor, uint64_t address, uint64_t size, uint64_t frame)
{
    int node = sh_node_of_frame(surveyor->range, frame);

    if (node != SH_UNKNOWN_NODE) {
        add_bytes(surveyor, node, size);
    } else {
        surveyor->page[surveyor->pending] = (void *)(uintptr_t)address;
        surveyor->size[surveyor->pending++] = size;
        if (surveyor->pending == PENDING) {
            int error = query_pending(surveyor);

            if (error)
                return error;
        }
    }
    return add_extent(surveyor->survey, address, address + size);
}

/* Of a private mapping of a file, kernels before 6.11 do not say that a huge page is the file's;
 * the copies are never huge. */
static bool is_wanted(const struct surveyor *surveyor, const struct sh_page *page)
{
    bool is_huge = page->size > surveyor->range->page_size;
    bool is_original = is_huge || (page->entry & SH_PAGEMAP_FILE);

    return surveyor->part == SH_ALL || is_original == (surveyor->part == SH_ORIGINALS);
}

static int visit(struct surveyor *surveyor, const struct sh_page *page)
{
    const struct sh_range *range = surveyor->range;
    uint64_t frame = page->entry & SH_PAGEMAP_FRAME;
    struct sh_frames *frames = surveyor->frames;

    if (page->is_zero || (frame && frame == range->zero_frame))
        return 0;
    if (!is_wanted(surveyor, page)) {
        surveyor->survey->skipped = true;
        return 0;
    }
    /* Another process may map a part of a huge page only, so each base page is looked up. */
    for (uint64_t offset = 0; offset < page->size; offset += range->page_size) {
        uint64_t its = frame ? frame + offset / range->base_size : 0;
        bool fresh = true;
        int error = frames ? add_frame(frames, its, &fresh) : 0;

        if (!error && fresh)
            error = count_page(surveyor, page->address + offset, range->page_size, its);
        if (error)
            return error;
        surveyor->survey->skipped = surveyor->survey->skipped || !fresh;
    }
    return 0;
}

/* Visit adjacent pages that a scan has found, without their frames. */
static int visit_scanned(struct surveyor *surveyor, const struct sh_page *found, uint64_t end)
{
    const struct sh_range *range = surveyor->range;
    uint64_t unit = range->page_size, start = found->address;

    while (start < end) {
        /* Of a page of a pool, the entry of its head suffices. */
        uint64_t most = unit > range->base_size ? 1 : ENTRIES;
        uint64_t wanted = (end - start) / unit < most ? (end - start) / unit : most;
        ssize_t got;

        do
            got = sh_read_pagemap(range->pagemap, surveyor->entries, wanted * sizeof(uint64_t),
                                  start / range->base_size * sizeof(uint64_t));
        while (got < 0 && errno == EINTR);
        if (got < (ssize_t)sizeof(uint64_t))
            return got < 0 ? errno : ESRCH;
        for (size_t i = 0; i < (size_t)got / sizeof(uint64_t); i++, start += unit) {
            struct sh_page page = {.address = start, .size = unit, .entry = surveyor->entries[i]};
            int error;

            if (found->size > unit)
                page.entry |= SH_PAGEMAP_FILE; /* see is_wanted */
            error = page.entry & SH_PAGEMAP_PRESENT ? visit(surveyor, &page) : 0;
            if (error)
                return error;
        }
    }
    return 0;
}

/* Visit the pages that a scan finds, adjacent ones of one size together. */
static int visit_all_scanned(struct surveyor *surveyor, struct sh_scanner *scanner)
{
    struct sh_page first = {.size = 0}, page;
    uint64_t end = 0;
    int error;

    do {
        error = sh_scanner_next(scanner, &page);
        if (error)
            return error;
        if (page.size && page.size == first.size && page.address == end) {
            end += page.size;
            continue;
        }
        error = first.size ? visit_scanned(surveyor, &first, end) : 0;
        first = page;
        end = page.address + page.size;
    } while (!error && page.size);
    return error;
}

static int visit_all_read(struct surveyor *surveyor, struct sh_scanner *scanner)
{
    struct sh_page page;
    int error = sh_scanner_next(scanner, &page);

    while (!error && page.size) {
        error = visit(surveyor, &page);
        if (!error)
            error = sh_scanner_next(scanner, &page);
    }
    return error;
}

int sh_survey(const struct sh_range *range, struct sh_frames *frames, enum sh_part part,
              struct sh_survey *survey)
{
    struct sh_scanner scanner;
    struct surveyor *surveyor;
    int error = sh_scanner_open(&scanner, range);

    if (error)
        return error;
    surveyor = calloc(1, sizeof *surveyor);
    if (surveyor) {
        surveyor->range = range;
        surveyor->frames = frames;
        surveyor->part = part;
        surveyor->survey = survey;
        error = scanner.entries ? visit_all_read(surveyor, &scanner)
                                : visit_all_scanned(surveyor, &scanner);
        if (!error)
            error = query_pending(surveyor);
    } else {
        error = SH_NO_LOCAL_MEMORY;
    }
    free(surveyor);
    sh_scanner_close(&scanner);
    return error && sh_address_space_gone(range) ? ESRCH : error;
}
