/* The engine's calls to the kernel, without any logic. */
#include "engine.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* _IOWR('f', 16, struct pm_scan_arg), 12 words of 64 bits; <linux/fs.h> of Linux 6.7. */
#define SH_PAGEMAP_SCAN _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 96)

long sh_move_pages(pid_t pid, size_t count, void *const *pages, const int *nodes, int *status,
                   int flags)
{
    return syscall(SYS_move_pages, pid, count, pages, nodes, status, flags);
}

ssize_t sh_read_pagemap(int fd, void *buffer, size_t size, uint64_t offset)
{
    return pread(fd, buffer, size, (off_t)offset);
}

int sh_scan_pagemap(int fd, void *arguments)
{
    return ioctl(fd, SH_PAGEMAP_SCAN, arguments);
}

bool sh_exited(int pidfd, int task)
{
    struct pollfd poller = {.fd = pidfd, .events = POLLIN};
    char byte;

    return (pidfd >= 0 && poll(&poller, 1, 0) == 1) || (task >= 0 && pread(task, &byte, 1, 0) < 0);
}

uint64_t sh_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
