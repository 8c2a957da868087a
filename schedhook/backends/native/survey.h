/* Counts the pages of a range by node, each physical page once over all ranges of a survey. */
#ifndef SCHEDHOOK_SURVEY_H
#define SCHEDHOOK_SURVEY_H

#include "engine.h"

#define SH_NODES 1024             /* the most that Linux can be built for */
#define SH_MAX_EXTENTS (1u << 20) /* 16 MiB; what comes later is in the last one, with its gaps */

/* Frames that were seen: a bitmap in chunks of 32 KiB, each for 2^18 frames (1 GiB of base pages of
 * 4 KiB), which are made when they are needed. A terabyte takes 32 MiB. */
struct sh_frames {
    uint64_t **chunks;
    size_t count;
};

void sh_frames_free(struct sh_frames *frames);

/* Which pages of a private mapping of a file to look at. */
enum sh_part { SH_ALL, SH_COPIES, SH_ORIGINALS };

struct sh_survey {
    uint64_t bytes[SH_NODES];  /* by node: the pages that were not seen before */
    struct sh_extent *extents; /* where they are */
    size_t count, room;
    bool skipped; /* other pages are present, too */
};

/* Look at one part of a range's present pages, and add their frames to `frames`, if not NULL: pages
 * that are in it already are skipped. Returns 0 or errno, as sh_locate. */
int sh_survey(const struct sh_range *range, struct sh_frames *frames, enum sh_part part,
              struct sh_survey *survey);

#endif
