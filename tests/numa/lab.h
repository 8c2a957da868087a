/* What several of these programs do. */
#ifndef SCHEDHOOK_TESTS_LAB_H
#define SCHEDHOOK_TESTS_LAB_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Run the calling thread on the first processor of a node. */
static inline void run_on(int node)
{
    char path[100], list[100];
    cpu_set_t set;
    FILE *file;

    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    file = fopen(path, "r");
    if (!file || !fgets(list, sizeof list, file))
        die(path);
    fclose(file);
    CPU_ZERO(&set);
    CPU_SET(atoi(list), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        die("sched_setaffinity");
}

#endif
