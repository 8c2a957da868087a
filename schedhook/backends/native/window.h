/* A window onto a shared-memory object: a mapping in this process of those pages of the object that
 * exist and that no other address space maps. The engine then finds and moves them as it does any
 * process's pages. Nothing here reads or writes a page, so a file that is truncated meanwhile
 * raises no SIGBUS. Sources: userfaultfd(2), ioctl_userfaultfd(2), mincore(2). */
#ifndef SCHEDHOOK_WINDOW_H
#define SCHEDHOOK_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct sh_window {
    int file;        /* the object, open for reading */
    int pagemap;     /* /proc/self/pagemap */
    uint64_t offset; /* of the part of the object, a multiple of the page size */
    uint64_t size;   /* of the part, a multiple of the page size */
    uint64_t page_size, base_size;
    bool unwritten;   /* also map pages that fallocate(2) allocated and no process has used */
    uint64_t address; /* where the part is mapped; 0 if it is not */
};

/* Both return 0 or a positive errno. Opening fails with ENOSYS or EINVAL on a kernel that cannot
 * map only what exists (userfaultfd with minor faults, Linux 5.14), EPERM if a filter forbids it.
 */
int sh_window_open(struct sh_window *window);
int sh_window_close(struct sh_window *window);

/* Where a descriptor's file is. Unlike stat(2) this never asks a file system's server. */
struct sh_identity {
    uint32_t major, minor;
    uint64_t inode;
    uint32_t mode;
};

int sh_identify(int fd, struct sh_identity *identity);

#endif
