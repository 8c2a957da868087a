#include "locate.h"
#include "scanner.h"

#include <errno.h>
#include <stdlib.h>

#define MOST_PAGES 8192

/* The pages of one query. */
struct pages {
    size_t count;
    uint64_t address[MOST_PAGES];
    uint64_t size[MOST_PAGES];
    int node[MOST_PAGES]; /* or a negative errno */
    bool hidden[MOST_PAGES];
};

int sh_query(const struct sh_range *range, size_t count, void *const *pages, int *status,
             bool *hidden)
{
    uint64_t no_folio = UINT64_MAX; /* a place for a huge page that is known to have none */

    if (count && sh_move_pages(range->pid, count, pages, NULL, status, 0) < 0)
        return errno;
    for (size_t i = 0; i < count; i++) {
        uint64_t address = (uint64_t)(uintptr_t)pages[i];
        uint64_t place = range->folio_size ? address / range->folio_size : no_folio;
        bool is_fault = status[i] == -EFAULT;
        int node = SH_UNKNOWN_NODE;

        if (status[i] == -ENOENT || (is_fault && place != no_folio))
            node = sh_node_by_frame(range, address, is_fault);
        if (is_fault && node == SH_UNKNOWN_NODE)
            no_folio = place;
        if (node == -ESRCH)
            return ESRCH;
        hidden[i] = node != SH_UNKNOWN_NODE;
        if (hidden[i])
            status[i] = node;
    }
    return 0;
}

int sh_explain(const struct sh_range *range, int error)
{
    return error && sh_address_space_gone(range) ? ESRCH : error;
}

static int add_run(struct sh_runs *runs, const struct sh_run *run)
{
    if (runs->count) {
        struct sh_run *last = &runs->items[runs->count - 1];

        if (last->end == run->start && last->node == run->node &&
            last->page_size == run->page_size && last->hidden == run->hidden) {
            last->end = run->end;
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
    runs->items[runs->count++] = *run;
    return 0;
}

int sh_locate(const struct sh_range *range, struct sh_runs *runs)
{
    struct sh_scanner scanner;
    struct pages *batch = NULL;
    int error = sh_scanner_open(&scanner, range);

    if (error)
        return error;
    batch = malloc(sizeof *batch);
    if (!batch)
        error = SH_NO_LOCAL_MEMORY;
    for (bool more = true; more && !error;) {
        struct sh_page page;

        batch->count = 0;
        while (batch->count < MOST_PAGES) {
            error = sh_scanner_next(&scanner, &page);
            more = !error && page.size;
            if (!more)
                break;
            batch->address[batch->count] = page.address;
            batch->size[batch->count++] = page.size;
        }
        if (!error)
            error = sh_query(range, batch->count, (void *const *)(uintptr_t)batch->address,
                             batch->node, batch->hidden);
        if (!error && sh_exited(range->pidfd, range->task))
            error = ESRCH;
        for (size_t i = 0; !error && i < batch->count; i++) {
            struct sh_run run = {.start = batch->address[i],
                                 .end = batch->address[i] + batch->size[i],
                                 .page_size = batch->size[i],
                                 .node = batch->node[i],
                                 .hidden = batch->hidden[i]};

            if (run.node >= 0)
                error = add_run(runs, &run);
        }
    }
    free(batch);
    sh_scanner_close(&scanner);
    return sh_explain(range, error);
}
