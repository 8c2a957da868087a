#include "fake_kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOVE_ALL 4
#define MAX_FOLIOS (4 * MAX_PAGES)

struct world world;
static struct folio folios[MAX_FOLIOS];
static size_t folio_count;
static uint64_t next_frame, random_state; /* next_frame: within its node's span */

/* ---- building ------------------------------------------------------------------------------- */

void world_seed(uint64_t seed)
{
    random_state = seed * 0x9e3779b97f4a7c15ull + 1;
}

static uint64_t step(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t any(uint64_t below)
{
    return below ? step() % below : 0;
}

bool chance(unsigned percent)
{
    return any(100) < percent;
}

void world_reset(void)
{
    memset(&world, 0, sizeof world);
    for (int node = 0; node < MAX_NODES; node++)
        world.free[node] = MAX_PAGES;
    world.call_cost = 1000;
    world.page_cost = 1000;
    folio_count = 0;
    next_frame = 1 << 10;
}

static void complain(const char *text)
{
    if (!world.complaint)
        world.complaint = text;
}

static uint64_t new_frame(size_t pages, int node)
{
    uint64_t frame = (next_frame + pages) / pages * pages;

    next_frame = frame + pages + 1; /* a gap, so that no frames are adjacent by chance */
    return (uint64_t)node * NODE_FRAMES + frame;
}

static struct folio *new_folio(size_t first, size_t pages, int node, uint64_t frame)
{
    if (folio_count == MAX_FOLIOS)
        abort();
    folios[folio_count] =
        (struct folio){.node = node, .pages = pages, .first = first, .frame = frame};
    return &folios[folio_count++];
}

struct folio *world_map(size_t index, size_t pages, int node, bool adjoining)
{
    const struct folio *last = adjoining && index ? world.page[index - 1] : NULL;
    uint64_t frame;

    if (last && last->node == node && (last->frame + last->pages) % pages == 0) {
        frame = last->frame + last->pages;
        if (next_frame < frame % NODE_FRAMES + pages)
            next_frame = frame % NODE_FRAMES + pages;
    } else {
        frame = new_frame(adjoining ? 16 : pages, node);
    }
    struct folio *folio = new_folio(index, pages, node, frame);
    for (size_t i = 0; i < pages; i++) {
        world.page[index + i] = folio;
        world.ever[index + i] = true;
    }
    if (world.count < index + pages)
        world.count = index + pages;
    return folio;
}

void world_begin(const int32_t *destination)
{
    world.destination = destination;
    for (size_t i = 0; i < MAX_PAGES; i++) {
        const struct folio *folio = world.page[i];

        world.origin[i] = folio && folio->fault != ZERO ? folio->node : -1;
    }
}

/* ---- what other processes do ---------------------------------------------------------------- */

void world_carry(struct folio *folio, int node)
{
    folio->node = node;
    folio->frame = new_frame(folio->pages, node);
}

static void split(struct folio *folio)
{
    struct folio whole = *folio;

    for (size_t i = 0; i < whole.pages; i++) {
        size_t index = whole.first + i;

        if (world.page[index] != folio)
            continue;
        struct folio *part = new_folio(index, 1, whole.node, whole.frame + i);
        part->fault = whole.fault;
        part->times = whole.times;
        part->touched = whole.touched;
        world.page[index] = part;
    }
}

static void meddle(void)
{
    size_t index = any(world.count);
    struct folio *folio = world.page[index];

    if (!folio) {
        if (!world.hugetlb && folio_count < MAX_FOLIOS - MAX_PAGES)
            world_map(index, 1, (int)any(MAX_NODES), false)->touched = true;
        return;
    }
    folio->touched = true;
    switch (any(3)) {
    case 0:
        world_carry(folio, (int)any(MAX_NODES));
        break;
    case 1:
        if (!world.hugetlb)
            world.page[index] = NULL;
        break;
    default:
        if (folio->pages > 1 && !world.hugetlb && folio_count < MAX_FOLIOS - MAX_PAGES)
            split(folio);
    }
}

static void tick(void)
{
    world.calls++;
    if (world.exit_at && world.calls >= world.exit_at && !world.dead) {
        world.dead = true;
        for (size_t i = 0; i < MAX_PAGES; i++)
            if (world.page[i] && world.origin[i] >= 0 && world.page[i]->node != world.origin[i])
                world.moved_before_exit++;
    }
    if (world.calls == world.event.call) {
        if (world.event.node < 0 || world.event.replaced)
            world.page[world.event.page] = NULL;
        if (world.event.replaced) {
            struct folio *other = world_map(world.event.page, 1, world.event.node, false);

            other->frame = (other->frame + FOLIO) / FOLIO * FOLIO; /* aligned like a huge page's */
            other->touched = true;
        } else if (world.event.node >= 0)
            world_carry(world.page[world.event.page], world.event.node);
    }
    if (world.meddle_every && world.calls % world.meddle_every == 0)
        meddle();
}

/* ---- move_pages ----------------------------------------------------------------------------- */

static struct folio *at(const void *address, size_t *index)
{
    uint64_t where = (uint64_t)(uintptr_t)address;

    if (where < START || where % BASE || (where - START) / BASE >= MAX_PAGES)
        return NULL;
    *index = (where - START) / BASE;
    return world.page[*index];
}

struct list {
    struct folio *items[MAX_PAGES];
    size_t count;
};

static bool take(int node, const struct folio *folio)
{
    if (world.free[node] < (long)folio->pages ||
        (folio->pages > 1 && !world.hugetlb && world.fragmented[node]))
        return false;
    world.free[node] -= (long)folio->pages;
    return true;
}

/* 1: failed, 0: moved. */
static int migrate_one(struct folio *folio, int node)
{
    if (folio->fault == STUCK && folio->times > 0) {
        folio->times--;
        world.free[node] += (long)folio->pages;
        return 1;
    }
    world.free[folio->node] += (long)folio->pages;
    world_carry(folio, node);
    return 0;
}

/* The number of folios that failed, or -ENOMEM, after which the rest is not tried. */
static int migrate_list(struct list *list, int node)
{
    int failed = 0, error = 0;

    for (size_t i = 0; i < list->count && !error; i++) {
        struct folio *folio = list->items[i];

        if (take(node, folio)) {
            failed += migrate_one(folio, node);
            continue;
        }
        /* No huge page is free there: the kernel splits this one unless it is pinned. */
        if (folio->pages == 1 || world.hugetlb || folio->fault == STUCK) {
            error = -ENOMEM;
            break;
        }
        size_t first = folio->first, pages = folio->pages;
        split(folio);
        for (size_t part = 0; part < pages && !error; part++) {
            struct folio *small = world.page[first + part];

            if (!small || small->first != first + part || small->node == node)
                continue;
            if (take(node, small))
                failed += migrate_one(small, node);
            else
                error = -ENOMEM;
        }
    }
    for (size_t i = 0; i < list->count; i++)
        list->items[i]->isolated = false;
    list->count = 0;
    if (error)
        world.ran_out[node] = true;
    return error ? error : failed;
}

static bool shows(struct folio *folio, enum fault fault)
{
    if (folio->fault != fault || folio->times <= 0)
        return false;
    folio->times--;
    return true;
}

bool is_huge(const struct folio *folio)
{
    return folio->pages == FOLIO && folio->first % FOLIO == 0 && !world.hugetlb;
}

static int hidden_status(const struct folio *folio)
{
    return is_huge(folio) ? -EFAULT : -ENOENT;
}

/* 1: isolated, 0: already there, else a negative errno. */
static int isolate(struct folio *folio, int node, bool all)
{
    if (!folio)
        return -ENOENT;
    if (folio->fault == UNMOVABLE || folio->fault == ZERO)
        return -EFAULT;
    if (folio->fault == HIDDEN)
        return hidden_status(folio);
    if (shows(folio, MIGRATING))
        return -ENOENT;
    if (folio->node == node)
        return 0;
    if (folio->fault == SHARED && !all)
        return -EACCES;
    if (folio->isolated || shows(folio, BUSY))
        return -EBUSY;
    folio->isolated = true;
    return 1;
}

static int flush(struct list *list, int node, int *status, size_t start, size_t end, size_t count)
{
    if (!list->count)
        return 0;
    int left = migrate_list(list, node);
    if (left)
        return left > 0 ? left + (int)(count - end) : left;
    for (size_t i = start; i < end; i++)
        status[i] = node;
    return 0;
}

static void check_call(size_t count, void *const *pages, const int *nodes)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < count; i++) {
        size_t index = 0;
        const struct folio *folio = at(pages[i], &index);
        uint64_t size = BASE;

        if (folio && folio->first == index && world.whole_folios)
            size = folio->pages * BASE;
        bytes += size;
        if (!folio || folio->touched || world.meddle_every)
            continue;
        int origin = world.origin[index];
        if (folio->fault == ZERO && world.frames_known) /* its frame is on some node, too */
            continue;
        if (origin < 0 || world.destination[origin] != nodes[i])
            complain("a page was sent where its node does not go");
    }
    if (count > 1 && bytes > world.largest_call)
        world.largest_call = bytes;
}

