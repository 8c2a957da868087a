/* Runs the engine over a fake kernel: named scenarios, then random ones by seed. Each is checked
 * against what really happened to every page. Usage: engine_test FIRST_SEED COUNT. */
#include "fake_kernel.h"
#include "survey.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *scenario;

#define check(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s: %s:%d: %s: ", scenario, __FILE__, __LINE__, #condition);          \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

struct setup {
    struct sh_range range;
    struct sh_options options;
    int32_t destination[MAX_NODES];
    uint64_t moved[MAX_NODES];
    struct sh_result result;
    struct sh_span spans[MAX_NODES];
    struct sh_extent only[MAX_PAGES];
};

static void setup_reset(struct setup *setup)
{
    memset(setup, 0, sizeof *setup);
    memset(setup->destination, -1, sizeof setup->destination);
    setup->range = (struct sh_range){.pid = 1,
                                     .pidfd = 1,
                                     .task = -1,
                                     .pagemap = PAGEMAP_FD,
                                     .start = START,
                                     .page_size = BASE,
                                     .base_size = BASE,
                                     .folio_size = FOLIO * BASE,
                                     .use_scan = true,
                                     .kpageflags = KPAGEFLAGS_FD};
    setup->options = (struct sh_options){
        .destination = setup->destination, .nodes = MAX_NODES, .flags = 2, .batch_bytes = 8 << 20};
    setup->result.moved = setup->moved;
    world_reset();
}

static int sweep(struct setup *setup)
{
    if (!setup->range.end)
        setup->range.end = START + world.count * BASE;
    world_begin(setup->destination);
    return sh_sweep(&setup->range, &setup->options, &setup->result);
}

/* Let the engine derive nodes from frames, for the first `nodes` nodes. */
static void tell_frames(struct setup *setup, size_t nodes)
{
    for (size_t node = 0; node < nodes; node++)
        setup->spans[node] = (struct sh_span){
            .start = node * NODE_FRAMES, .end = (node + 1) * NODE_FRAMES, .node = (int64_t)node};
    setup->range.spans = setup->spans;
    setup->range.span_count = nodes;
    world.frames_known = nodes > 0;
}

static uint64_t stayed(const struct setup *setup, int error)
{
    uint64_t size = 0;

    for (size_t i = 0; i < setup->result.failure_count; i++)
        if (!error || setup->result.failures[i].error == error)
            size += setup->result.failures[i].size;
    return size;
}

/* ---- named scenarios ------------------------------------------------------------------------ */

static void map_small(size_t first, size_t count, int node)
{
    for (size_t i = 0; i < count; i++)
        world_map(first + i, 1, node, false);
}

static void fail(struct folio *folio, enum fault fault, int times)
{
    folio->fault = fault;
    folio->times = times;
}

/* The kernel stops at a collection that fails to move, here at a page that is already at its
 * destination. The pages behind it were not tried and must not be reported as failed. */
static void untried_pages_are_tried(struct setup *setup)
{
    setup->destination[0] = 1;
    map_small(0, 40, 0);
    fail(world.page[3], STUCK, FOREVER);
    world.event.call = 4; /* between the query and the move */
    world.event.page = 5;
    world.event.node = 1;
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 39 * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, 0) == BASE && stayed(setup, EAGAIN) == BASE, "-");
}

static void errors_are_not_believed(struct setup *setup)
{
    setup->destination[0] = 1;
    map_small(0, 10, 0);
    fail(world.page[2], UNMOVABLE, FOREVER);
    fail(world.page[4], MIGRATING, FOREVER);
    fail(world.page[6], SHARED, FOREVER);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 7 * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, EFAULT) == BASE, "no EFAULT");
    check(stayed(setup, EBUSY) == BASE, "no EBUSY");
    check(stayed(setup, EACCES) == BASE, "no EACCES");
}

/* Only frames show hidden pages. */
static void hidden_pages_are_told(struct setup *setup, size_t known)
{
    setup->destination[0] = 1;
    setup->range.use_scan = false;
    map_small(0, 10, 0);
    world_map(FOLIO, FOLIO, 0, false);
    world_map(2 * FOLIO, FOLIO, 0, false);
    fail(world.page[3], HIDDEN, FOREVER);
    fail(world.page[FOLIO], HIDDEN, FOREVER);
    tell_frames(setup, known);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == (9 + FOLIO) * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, ENOENT) == (known ? 1 + FOLIO : 0) * BASE, "%" PRIu64,
          stayed(setup, ENOENT));
    check(stayed(setup, 0) == stayed(setup, ENOENT), "-");
}

static void small_pages_in_a_row_are_no_folio(struct setup *setup)
{
    setup->destination[0] = 1;
    setup->range.use_scan = false;
    for (size_t i = 0; i < 2 * FOLIO; i++)
        world_map(i, 1, 0, true);
    fail(world.page[0], BUSY, FOREVER);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == (2 * FOLIO - 1) * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, EBUSY) == BASE, "-");
}

