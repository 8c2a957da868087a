/* The page mover: finds present pages, queries their nodes, moves them, and counts the result of
 * each. It contains no Python and no policy: the caller says which node's pages go where.
 * Sources: move_pages(2), migrate_pages(2), Documentation/admin-guide/mm/pagemap.rst. */
#ifndef SCHEDHOOK_ENGINE_H
#define SCHEDHOOK_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The engine's calls to the kernel. syscalls.c makes them; a test provides its own. */
long sh_move_pages(pid_t pid, size_t count, void *const *pages, const int *nodes, int *status,
                   int flags);
ssize_t sh_read_pagemap(int fd, void *buffer, size_t size, uint64_t offset);
int sh_scan_pagemap(int fd, void *arguments);
bool sh_exited(int pidfd, int task);
uint64_t sh_now_ns(void);

/* Frames [start, end) of physical memory that belong to one node. */
struct sh_span {
    uint64_t start, end;
    int64_t node;
};

/* Pages of one range of one process. */
struct sh_range {
    pid_t pid;
    int pidfd;   /* readable once the process has exited */
    int task;    /* /proc/PID/task/TID/comm if `pid` is not the first thread's number, else -1;
                  * unreadable once that thread has ended */
    int pagemap; /* /proc/PID/pagemap; it belongs to the address space, not to the number */
    uint64_t start, end;
    uint64_t page_size;          /* of the mapping: the base page, or a hugetlb page */
    uint64_t base_size;          /* the processor's base page */
    uint64_t folio_size;         /* the largest folio, a transparent huge page; 0: none */
    bool use_scan;               /* PAGEMAP_SCAN works here */
    const struct sh_span *spans; /* ascending; they give a page's node from its frame's number */
    size_t span_count;           /* 0: query the kernel */
    int kpageflags;              /* /proc/kpageflags, or -1; tells folios by their frames */
    uint64_t zero_frame; /* of the zero page, which no node counts; 0: frames are not shown */
};

/* Addresses [start, end). */
struct sh_extent {
    uint64_t start, end;
};

struct sh_options {
    const int32_t *destination;   /* [nodes], -1: leave the node's pages */
    const struct sh_extent *only; /* ascending; pages outside of them stay */
    size_t only_count;            /* 0: all pages */
    size_t nodes;
    int flags; /* MPOL_MF_MOVE or MPOL_MF_MOVE_ALL */
    uint64_t batch_bytes;
    uint64_t call_ns; /* limit on one call, 0: none */
};

struct sh_failure {
    uint64_t start, end; /* covers the pages that stayed, and possibly others in between */
    uint64_t size;       /* bytes that stayed */
    uint64_t page_size;  /* of the last page added */
    int error;
};

#define SH_MAX_FAILURES 128

struct sh_result {
    uint64_t *moved; /* [nodes], by old node, bytes */
    struct sh_failure failures[SH_MAX_FAILURES];
    size_t failure_count;
    uint64_t calls;
};

struct sh_run {
    uint64_t start, end;
    uint64_t page_size; /* bytes that move as one */
    int node;
    bool hidden; /* move_pages(2) does not find them; their frames give the node */
};

struct sh_runs {
    struct sh_run *items;
    size_t count, room;
};

/* Both return 0 or a positive errno: ESRCH if the process exited (or replaced its address space),
 * SH_NO_LOCAL_MEMORY if this process is out of memory, else the errno of a call that failed as a
 * whole. The result covers what was done until then. */
#define SH_NO_LOCAL_MEMORY 4096

int sh_sweep(const struct sh_range *range, const struct sh_options *options,
             struct sh_result *result);
int sh_locate(const struct sh_range *range, struct sh_runs *runs);

/* The end of the folio of the page before the range; the range's start if that page is in none, or
 * the folio's last one; 0 if that cannot be told. It does not begin with its area. */
uint64_t sh_boundary(const struct sh_range *range);

/* Whether PAGEMAP_SCAN works on this pagemap. */
bool sh_can_scan(int pagemap);

#endif
