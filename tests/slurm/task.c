/* A task of a job: memory filled where the task runs first, and a result that depends on all of it.
 *
 *   task MIB STOP [THREADS]
 *
 * Fills MIB mebibytes, makes a file STOP.RANK.PID, starts THREADS sleeping threads (0), rewrites a
 * word of some page now and then, and once the file STOP exists says "rank RANK right" or "wrong".
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WORDS_PER_PAGE 512ul

static void *sleep_on(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

static void make_file(const char *stop, const char *rank)
{
    char name[512];
    FILE *file;

    snprintf(name, sizeof name, "%s.%s.%d", stop, rank, (int)getpid());
    file = fopen(name, "w");
    if (!file || fclose(file))
        exit(2);
}

int main(int count, char **words)
{
    const char *rank = getenv("SLURM_PROCID");
    size_t length, page = 0, wrong = 0;
    uint64_t *memory;

    if (count < 3 || !rank)
        return 2;
    length = strtoul(words[1], NULL, 10) << 17;
    memory = malloc(length * sizeof *memory);
    if (!memory)
        return 2;
    for (size_t word = 0; word < length; word++)
        memory[word] = word * 2654435761u;
    for (int left = count > 3 ? atoi(words[3]) : 0; left > 0; left--) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, sleep_on, NULL))
            return 2;
    }
    make_file(words[2], rank);
    while (access(words[2], F_OK)) {
        uint64_t *first = memory + page * WORDS_PER_PAGE;

        *(volatile uint64_t *)first = page * WORDS_PER_PAGE * 2654435761u;
        page = (page + 7919) % (length / WORDS_PER_PAGE);
        usleep(2000);
    }
    for (size_t word = 0; word < length; word++)
        wrong += memory[word] != word * 2654435761u;
    printf("rank %s %s\n", rank, wrong ? "wrong" : "right");
    return wrong != 0;
}