/* If no huge page is free, a pinned one fails with ENOMEM alone: the node is not full. */
static void one_that_finds_no_room_does_not_stop_the_others(struct setup *setup)
{
    setup->destination[0] = 1;
    setup->options.batch_bytes = FOLIO * BASE;
    world.fragmented[1] = true;
    for (size_t i = 0; i < 5; i++)
        world_map(i * FOLIO, FOLIO, 0, false);
    map_small(5 * FOLIO, FOLIO, 0);
    fail(world.page[FOLIO], STUCK, FOREVER);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 5 * FOLIO * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, ENOMEM) == FOLIO * BASE && stayed(setup, 0) == FOLIO * BASE, "-");
}

/* A node that is really full is not tried for each page. */
static void a_full_node_is_found_out_soon(struct setup *setup)
{
    setup->destination[0] = 1;
    setup->options.batch_bytes = 64 << 10;
    map_small(0, 4096, 0);
    world.free[1] = 0;
    check(sweep(setup) == 0, "-");
    check(stayed(setup, ENOMEM) == 4096 * BASE && stayed(setup, 0) == 4096 * BASE, "-");
    check(world.move_calls <= 16, "%ld calls", world.move_calls);
}

static void folios_go_as_one_address(struct setup *setup, bool scan)
{
    setup->destination[0] = 1;
    setup->range.use_scan = scan;
    for (size_t i = 0; i < 8; i++)
        world_map(i * FOLIO, FOLIO, 0, false);
    fail(world.page[2 * FOLIO], STUCK, FOREVER);
    world.whole_folios = true;
    setup->options.batch_bytes = 5 * FOLIO * BASE / 2;
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 7 * FOLIO * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, EAGAIN) == FOLIO * BASE, "-");
    check(world.move_calls == 4, "%ld calls", world.move_calls);
    check(world.largest_call == 2 * FOLIO * BASE, "%" PRIu64 " bytes", world.largest_call);
}

/* Each flag that is read costs time. */
static void few_flags_are_read(struct setup *setup, bool scan)
{
    setup->destination[0] = 1;
    setup->range.use_scan = scan;
    for (size_t i = 0; i < 8; i++)
        world_map(i * FOLIO, FOLIO, 0, false);
    map_small(8 * FOLIO, 100, 0);
    world.whole_folios = true;
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == (8 * FOLIO + 100) * BASE, "%" PRIu64, setup->moved[0]);
    /* Of a folio of 16 pages the first; those 1, 2, 4, 8 behind it; and of the last page. */
    check(world.flags_read <= 8 * (scan ? 1 : 5) + 1, "%" PRIu64, world.flags_read);
}

/* A folio twice as large as the huge pages that a page table maps. */
static void a_larger_folio_goes_as_one_address(struct setup *setup, bool scan)
{
    world.mixed = true;
    setup->destination[0] = 1;
    setup->range.use_scan = scan;
    world_map(3, 2 * FOLIO, 0, false);
    world_map(3 + 2 * FOLIO, FOLIO, 0, true);
    world.whole_folios = true;
    setup->options.batch_bytes = BASE;
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 3 * FOLIO * BASE, "%" PRIu64, setup->moved[0]);
    check(world.move_calls == 2, "%ld calls", world.move_calls);
}

/* Each page is a batch of its own, so the rest of a folio that was cut would come back. */
static void a_folio_that_was_read_in_part_is_read_again(struct setup *setup, size_t read_before)
{
    size_t first = 4096 - read_before, pages = 2 * FOLIO;

    world.mixed = true;
    setup->destination[0] = 1;
    setup->destination[1] = 0;
    setup->range.use_scan = false;
    setup->options.batch_bytes = BASE;
    map_small(0, first, 0);
    world_map(first, pages, 0, false);
    check(sweep(setup) == 0, "-");
    check(world.page[first]->node == 1, "-");
    check(setup->moved[0] == (first + pages) * BASE, "%" PRIu64, setup->moved[0]);
    check(setup->moved[1] == 0, "%" PRIu64, setup->moved[1]);
}

/* Folios of 64 KiB in a mapping that begins 3 pages beside a folio's boundary, in small batches. */
static void no_batch_cuts_a_folio(struct setup *setup, bool scan)
{
    world.mixed = true;
    setup->destination[0] = 1;
    setup->destination[1] = 0;
    setup->range.use_scan = scan;
    for (size_t i = 0; i < 4096; i += 8)
        world_map(3 + i, 8, i / 8 % 2, false);
    setup->options.batch_bytes = 3 * BASE;
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 2048 * BASE, "%" PRIu64, setup->moved[0]);
    check(setup->moved[1] == 2048 * BASE, "%" PRIu64, setup->moved[1]);
    check(world.page[3]->node == 1 && world.page[11]->node == 0, "-");
}

