/* A program that holds the lock of its address space, since a file that it maps never answers.
 *
 *     hung FILE USER
 *
 * It mounts a FUSE file system of one file on FILE, as root, and serves it. The server answers all
 * requests but writes. A child, as USER, fills 4 MiB of its own memory, and changes a page of the
 * file again and again. Once the kernel has begun to write the page back, the next page fault waits
 * for that, with the lock held. Another thread then unmaps the file, and waits for the lock; from
 * then on no thread can take it to read. All threads are started before: each needs the lock for
 * its stack, and before Linux 6.4 a page fault on a file has all of it, not that of one mapping.
 *
 * The program prints `ready PID`, the child's, and serves until it is killed. Three threads of the
 * child wait in the kernel (state D) soon afterwards. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES 65536
#define OWN_BYTES (4 << 20)

static char *page; /* of the file */

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void *write_back(void *unused)
{
    for (;;) {
        msync(page, FILE_BYTES, MS_SYNC);
        usleep(1000);
    }
    return unused;
}

static void *change(void *number)
{
    *(pid_t *)number = gettid();
    for (;;)
        ++*(volatile char *)page;
    return number;
}

/* Return whether the thread waits in the kernel, deaf to signals. */
static int is_stuck(pid_t thread)
{
    char path[64], text[256] = "";
    int file;

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    if ((file = open(path, O_RDONLY)) < 0 || read(file, text, sizeof text - 1) < 0)
        fail(path);
    close(file);
    return strstr(text, ") D ") != NULL;
}

static void *unmap(void *number)
{
    volatile pid_t *changing = number;
    int looks = 0;

    while (looks < 50) { /* in a row: it may also wait for a moment */
        looks = *changing && is_stuck(*changing) ? looks + 1 : 0;
        usleep(10000);
    }
    munmap(page, FILE_BYTES);
    return number;
}

static void start(void *(*work)(void *), pid_t *number)
{
    pthread_t thread;

    if ((errno = pthread_create(&thread, NULL, work, number)))
        fail("pthread_create");
}

static void hold(const char *path, int user)
{
    char *own = mmap(NULL, OWN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static pid_t changing;
    struct stat status;
    int file;

    file = open(path, O_RDWR);
    fstat(file, &status); /* the kernel asks for the size only now */
    if (setgid(user) || setuid(user))
        fail("setuid");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    memset(own, 1, OWN_BYTES);
    page = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || page == MAP_FAILED)
        fail(path);
    (void)*(volatile char *)page; /* read it now: only a write is to wait */
    printf("ready %d\n", getpid());
    fflush(stdout);
    start(unmap, &changing);
    start(write_back, NULL);
    start(change, &changing); /* the last: its page fault may hold what a new stack needs */
    pause();
}

static void answer(int device, const struct fuse_in_header *request, int error, const void *data,
                   size_t size)
{
    struct fuse_out_header header = {
        .len = sizeof header + size, .error = error, .unique = request->unique};
    char reply[sizeof header + FILE_BYTES];

    memcpy(reply, &header, sizeof header);
    memcpy(reply + sizeof header, data, size);
    if (write(device, reply, header.len) < 0 && errno != ENOENT)
        fail("answer");
}

static void serve(int device)
{
    static char buffer[1 << 20], zeros[FILE_BYTES];
    const struct fuse_in_header *request = (const void *)buffer;
    struct fuse_attr_out attributes = {
        .attr_valid = 3600,
        .attr = {.ino = 1, .size = FILE_BYTES, .mode = S_IFREG | 0666, .nlink = 1}};
    struct fuse_open_out opened = {.fh = 1};
    struct fuse_init_out init = {
        .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = FILE_BYTES};
    const struct fuse_read_in *wanted = (const void *)(request + 1);

    while (read(device, buffer, sizeof buffer) > 0) {
        switch (request->opcode) {
        case FUSE_INIT:
            answer(device, request, 0, &init, sizeof init);
            break;
        case FUSE_GETATTR:
        case FUSE_SETATTR:
            answer(device, request, 0, &attributes, sizeof attributes);
            break;
        case FUSE_OPEN:
            answer(device, request, 0, &opened, sizeof opened);
            break;
        case FUSE_READ:
            answer(device, request, 0, zeros,
                   wanted->size < FILE_BYTES ? wanted->size : FILE_BYTES);
            break;
        case FUSE_WRITE:
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT:
            break;
        default:
            answer(device, request, -ENOSYS, NULL, 0);
        }
    }
}

int main(int argc, char **argv)
{
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    char options[128];
    pid_t child;

    if (argc != 3 || device < 0)
        fail("hung FILE USER");
    snprintf(options, sizeof options, "fd=%d,rootmode=100666,user_id=0,group_id=0,allow_other",
             device);
    if (mount("hung", argv[1], "fuse", MS_NOSUID | MS_NODEV, options))
        fail("mount");
    signal(SIGCHLD, _exit);
    if ((child = fork()) < 0)
        fail("fork");
    if (!child) {
        close(device);
        hold(argv[1], atoi(argv[2]));
        return 1;
    }
    serve(device);
    return 1;
}
