#define _GNU_SOURCE
#include "window.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* <linux/userfaultfd.h> of Linux 5.14. */
#define FAULTS_USER_MODE_ONLY 1 /* needs no privilege */
#define FAULTS_API 0xaaull
#define FAULTS_MINOR_HUGETLB (1ull << 9)
#define FAULTS_MINOR_SHMEM (1ull << 10)
#define FAULTS_MODE_MINOR (1ull << 2)
#define FAULTS_DONT_WAKE 1ull

struct faults_api {
    uint64_t api, features, ioctls;
};
struct faults_register {
    uint64_t start, length, mode, ioctls;
};
struct faults_continue {
    uint64_t start, length, mode;
    int64_t mapped;
};

#define FAULTS_SET_API _IOWR(0xaa, 0x3f, struct faults_api)
#define FAULTS_REGISTER _IOWR(0xaa, 0x00, struct faults_register)
#define FAULTS_CONTINUE _IOWR(0xaa, 0x07, struct faults_continue)

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_EXCLUSIVE (1ull << 56)
#define PAGEMAP_ENTRIES 512

/* Return a descriptor through which pages of the window can be mapped, or a negative errno. */
static int open_faults(const struct sh_window *window)
{
    struct faults_api api = {.api = FAULTS_API};
    struct faults_register range = {
        .start = window->address, .length = window->size, .mode = FAULTS_MODE_MINOR};
    int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | FAULTS_USER_MODE_ONLY);

    if (faults < 0)
        return -errno;
    api.features =
        window->page_size > window->base_size ? FAULTS_MINOR_HUGETLB : FAULTS_MINOR_SHMEM;
    if (ioctl(faults, FAULTS_SET_API, &api) || ioctl(faults, FAULTS_REGISTER, &range)) {
        int error = errno;
        close(faults);
        return -error;
    }
    return faults;
}

/* Map the pages of [start, end) that exist. An ordinary fault would allocate those that do not,
 * also if the job punches the hole just now; UFFDIO_CONTINUE fails instead. */
static int map_existing(const struct sh_window *window, int faults, uint64_t start, uint64_t end)
{
    while (start < end) {
        struct faults_continue range = {
            .start = start, .length = end - start, .mode = FAULTS_DONT_WAKE};

        if (ioctl(faults, FAULTS_CONTINUE, &range) == 0)
            return 0;
        if (errno == EAGAIN)
            start += range.mapped > 0 ? (uint64_t)range.mapped : 0;
        else if (errno == EFAULT || errno == EEXIST || errno == EIO || errno == EINVAL)
            start += window->page_size; /* a hole, mapped already, broken, truncated */
        else
            return errno;
    }
    return 0;
}

/* Map the pages of [start, end) that are in memory: one in swap is to stay there. */
static int map_resident(const struct sh_window *window, int faults, uint64_t start, uint64_t end)
{
    size_t count = (end - start) / window->base_size;
    unsigned char *resident;
    int error = 0;

    if (window->page_size > window->base_size) /* mincore knows no pages of hugetlbfs */
        return map_existing(window, faults, start, end);
    resident = malloc(count);
    if (!resident)
        return ENOMEM;
    if (mincore((void *)(uintptr_t)start, end - start, resident))
        error = errno;
    for (size_t first = 0, last; first < count && !error; first = last) {
        for (last = first; last < count && (resident[last] & 1); last++)
            ;
        if (last > first)
            error = map_existing(window, faults, start + first * window->base_size,
                                 start + last * window->base_size);
        else
            last++;
    }
    free(resident);
    return error;
}

/* Map what exists in the window: of the parts with data what is in memory; of those without, on
 * request, what was allocated for later use, which neither lseek(2) nor mincore(2) reports. */
static int fill(const struct sh_window *window, int faults)
{
    uint64_t end = window->offset + window->size;

    if (!window->unwritten)
        return map_resident(window, faults, window->address, window->address + window->size);
    for (uint64_t offset = window->offset; offset < end;) {
        uint64_t to_address = window->address - window->offset;
        off_t data = lseek(window->file, (off_t)offset, SEEK_DATA);
        off_t hole = data < 0 ? data : lseek(window->file, data, SEEK_HOLE);
        uint64_t first, last;
        int error;

        if ((data < 0 || hole < 0) && errno != ENXIO)
            return errno;
        first = data < 0 || (uint64_t)data > end ? end : (uint64_t)data;
        last = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
        last = (last + window->page_size - 1) / window->page_size * window->page_size;
        error = map_existing(window, faults, offset + to_address, first + to_address);
        if (!error && last > first)
            error = map_resident(window, faults, first + to_address, last + to_address);
        if (error)
            return error;
        offset = last;
    }
    return 0;
}

static int drop(uint64_t start, uint64_t end)
{
    if (start < end && madvise((void *)(uintptr_t)start, end - start, MADV_DONTNEED))
        return errno;
    return 0;
}

/* Unmap the pages that another address space maps too: they are reached through that one. */
static int drop_mapped_elsewhere(const struct sh_window *window)
{
    uint64_t entries[PAGEMAP_ENTRIES], base = window->base_size, step = window->page_size;
    uint64_t end = window->address + window->size, run = window->address;

    for (uint64_t at = window->address; at < end;) {
        size_t count = step > base ? 1 : (end - at) / base;
        ssize_t got;

        if (count > PAGEMAP_ENTRIES)
            count = PAGEMAP_ENTRIES;
        do
            got = pread(window->pagemap, entries, count * sizeof *entries,
                        (off_t)(at / base * sizeof *entries));
        while (got < 0 && errno == EINTR);
        if (got < (ssize_t)sizeof *entries)
            return got < 0 ? errno : EIO;
        for (size_t i = 0; i < (size_t)got / sizeof *entries; i++, at += step) {
            bool elsewhere = (entries[i] & PAGEMAP_PRESENT) && !(entries[i] & PAGEMAP_EXCLUSIVE);
            int error = elsewhere ? 0 : drop(run, at);

            if (error)
                return error;
            if (!elsewhere)
                run = at + step;
        }
    }
    return drop(run, end);
}

int sh_window_open(struct sh_window *window)
{
    /* A private mapping counts as no writer, so the job can still seal a memfd. A hugetlbfs mapping
     * must not reserve pages of the pool. */
    void *address = mmap(NULL, window->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, window->file,
                         (off_t)window->offset);
    int faults, error;

    if (address == MAP_FAILED)
        return errno;
    window->address = (uint64_t)(uintptr_t)address;
    /* Only a hint: unmapping must not mark the pages as used. */
    madvise(address, window->size, MADV_SEQUENTIAL);
    faults = open_faults(window);
    if (faults >= 0) {
        error = fill(window, faults);
        close(faults);
    } else {
        error = -faults;
    }
    if (!error)
        error = drop_mapped_elsewhere(window);
    if (error)
        sh_window_close(window);
    return error;
}

int sh_window_close(struct sh_window *window)
{
    void *address = (void *)(uintptr_t)window->address;

    window->address = 0;
    return address && munmap(address, window->size) ? errno : 0;
}

int sh_identify(int fd, struct sh_identity *identity)
{
    struct statx found;

    memset(&found, 0, sizeof found);
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO,
                &found))
        return errno;
    *identity = (struct sh_identity){.major = found.stx_dev_major,
                                     .minor = found.stx_dev_minor,
                                     .inode = found.stx_ino,
                                     .mode = found.stx_mode};
    return 0;
}