static void a_cut_is_moved_to_the_end_of_a_folio(struct setup *setup)
{
    for (size_t i = 0; i < 64; i += 8)
        world_map(3 + i, 8, 0, true);
    setup->range.end = START + 64 * BASE;
    for (size_t i = 1; i < 32; i++) {
        size_t end = i < 3 ? i : (i - 3 + 7) / 8 * 8 + 3;

        setup->range.start = START + i * BASE;
        check(sh_boundary(&setup->range) == START + end * BASE, "%zu", i);
    }
    for (size_t i = 20; i < 36; i++) /* a hole within a folio, and one between two */
        if (i < 23 || i >= 33)
            world.page[i] = NULL;
    for (size_t i = 21; i <= 36; i++) {
        size_t end = i; /* in a hole */

        if (i >= 23 && i < 28)
            end = 27;
        else if (i >= 28 && i < 34)
            end = 33; /* what the folio has behind it is not mapped */
        else if (i == 36)
            end = 43; /* nor is this folio's first page */
        setup->range.start = START + i * BASE;
        check(sh_boundary(&setup->range) == START + end * BASE, "%zu", i);
    }
    world.frames_hidden = true;
    check(sh_boundary(&setup->range) == 0, "-");
}

static void split_folio_is_counted_in_parts(struct setup *setup)
{
    setup->destination[0] = 1;
    world_map(0, FOLIO, 0, false);
    world_map(FOLIO, FOLIO, 0, false);
    world.fragmented[1] = true;
    world.free[1] = FOLIO + 5;
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == (FOLIO + 5) * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, ENOMEM) == (FOLIO - 5) * BASE, "%" PRIu64, stayed(setup, ENOMEM));
}

static void folio_that_lost_its_head_is_moved_in_parts(struct setup *setup)
{
    setup->destination[0] = 1;
    world_map(0, FOLIO, 0, false);
    world_map(FOLIO, FOLIO, 0, false);
    world.event.call = 3; /* between the scan and the first query */
    world.event.node = -1;
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == (2 * FOLIO - 1) * BASE, "%" PRIu64, setup->moved[0]);
}

/* The first page is on the new node by the time at which its entry is read; the others are not. */
static void folio_whose_head_was_replaced_is_moved_in_parts(struct setup *setup)
{
    size_t folios = 300;

    setup->destination[0] = 1;
    for (size_t i = 0; i < folios; i++)
        world_map(i * FOLIO, FOLIO, 0, false);
    world.event.call = 140; /* after the first batch */
    world.event.page = (folios - 1) * FOLIO;
    world.event.node = 1;
    world.event.replaced = true;
    check(sweep(setup) == 0, "-");
    check(world.move_calls > 1, "-");
    check(setup->moved[0] == (folios * FOLIO - 1) * BASE, "%" PRIu64, setup->moved[0]);
    check(world.page[folios * FOLIO - 1]->node == 1, "-");
}

/* Its scan takes it for any huge page on Linux 6.7. */
static void the_huge_zero_page_is_not_counted(struct setup *setup, bool scan)
{
    struct sh_survey survey = {0};

    setup->range.use_scan = scan;
    world_map(0, FOLIO, 0, false);
    fail(world_map(FOLIO, FOLIO, 0, false), ZERO, FOREVER);
    world.scans_zero = true;
    tell_frames(setup, MAX_NODES);
    setup->range.end = START + world.count * BASE;
    check(sh_survey(&setup->range, NULL, SH_ALL, &survey) == 0, "-");
    check(survey.bytes[0] == FOLIO * BASE, "%" PRIu64, survey.bytes[0]);
    free(survey.extents);
}

static void more_failures_than_fit(struct setup *setup)
{
    const struct sh_result *result = &setup->result;

    setup->destination[0] = 1;
    map_small(0, 3000, 0);
    for (size_t i = 0; i < 3000; i += 2)
        fail(world.page[i], i % 4 ? STUCK : BUSY, FOREVER);
    fail(world.page[2998], SHARED, FOREVER);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 1500 * BASE, "%" PRIu64, setup->moved[0]);
    check(stayed(setup, 0) == 1500 * BASE, "%" PRIu64, stayed(setup, 0));
    check(stayed(setup, EACCES) == BASE && stayed(setup, EBUSY) == 750 * BASE, "-");
    check(result->failure_count <= SH_MAX_FAILURES, "%zu", result->failure_count);
}

static void a_call_is_bounded_in_time(struct setup *setup)
{
    setup->destination[0] = 1;
    map_small(0, 4000, 0);
    setup->options.batch_bytes = 6 << 20;
    setup->options.call_ns = 100 * 1000; /* 100 pages take 101 us */
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 4000 * BASE, "%" PRIu64, setup->moved[0]);
    check(world.slowest_call <= 300 * 1000, "%" PRIu64 " ns", world.slowest_call);
    check(world.move_calls > 40 && world.move_calls < 120, "%ld calls", world.move_calls);
    check((long)setup->result.calls == world.move_calls, "-");
}

static void a_fast_target_gets_large_calls(struct setup *setup)
{
    setup->destination[0] = 1;
    map_small(0, 4000, 0);
    setup->options.batch_bytes = 3 << 20; /* not a power of two times the first batch */
    setup->options.call_ns = 1000 * 1000 * 1000;
    check(sweep(setup) == 0, "-");
    check(world.largest_call == 3 << 20, "%" PRIu64 " bytes", world.largest_call);
}

