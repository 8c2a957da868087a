/* Where pages are. */
#ifndef SCHEDHOOK_LOCATE_H
#define SCHEDHOOK_LOCATE_H

#include "engine.h"

/* Query where the pages are: a node, or a negative errno. Linux 6.1 to 6.4 do not find a page that
 * is there but hidden, such as one that NUMA balancing has marked. A small page is ENOENT then, a
 * transparent huge page EFAULT, as the zero page always is. If frames give nodes, its frame gives
 * the node, and it is `hidden`. Returns 0 or errno. */
int sh_query(const struct sh_range *range, size_t count, void *const *pages, int *status,
             bool *hidden);

/* The errno that ended a sweep or a query. If the address space is gone, calls fail with EINVAL; if
 * the process has become another program, they can fail with EPERM. */
int sh_explain(const struct sh_range *range, int error);

#endif