static int do_move(size_t count, void *const *pages, const int *nodes, int *status, int flags)
{
    static struct list list;
    int current = -1, error = 0;
    size_t start = 0, i;

    list.count = 0;
    for (i = 0; i < count; i++) {
        size_t index;
        struct folio *folio = at(pages[i], &index);
        int node = nodes[i];

        if (node < 0 || node >= MAX_NODES || world.absent[node]) {
            error = -ENODEV;
            break;
        }
        if (current < 0) {
            current = node;
            start = i;
        } else if (current != node) {
            error = flush(&list, current, status, start, i, count);
            if (error)
                return error;
            start = i;
            current = node;
        }
        int got = isolate(folio, node, flags & MOVE_ALL);
        if (got > 0) {
            list.items[list.count++] = folio;
            continue;
        }
        status[i] = got ? got : node;
        error = flush(&list, current, status, start, i, count);
        if (error)
            return error > 0 ? error - 1 : error;
        current = -1;
    }
    int last = flush(&list, current, status, start, i, count);
    return error < 0 ? error : last;
}

long sh_move_pages(pid_t pid, size_t count, void *const *pages, const int *nodes, int *status,
                   int flags)
{
    int left = 0;

    (void)pid;
    tick();
    if (world.dead && !world.reused) {
        errno = world.zombie ? EINVAL : ESRCH;
        return -1;
    }
    if (nodes) {
        uint64_t took = world.call_cost + count * world.page_cost;

        world.move_calls++;
        world.now += took;
        if (took > world.slowest_call)
            world.slowest_call = took;
        check_call(count, pages, nodes);
        left = do_move(count, pages, nodes, status, flags);
    } else {
        for (size_t i = 0; i < count; i++) {
            size_t index;
            const struct folio *folio = at(pages[i], &index);

            status[i] = !folio                   ? -ENOENT
                        : folio->fault == HIDDEN ? hidden_status(folio)
                        : folio->fault == ZERO   ? -EFAULT
                                                 : folio->node;
        }
    }
    if (left < 0) {
        errno = -left;
        return -1;
    }
    return left;
}