/* With few pages of a batch on the source, calls are short and say nothing about full batches. */
static void a_short_call_does_not_grow_the_batch(struct setup *setup)
{
    setup->destination[0] = 1;
    map_small(0, 6000, 2);
    for (size_t i = 0; i < 3000; i += 100)
        world.page[i]->node = 0;
    for (size_t i = 3000; i < 6000; i++)
        world.page[i]->node = 0;
    setup->options.batch_bytes = 64 << 20;
    setup->options.call_ns = 300 * 1000; /* 300 pages, and the first batch has 256 */
    check(sweep(setup) == 0, "-");
    check(world.slowest_call <= 300 * 1000, "%" PRIu64 " ns", world.slowest_call);
}

/* Nodes that frame numbers give are not queried; the others are. */
static void frames_tell_nodes(struct setup *setup, size_t known)
{
    setup->destination[0] = 1;
    setup->range.use_scan = false;
    setup->options.batch_bytes = 10 * BASE;
    map_small(0, 30, 0);
    map_small(30, 30, 3);
    tell_frames(setup, known);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 30 * BASE, "%" PRIu64, setup->moved[0]);
    check(world.move_calls == 3, "%ld calls", world.move_calls);
    /* The fourth call reads pagemap; the last batches can be on a node whose frames are unknown. */
    check(world.calls == (known > 3 ? 4 : 7), "%ld calls", world.calls);
}

static void exit_is_told(struct setup *setup, bool scan, bool zombie)
{
    for (long call = 1; call < 8; call++) {
        setup_reset(setup);
        setup->destination[0] = 1;
        setup->range.use_scan = scan;
        setup->options.batch_bytes = 16 * BASE;
        map_small(0, 2000, 0);
        world.exit_at = call;
        world.zombie = zombie;
        int error = sweep(setup);
        check(error == ESRCH, "%d after call %ld", error, call);
    }
}

/* Results about another process that has got the number must not count. */
static void a_stranger_is_not_counted(struct setup *setup, bool scan)
{
    for (long call = 1; call < 12; call++) {
        setup_reset(setup);
        setup->destination[0] = 1;
        setup->range.use_scan = scan;
        setup->options.batch_bytes = 16 * BASE;
        map_small(0, 2000, 0);
        world.exit_at = call;
        world.reused = true;
        int error = sweep(setup);
        check(error == ESRCH, "%d after call %ld", error, call);
        check(setup->moved[0] <= world.moved_before_exit * BASE, "call %ld", call);

        setup_reset(setup);
        setup->range.use_scan = scan;
        map_small(0, 2000, 0);
        world.exit_at = call;
        world.reused = true;
        struct sh_runs runs = {0};
        setup->range.end = START + world.count * BASE;
        error = sh_locate(&setup->range, &runs);
        check(error == (world.dead ? ESRCH : 0), "%d after call %ld", error, call);
        free(runs.items);
    }
}

/* Small pages, then two huge ones, of which one is selected in part: that one stays as a whole. */
static void only_what_is_meant_moves(struct setup *setup, bool scan)
{
    struct sh_extent only[] = {{START + BASE, START + 3 * BASE},
                               {START + 5 * BASE, START + 6 * BASE},
                               {START + FOLIO * BASE, START + (2 * FOLIO + 1) * BASE}};
    bool meant[FOLIO] = {[1] = true, [2] = true, [5] = true};

    setup->destination[0] = 1;
    setup->range.use_scan = scan;
    setup->options.only = only;
    setup->options.only_count = 3;
    setup->options.batch_bytes = 2 * BASE;
    map_small(0, 8, 0);
    world_map(FOLIO, FOLIO, 0, false);
    world_map(2 * FOLIO, FOLIO, 0, false);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == (3 + FOLIO) * BASE, "%" PRIu64, setup->moved[0]);
    check(setup->result.failure_count == 0, "-");
    for (size_t i = 0; i < 8; i++)
        check(world.page[i]->node == (meant[i] ? 1 : 0), "page %zu", i);
    check(world.page[FOLIO]->node == 1 && world.page[2 * FOLIO]->node == 0, "-");
}

/* Pages of two areas, a terabyte of address space behind them, and one call for both. */
static void what_is_between_costs_nothing(struct setup *setup, bool scan)
{
    struct sh_extent only[] = {{START, START + 2 * BASE},
                               {START + 20 * BASE, START + 21 * BASE},
                               {START + 5000 * BASE, START + 5001 * BASE}};

    setup->destination[0] = 1;
    setup->range.use_scan = scan;
    setup->range.end = START + (1ull << 40);
    setup->options.only = only;
    setup->options.only_count = 3;
    map_small(0, 2, 0);
    map_small(20, 1, 0);
    map_small(4000, 1, 0);
    map_small(5000, 1, 0);
    check(sweep(setup) == 0, "-");
    check(setup->moved[0] == 4 * BASE, "%" PRIu64, setup->moved[0]);
    check(world.page[4000]->node == 0, "it is between them");
    check(world.move_calls == 1, "%ld calls", world.move_calls);
    check(world.looked_at <= 4 * FOLIO, "%" PRIu64 " pages", world.looked_at);
}

