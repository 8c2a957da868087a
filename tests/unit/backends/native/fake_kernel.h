/* A process's memory, and the kernel calls on it, in a few arrays for the engine's tests. It
 * follows do_pages_move() and migrate_pages() in the kernel's mm/migrate.c, and do_pagemap_scan()
 * in fs/proc/task_mmu.c, as far as a caller can see. */
#ifndef FAKE_KERNEL_H
#define FAKE_KERNEL_H

#include "engine.h"

#define BASE 4096ull
#define START 0x7f0000000000ull
#define FOLIO 16 /* base pages of a transparent huge page here */
#define MAX_PAGES 6000
#define MAX_NODES 8
#define NODE_FRAMES (1ull << 32) /* each node's memory begins at a multiple of this */
#define PAGEMAP_FD 7
#define KPAGEFLAGS_FD 8
#define FOREVER (1 << 30)

enum fault {
    NO_FAULT,
    BUSY,      /* cannot be isolated: EBUSY */
    STUCK,     /* is isolated, but the move fails: no status */
    SHARED,    /* other processes map it: EACCES without MPOL_MF_MOVE_ALL */
    UNMOVABLE, /* the mapping is not migratable: EFAULT, though a query gives its node */
    MIGRATING, /* another process is migrating it: ENOENT */
    HIDDEN,    /* NUMA balancing has marked it: ENOENT, a transparent huge page
                  EFAULT, from query and move, as on Linux 6.1 */
    ZERO,      /* the zero page: EFAULT from query and move */
};

struct folio {
    int node;
    size_t pages; /* base pages */
    size_t first; /* index of its first page */
    uint64_t frame;
    enum fault fault;
    int times; /* how often the fault occurs before it ends */
    bool isolated;
    bool touched; /* by another process than the engine */
};

struct world {
    struct folio *page[MAX_PAGES]; /* by virtual page from START, NULL: a hole */
    size_t count;
    bool hugetlb;
    bool mixed;                 /* has folios of other sizes than FOLIO, at any address */
    long free[MAX_NODES];       /* base pages */
    bool fragmented[MAX_NODES]; /* no free huge page */
    bool absent[MAX_NODES];     /* ENODEV */
    bool ran_out[MAX_NODES];    /* failed with ENOMEM */
    bool scans_zero;            /* a scan takes the huge zero page for any huge page */
    bool frames_hidden;
    bool frames_known; /* the engine knows which frame is on which node */

    /* events during a sweep */
    long exit_at; /* before this kernel call, 0: never */
    bool zombie;  /* no address space any more, but the pidfd does not show it yet */
    bool reused;  /* another process with the same memory has the number after that */
    bool dead;
    size_t moved_before_exit; /* base pages */
    struct {
        long call; /* 0: never */
        size_t page;
        int node;      /* -1: the process frees it */
        bool replaced; /* the process frees it, and gets another page there, on the node */
    } event;           /* another process moves a page before this call */
    long meddle_every; /* another process changes something before every n-th call, 0: never */

    /* time */
    uint64_t now, call_cost, page_cost;

    /* what the engine did */
    long calls, move_calls;
    uint64_t looked_at;                  /* base pages, in pagemap or by scans */
    uint64_t flags_read;                 /* of frames */
    uint64_t largest_call, slowest_call; /* bytes (of calls for more than one page), ns */
    bool whole_folios; /* one address per folio is expected, and counts for all its bytes */
    const int32_t *destination; /* checked: no page moves to another node */
    int origin[MAX_PAGES];      /* node at the start, -1: nothing there */
    bool ever[MAX_PAGES];       /* something was there at some point */
    const char *complaint;
};

extern struct world world;

void world_reset(void);
void world_seed(uint64_t seed);
uint64_t any(uint64_t below);
bool chance(unsigned percent);

/* Map `pages` base pages at `index`; `adjoining`: in frames that follow the last one's, if they are
 * aligned to their size, as the kernel's are. */
struct folio *world_map(size_t index, size_t pages, int node, bool adjoining);
/* Move it, as another process does. */
/* Whether it is mapped as one transparent huge page. */
bool is_huge(const struct folio *folio);
void world_carry(struct folio *folio, int node);
void world_begin(const int32_t *destination);

#endif
