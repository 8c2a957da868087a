/* The sizes of pages. PAGE is that of the host; the compiler gets it (programs.py). */
#ifndef SCHEDHOOK_TESTS_PAGES_H
#define SCHEDHOOK_TESTS_PAGES_H

/* A huge page has as many pages as one page of a page table has entries. */
#define HUGE (PAGE * PAGE / sizeof(void *))

#endif