static void whole_call_errors_come_back(struct setup *setup)
{
    setup->destination[0] = 1;
    map_small(0, 10, 0);
    world.absent[1] = true;
    check(sweep(setup) == ENODEV, "-");
    check(setup->moved[0] == 0 && setup->result.failure_count == 0, "-");
}

static void nothing_to_do_calls_nothing(struct setup *setup)
{
    setup->destination[0] = 1;
    map_small(0, 10, 2);
    map_small(10, 10, 1);
    check(sweep(setup) == 0 && world.move_calls == 0 && setup->result.calls == 0, "-");
    setup->range.start = setup->range.end;
    check(sweep(setup) == 0, "an empty range");
}

static void can_scan_asks_the_kernel(void)
{
    check(sh_can_scan(PAGEMAP_FD), "-");
    check(!sh_can_scan(KPAGEFLAGS_FD), "-");
}

static void named_scenarios(void)
{
    static struct setup setup;

#define run(call)                                                                                  \
    do {                                                                                           \
        scenario = #call;                                                                          \
        setup_reset(&setup);                                                                       \
        world_seed(1);                                                                             \
        call;                                                                                      \
        check(!world.complaint, "%s", world.complaint);                                            \
        printf("ok %s\n", scenario);                                                               \
    } while (0)

    run(untried_pages_are_tried(&setup));
    run(errors_are_not_believed(&setup));
    run(hidden_pages_are_told(&setup, 1));
    run(hidden_pages_are_told(&setup, 0));
    run(small_pages_in_a_row_are_no_folio(&setup));
    run(one_that_finds_no_room_does_not_stop_the_others(&setup));
    run(a_full_node_is_found_out_soon(&setup));
    run(folios_go_as_one_address(&setup, true));
    run(folios_go_as_one_address(&setup, false));
    run(few_flags_are_read(&setup, true));
    run(few_flags_are_read(&setup, false));
    run(a_larger_folio_goes_as_one_address(&setup, true));
    run(a_larger_folio_goes_as_one_address(&setup, false));
    run(a_folio_that_was_read_in_part_is_read_again(&setup, 1));
    run(a_folio_that_was_read_in_part_is_read_again(&setup, FOLIO));
    run(no_batch_cuts_a_folio(&setup, true));
    run(no_batch_cuts_a_folio(&setup, false));
    run(a_cut_is_moved_to_the_end_of_a_folio(&setup));
    run(split_folio_is_counted_in_parts(&setup));
    run(folio_that_lost_its_head_is_moved_in_parts(&setup));
    run(folio_whose_head_was_replaced_is_moved_in_parts(&setup));
    run(the_huge_zero_page_is_not_counted(&setup, true));
    run(the_huge_zero_page_is_not_counted(&setup, false));
    run(more_failures_than_fit(&setup));
    run(a_call_is_bounded_in_time(&setup));
    run(a_fast_target_gets_large_calls(&setup));
    run(a_short_call_does_not_grow_the_batch(&setup));
    run(frames_tell_nodes(&setup, MAX_NODES));
    run(frames_tell_nodes(&setup, 2));
    run(exit_is_told(&setup, true, false));
    run(exit_is_told(&setup, true, true));
    run(exit_is_told(&setup, false, false));
    run(exit_is_told(&setup, false, true));
    run(a_stranger_is_not_counted(&setup, true));
    run(a_stranger_is_not_counted(&setup, false));
    run(only_what_is_meant_moves(&setup, true));
    run(only_what_is_meant_moves(&setup, false));
    run(what_is_between_costs_nothing(&setup, true));
    run(what_is_between_costs_nothing(&setup, false));
    run(whole_call_errors_come_back(&setup));
    run(nothing_to_do_calls_nothing(&setup));
    run(can_scan_asks_the_kernel());
}

/* ---- random scenarios ----------------------------------------------------------------------- */

static void random_fault(struct folio *folio, unsigned percent)
{
    if (!chance(percent))
        return;
    folio->fault = (enum fault)(1 + any(folio->pages > 1 ? 6 : 7));
    folio->times = chance(50) ? FOREVER : 1 + (int)any(2);
}

static void random_memory(const struct setup *setup, size_t count, unsigned faults)
{
    size_t folio = setup->range.folio_size / BASE, huge = setup->range.page_size / BASE;
    unsigned holes = chance(30) ? 40 : (unsigned)any(8), spread = (unsigned)any(30);
    int node = (int)any(MAX_NODES);

    for (size_t index = 0; index < count;) {
        if (chance(spread))
            node = (int)any(MAX_NODES);
        if (chance(holes)) {
            index += world.hugetlb ? huge : chance(5) ? 300 : 1 + any(FOLIO);
        } else if (world.hugetlb) {
            random_fault(world_map(index, huge, node, false), faults);
            index += huge;
        } else if (folio && index % folio == 0 && chance(60)) {
            random_fault(world_map(index, folio, node, false), faults);
            index += folio;
        } else if (folio && world.mixed && chance(60)) {
            size_t pages = 2ull << any(4);

            random_fault(world_map(index, pages, node, chance(50)), faults);
            index += pages;
        } else {
            bool adjoining = chance(50);

            for (size_t left = 1 + any(2 * FOLIO); left && index < count; left--, index++) {
                /* an aligned run of adjacent frames looks like a huge page */
                bool aligned = folio && index % folio == 0;
                random_fault(world_map(index, 1, node, adjoining && !aligned), faults);
                if (adjoining && aligned)
                    world.page[index]->frame = (world.page[index]->frame + FOLIO) / FOLIO * FOLIO;
            }
        }
    }
}

