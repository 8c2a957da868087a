/* A SPANK plug-in for Slurm: users choose by `--relocation=off|gentle|follow` of srun, sbatch and
 * salloc what schedhook may do with their job's memory.
 *
 * The word goes into the variable SCHEDHOOK of the job's environment, where schedhook looks for it.
 * Without the option nothing changes. Built against the Slurm that loads it; another version of
 * Slurm leaves it out. See spank(7), and README.md one directory above. */
#include <slurm/slurm_errno.h>
#include <slurm/spank.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

SPANK_PLUGIN(schedhook, 1);

#define OPTION "relocation"
#define VARIABLE "SCHEDHOOK"

static const char *const choices[] = {"off", "gentle", "follow"};
static const char *chosen;

/* Keep the user's choice, in srun and later in slurmstepd; return whether it is one. */
static int choose(int value, const char *word, int remote)
{
    (void)value;
    (void)remote;
    for (size_t i = 0; word && i < sizeof choices / sizeof *choices; i++) {
        if (!strcmp(word, choices[i])) {
            chosen = choices[i];
            return ESPANK_SUCCESS;
        }
    }
    return ESPANK_BAD_ARG;
}

static struct spank_option option = {
    .name = OPTION,
    .arginfo = "off|gentle|follow",
    .usage = "what schedhook does with the job's memory if its processors change: nothing, move it "
             "gently, or move it at once",
    .has_arg = 1,
    .val = 0,
    .cb = choose,
};

/* Offer the option in every context: only so do sbatch and salloc have it, too. */
int slurm_spank_init(spank_t spank, int count, char **arguments)
{
    (void)count;
    (void)arguments;
    if (spank_option_register(spank, &option) != ESPANK_SUCCESS)
        slurm_error("schedhook: the option --" OPTION " cannot be offered");
    return ESPANK_SUCCESS;
}

/* In slurmstepd, before it starts a step's tasks: tell them, and their TaskProlog. */
int slurm_spank_user_init(spank_t spank, int count, char **arguments)
{
    (void)count;
    (void)arguments;
    if (chosen && spank_setenv(spank, VARIABLE, chosen, true) != ESPANK_SUCCESS)
        slurm_error("schedhook: cannot set " VARIABLE "=%s", chosen);
    return ESPANK_SUCCESS;
}