bool sh_exited(int pidfd, int task)
{
    (void)pidfd;
    (void)task;
    return world.dead && !world.zombie;
}

uint64_t sh_now_ns(void)
{
    return world.now;
}

/* ---- pagemap -------------------------------------------------------------------------------- */

static const struct folio *by_frame(uint64_t frame)
{
    static size_t last; /* frames are asked for in a row */

    for (size_t tried = 0; tried < world.count; tried++) {
        size_t i = (last + tried) % world.count;
        const struct folio *folio = world.page[i];

        if (folio && frame >= folio->frame && frame < folio->frame + folio->pages) {
            last = i;
            return folio;
        }
    }
    return NULL;
}

ssize_t sh_read_pagemap(int fd, void *buffer, size_t size, uint64_t offset)
{
    uint64_t *out = buffer;
    size_t count = size / sizeof *out;

    if (fd == KPAGEFLAGS_FD) { /* describes frames, whatever has happened to the process */
        world.flags_read += count;
        for (size_t i = 0; i < count; i++) {
            uint64_t frame = offset / sizeof *out + i;
            const struct folio *folio = by_frame(frame);

            out[i] = !folio || folio->pages == 1 ? 1 << 5
                     : frame == folio->frame     ? 1 << 15
                                                 : 1 << 16;
            if (folio && folio->pages > 1 && !world.hugetlb)
                out[i] |= 1 << 22;
            if (folio && folio->fault == ZERO)
                out[i] |= 1 << 24;
        }
        return (ssize_t)(count * sizeof *out);
    }
    tick();
    if (fd != PAGEMAP_FD) {
        errno = EBADF;
        return -1;
    }
    if (world.dead)
        return 0;
    if (count > 64 && chance(20)) /* a read can return less than was requested */
        count -= 1 + any(32);
    world.looked_at += count;
    for (size_t i = 0; i < count; i++) {
        uint64_t index = offset / sizeof *out + i - START / BASE;
        const struct folio *folio = index < MAX_PAGES ? world.page[index] : NULL;

        out[i] = folio ? 1ull << 63 : 0;
        if (folio && !world.frames_hidden)
            out[i] |= folio->frame + (index - folio->first);
    }
    return (ssize_t)(count * sizeof *out);
}

struct region {
    uint64_t start, end, categories;
};

/* struct pm_scan_arg */
struct scan {
    uint64_t size, flags, start, end, walk_end, regions, room, max_pages;
    uint64_t inverted, mask, anyof, returned;
};

enum { PRESENT = 1 << 3, ZERO_FRAME = 1 << 5, HUGE = 1 << 6 };

int sh_scan_pagemap(int fd, void *arguments)
{
    struct scan *scan = arguments;
    struct region *regions = (struct region *)(uintptr_t)scan->regions;
    uint64_t found = 0;
    int used = 0;

    tick();
    if (fd != PAGEMAP_FD || scan->size != sizeof *scan) {
        errno = EINVAL;
        return -1;
    }
    scan->walk_end = scan->end;
    if (world.dead) /* the walk finds no mapping */
        return 0;
    for (uint64_t address = scan->start; address < scan->end; address += BASE) {
        uint64_t index = (address - START) / BASE;
        const struct folio *folio = index < MAX_PAGES ? world.page[index] : NULL;
        uint64_t is = 0;

        world.looked_at++;
        if (folio)
            is = PRESENT | (is_huge(folio) ? HUGE : 0);
        if (folio && folio->fault == ZERO && !(world.scans_zero && is_huge(folio)))
            is |= ZERO_FRAME;
        if (((is ^ scan->inverted) & scan->mask) != scan->mask)
            continue;
        is &= scan->returned;
        if (found == scan->max_pages) {
            scan->walk_end = address;
            break;
        }
        if (used && regions[used - 1].end == address && regions[used - 1].categories == is) {
            regions[used - 1].end += BASE;
        } else if ((uint64_t)used == scan->room) {
            scan->walk_end = address;
            break;
        } else {
            regions[used++] = (struct region){address, address + BASE, is};
        }
        found++;
    }
    return used;
}