/* Name all present pages, so that the result is the same as without a restriction. */
static void name_all_pages(struct setup *setup, size_t count)
{
    struct sh_extent *last = NULL;

    for (size_t index = 0; index < count; index++) {
        uint64_t address = START + index * BASE;

        if (!world.page[index])
            continue;
        if (!last || last->end != address) {
            last = &setup->only[setup->options.only_count++];
            last->start = address;
        }
        last->end = address + BASE;
    }
    setup->options.only = setup->only;
}

/* If the engine cannot identify a huge page, it moves small ones. Those that moved with another
 * batch are already at their destination when the engine reaches them: moved but not counted. Those
 * that failed can still move with a later page of their folio. */
static bool tells_folios(const struct setup *setup)
{
    const struct sh_range *range = &setup->range;

    if (!range->folio_size || (!world.frames_hidden && range->kpageflags >= 0))
        return true;
    if (range->start % range->folio_size || range->end % range->folio_size)
        return false;
    return range->use_scan && !world.mixed;
}

static void random_setup(struct setup *setup, uint64_t seed)
{
    setup_reset(setup);
    world_seed(seed);
    size_t count = 1 + any(chance(10) ? MAX_PAGES - 64 : 600);
    world.hugetlb = chance(15);
    if (world.hugetlb) {
        setup->range.page_size = 4 * BASE;
        setup->range.folio_size = 0;
        count = (count + 3) / 4 * 4;
        world.whole_folios = true;
    } else if (chance(15)) {
        setup->range.folio_size = 0;
    }
    setup->range.use_scan = chance(50);
    setup->range.kpageflags = chance(70) ? KPAGEFLAGS_FD : -1;
    world.frames_hidden = chance(20);
    if (chance(60))
        tell_frames(setup, 1 + any(MAX_NODES));
    for (int node = 0; node < MAX_NODES; node++) {
        setup->destination[node] = chance(60) ? (int32_t)any(MAX_NODES) : -1;
        if (chance(10))
            world.free[node] = (long)any(count);
        world.fragmented[node] = chance(10);
    }
    setup->options.flags = chance(30) ? 4 : 2;
    setup->options.batch_bytes = chance(30) ? BASE * (1 + any(64)) : 8 << 20;
    setup->options.call_ns = chance(30) ? 1000 * (1 + any(200)) : 0;
    world.mixed = chance(50);
    random_memory(setup, count, chance(20) ? 50 : (unsigned)any(10));
    if (chance(30))
        name_all_pages(setup, world.count);
    if (chance(20))
        world.meddle_every = 1 + (long)any(6);
    if (chance(10))
        world.exit_at = 1 + (long)any(12);
    world.zombie = chance(50);
    uint64_t size = setup->range.page_size;
    setup->range.start = START + (chance(30) ? any(count * BASE) / size * size : 0);
    setup->range.end =
        setup->range.start + (START + count * BASE - setup->range.start) / size * size;
    if (chance(20))
        setup->range.end -= any(setup->range.end - setup->range.start) / size * size;
    /* Such a batch must not move pages again that moved with another batch. */
    for (int node = 0; node < MAX_NODES && !tells_folios(setup); node++)
        for (int other = 0; other < MAX_NODES; other++)
            if (setup->destination[other] == node)
                setup->destination[node] = -1;
}

static bool is_listed(const struct sh_result *result, uint64_t address, int error)
{
    for (size_t i = 0; i < result->failure_count; i++) {
        const struct sh_failure *failure = &result->failures[i];

        if (failure->start <= address && address < failure->end &&
            (!error || failure->error == error))
            return true;
    }
    return false;
}

/* Whether the engine cannot see this page. */
static bool is_unseen(const struct setup *setup, const struct folio *folio)
{
    const struct sh_range *range = &setup->range;

    return folio->fault == HIDDEN &&
           (world.frames_hidden || (size_t)folio->node >= range->span_count ||
            (is_huge(folio) && (range->kpageflags < 0 || !range->folio_size)));
}

/* Whether a page with this fault may have stayed for this reason. */
static int expected_error(const struct folio *folio)
{
    switch (folio->fault) {
    case SHARED:
        return EACCES;
    case UNMOVABLE:
        return EFAULT;
    case BUSY:
    case MIGRATING:
        return EBUSY;
    case HIDDEN:
        return ENOENT;
    default:
        return 0;
    }
}

/* Nothing else changed the pages: the result must be exact to the byte. */
static void check_exactly(const struct setup *setup)
{
    const struct sh_result *result = &setup->result;
    uint64_t moved[MAX_NODES] = {0}, left = 0, denied = 0, fixed = 0, listed = 0;

    for (uint64_t address = setup->range.start; address < setup->range.end; address += BASE) {
        size_t index = (address - START) / BASE;
        const struct folio *folio = world.page[index];
        int origin = world.origin[index], target = origin < 0 ? -1 : setup->destination[origin];

        if (!folio || origin < 0)
            continue;
        if (target < 0 || target == origin) {
            /* It can only have moved with a folio if all of that folio moved. */
            check(folio->node == origin, "page %zu went from %d to %d", index, origin, folio->node);
            continue;
        }
        if (folio->node == target) {
            moved[origin] += BASE;
            continue;
        }
        check(folio->node == origin, "page %zu is on %d", index, folio->node);
        if (is_unseen(setup, folio))
            continue;
        left += BASE;
        denied += folio->fault == SHARED ? BASE : 0;
        fixed += folio->fault == UNMOVABLE ? BASE : 0;
        bool full = world.ran_out[target];
        check(folio->fault != NO_FAULT || full, "page %zu stayed for no reason", index);
        check(is_listed(result, address, full ? 0 : expected_error(folio)), "page %zu", index);
        if (folio->fault == STUCK && !full)
            check(is_listed(result, address, EAGAIN) || is_listed(result, address, EBUSY),
                  "page %zu", index);
    }
    for (int node = 0; node < MAX_NODES; node++)
        check(tells_folios(setup) ? result->moved[node] == moved[node]
                                  : result->moved[node] <= moved[node],
              "node %d: %" PRIu64 " said, %" PRIu64 " done", node, result->moved[node],
              moved[node]);
    for (size_t i = 0; i < result->failure_count; i++) {
        const struct sh_failure *failure = &result->failures[i];

        listed += failure->size;
        check(failure->start >= setup->range.start && failure->end <= setup->range.end, "range");
        check(failure->end - failure->start >= failure->size, "failure %zu", i);
        check(failure->error > 0, "failure %zu: error %d", i, failure->error);
    }
    check(tells_folios(setup) ? listed == left : listed >= left,
          "%" PRIu64 " said to have stayed, %" PRIu64 " did", listed, left);
    bool all_had_room = true;
    for (int node = 0; node < MAX_NODES; node++)
        all_had_room = all_had_room && !world.ran_out[node];
    if (all_had_room && tells_folios(setup)) {
        check(stayed(setup, EACCES) == denied, "EACCES");
        check(stayed(setup, EFAULT) == fixed, "EFAULT");
        check(stayed(setup, ENOMEM) == 0, "ENOMEM");
    }
}

/* Other processes unmapped, moved or split pages: all other pages must be accounted for. */
static void check_roughly(const struct setup *setup, bool ended)
{
    const struct sh_result *result = &setup->result;
    uint64_t said = stayed(setup, 0), most = 0, moved = 0, least = 0;

    for (uint64_t address = setup->range.start; address < setup->range.end; address += BASE) {
        size_t index = (address - START) / BASE;
        const struct folio *folio = world.page[index];
        int origin = world.origin[index], target = origin < 0 ? -1 : setup->destination[origin];

        most += world.ever[index] ? BASE : 0;
        if (!folio || folio->touched || target < 0 || target == origin)
            continue;
        if (folio->node == target)
            least += BASE;
        else if (ended && !is_unseen(setup, folio))
            check(is_listed(result, address, 0), "page %zu is in no list", index);
    }
    for (int node = 0; node < MAX_NODES; node++)
        moved += result->moved[node];
    check(said + moved <= most, "%" PRIu64 " of %" PRIu64 " bytes", said + moved, most);
    if (ended && tells_folios(setup))
        check(moved >= least, "%" PRIu64 " moved, %" PRIu64 " said", least, moved);
}

static uint64_t digest(uint64_t hash, const void *data, size_t size)
{
    for (const unsigned char *byte = data; size--; byte++)
        hash = (hash ^ *byte) * 0x100000001b3ull;
    return hash;
}

static uint64_t random_sweep(uint64_t seed)
{
    static struct setup setup;

    random_setup(&setup, seed);
    int error = sweep(&setup);
    check(!world.complaint || world.meddle_every, "%s", world.complaint);
    if (world.dead) {
        check(error == ESRCH, "%d when the process exited", error);
        check_roughly(&setup, false);
    } else {
        check(error == 0, "error %d", error);
        if (world.meddle_every)
            check_roughly(&setup, true);
        else
            check_exactly(&setup);
    }
    check((long)setup.result.calls == world.move_calls || world.dead, "calls");
    check(setup.result.failure_count <= SH_MAX_FAILURES, "failures");
    if (world.whole_folios)
        check(world.largest_call <= setup.options.batch_bytes, "batch");
    uint64_t hash = digest(14695981039346656037ull, setup.moved, sizeof setup.moved);
    hash = digest(hash, &world.calls, sizeof world.calls);
    for (size_t i = 0; i < setup.result.failure_count; i++)
        hash = digest(hash, &setup.result.failures[i].size, sizeof(uint64_t));
    return hash;
}

/* Every present page must be in exactly one run, with its node, and nothing else. */
static void random_locate(uint64_t seed)
{
    static struct setup setup;
    struct sh_runs runs = {0};

    random_setup(&setup, seed);
    world.meddle_every = 0;
    int error = sh_locate(&setup.range, &runs);
    check(error == (world.dead ? ESRCH : 0), "error %d", error);
    uint64_t address = setup.range.start;
    for (size_t i = 0; i < runs.count; i++)
        check((runs.items[i].end - runs.items[i].start) % runs.items[i].page_size == 0,
              "run %zu is of pages of %" PRIu64, i, runs.items[i].page_size);
    for (size_t i = 0; i <= runs.count && !world.dead; i++) {
        uint64_t until = i < runs.count ? runs.items[i].start : setup.range.end;

        for (; address < until; address += BASE) {
            const struct folio *folio = world.page[(address - START) / BASE];
            check(!folio || folio->fault == ZERO || is_unseen(&setup, folio),
                  "%" PRIx64 " is in no run", address);
        }
        for (; i < runs.count && address < runs.items[i].end; address += BASE) {
            const struct folio *folio = world.page[(address - START) / BASE];
            check(folio && folio->node == runs.items[i].node, "%" PRIx64, address);
            check(runs.items[i].hidden == (folio->fault == HIDDEN), "%" PRIx64, address);
        }
    }
    free(runs.items);
}

/* Whether each present page is in the extents, and nothing else. */
static void check_extents(const struct sh_range *range, const struct sh_survey *survey)
{
    size_t next = 0;

    for (uint64_t address = range->start; address < range->end; address += BASE) {
        const struct folio *folio = world.page[(address - START) / BASE];
        bool inside;

        while (next < survey->count && survey->extents[next].end <= address)
            next++;
        inside = next < survey->count && survey->extents[next].start <= address;
        if (!folio || folio->fault != ZERO)
            check(inside == !!folio, "%" PRIx64, address);
    }
}

static int by_value(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

    return (a > b) - (a < b);
}

/* Add up the bytes of the different frames in the range, by node; a few pages have the same one. */
static void count_frames(const struct sh_range *range, uint64_t bytes[MAX_NODES])
{
    static uint64_t frames[MAX_PAGES];
    size_t count = 0;

    for (uint64_t address = range->start; address < range->end; address += BASE) {
        size_t index = (address - START) / BASE;
        const struct folio *folio = world.page[index];

        if (folio && folio->fault != ZERO)
            frames[count++] = folio->frame + index - folio->first;
    }
    qsort(frames, count, sizeof *frames, by_value);
    for (size_t i = 0; i < count; i++)
        if (world.frames_hidden || !i || frames[i] != frames[i - 1])
            bytes[frames[i] / NODE_FRAMES] += BASE;
}

/* A survey counts every present page on its node, and the same frames only once. */
static void random_survey(uint64_t seed)
{
    static struct setup setup;
    static struct sh_survey survey, second;
    struct sh_frames frames = {0};
    uint64_t bytes[MAX_NODES] = {0};

    random_setup(&setup, seed);
    world.meddle_every = 0;
    memset(&survey, 0, sizeof survey);
    memset(&second, 0, sizeof second);
    /* A page that was read has a frame like any other one here. */
    for (size_t i = 0; i < MAX_PAGES && !setup.range.use_scan; i++)
        if (world.page[i] && world.page[i]->fault == ZERO)
            world.page[i]->fault = NO_FAULT;
    for (size_t i = 0; i < MAX_PAGES; i++)
        if (world.page[i] && is_unseen(&setup, world.page[i]))
            world.page[i]->fault = NO_FAULT;
    int error = sh_survey(&setup.range, &frames, SH_ALL, &survey);
    bool dead = world.dead;
    check(error == (dead ? ESRCH : 0), "error %d", error);
    count_frames(&setup.range, bytes);
    for (int node = 0; node < MAX_NODES && !dead; node++)
        check(survey.bytes[node] == bytes[node], "%" PRIu64 " on %d, not %" PRIu64,
              survey.bytes[node], node, bytes[node]);
    if (!dead) {
        if (!survey.skipped)
            check_extents(&setup.range, &survey);
        world.exit_at = 0;
        check(sh_survey(&setup.range, &frames, SH_ALL, &second) == 0, "again");
    }
    for (int node = 0; node < MAX_NODES && !world.frames_hidden; node++)
        check(!second.bytes[node], "counted again");
    check(dead || world.frames_hidden || second.skipped == (survey.count > 0), "skipped");
    free(survey.extents);
    free(second.extents);
    sh_frames_free(&frames);
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    uint64_t first = strtoull(arguments[1], NULL, 10), seeds = strtoull(arguments[2], NULL, 10);
    static char name[64];

    named_scenarios();
    scenario = name;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        snprintf(name, sizeof name, "seed %" PRIu64, seed);
        uint64_t once = random_sweep(seed), again = random_sweep(seed);
        check(once == again, "not the same twice");
        random_locate(seed);
        if (seed % 4 == 0)
            random_survey(seed);
    }
    printf("ok %" PRIu64 " seeds\n", seeds);
    return 0;
}
