/* Read /proc/PID/numa_maps and maps together, and join small mappings that are alike.
 *
 * Programs with tens of thousands of mappings exist; Python needs longer to read their lines than
 * the kernel needs to move their pages. Only the lines that can be joined are read here. Every
 * other line is handed on to Python, also one that is not understood. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NODES 1024       /* the kernel's largest MAX_NUMNODES */
#define MOST (1ul << 40) /* a larger number is left to Python */

/* A part of one of the files. */
struct text {
    const char *at, *end;
};

/* What decides which mappings are joined; in bytes. */
struct rules {
    uint64_t largest, furthest, base;
    bool resident_only;
};

struct pages {
    int node;
    uint64_t count;
};

/* A line of numa_maps. */
struct line {
    uint64_t start;
    struct text shown; /* what follows the address */
    struct text policy;
    struct pages pages[NODES];
    int nodes;
    uint64_t size;
    bool is_plain; /* base pages of no file, of which no other process maps any */
};

/* The line of maps that was reached. */
struct mapping {
    struct text file;
    const char *line;
    uint64_t start, end;
    bool is_anonymous; /* and private */
};

/* Mappings, in ascending order, that have one memory policy. */
struct group {
    uint64_t start, end; /* both 0: there are none */
    uint64_t begin;      /* of the last ones without a gap */
    struct text policy;
    uint64_t count[NODES];
    int nodes;
    PyObject *parts; /* a bytearray with start and end of all but the last ones, or NULL */
};

struct reading {
    struct rules rules;
    struct text numa_maps;
    struct line lines[2]; /* the current one, and the next one */
    struct mapping mapping;
    const char *maps_start;
    struct group group;
    PyObject *found;
};

/* Take the text up to a byte, and that byte, off `from`. */
static struct text take(struct text *from, char until)
{
    struct text taken = *from;
    const char *found = memchr(from->at, until, (size_t)(from->end - from->at));

    taken.end = found ? found : from->end;
    from->at = found ? found + 1 : from->end;
    return taken;
}

static size_t length(struct text text)
{
    return (size_t)(text.end - text.at);
}

static bool same(struct text one, struct text other)
{
    return length(one) == length(other) && !memcmp(one.at, other.at, length(one));
}

static bool starts_with(struct text text, const char *start)
{
    return length(text) >= strlen(start) && !memcmp(text.at, start, strlen(start));
}

static bool contains(struct text text, const char *what)
{
    return memmem(text.at, length(text), what, strlen(what));
}

static int digit(char of)
{
    return of >= '0' && of <= '9' ? of - '0' : of >= 'a' && of <= 'f' ? of - 'a' + 10 : 16;
}

/* Read a whole text as a number of at most 16 hexadecimal or 12 decimal digits. */
static bool number(struct text text, int base, uint64_t *value)
{
    *value = 0;
    if (!length(text) || length(text) > (base == 16 ? 16 : 12))
        return false;
    for (const char *at = text.at; at < text.end; at++) {
        if (digit(*at) >= base)
            return false;
        *value = *value * (uint64_t)base + (uint64_t)digit(*at);
    }
    return true;
}

/* Read a word of numa_maps, such as `N0=5`. Return false if the line is not a plain one. */
static bool read_word(struct line *line, struct text word, bool *is_policy, uint64_t base)
{
    static const char *const others[] = {"heap",      "stack",  "dirty",    "mapped",
                                         "swapcache", "active", "writeback"};
    struct text value = word, key = take(&value, '=');
    bool in_policy = *is_policy;
    uint64_t node, count;

    *is_policy = false;
    if (length(key) > 1 && *key.at == 'N' && digit(key.at[1]) < 10) {
        key.at++;
        if (!number(key, 10, &node) || node >= NODES || !number(value, 10, &count) ||
            line->nodes == NODES)
            return false;
        line->pages[line->nodes++] = (struct pages){.node = (int)node, .count = count};
        line->size += count * base;
        return true;
    }
    if (starts_with(key, "anon") && length(key) == 4)
        return number(value, 10, &count);
    if (starts_with(key, "kernelpagesize_kB"))
        return number(value, 10, &count) && count << 10 == base;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (length(key) == strlen(others[i]) && starts_with(key, others[i]))
            return true;
    /* `prefer (many):0-1` and `weighted interleave:0-1` contain a blank. */
    *is_policy = in_policy;
    return in_policy && !starts_with(key, "file") && !starts_with(key, "mapmax") &&
           !starts_with(key, "huge");
}

static bool shows(const struct line *line, struct text text)
{
    return line->shown.at && same(line->shown, text);
}

/* Read what `line` shows, or copy it from `last` if that shows the same: most lines do. */
static void read_line(struct line *line, const struct line *last, uint64_t base)
{
    struct text rest = line->shown;
    bool is_policy = true;

    if (shows(last, rest)) {
        line->policy = last->policy;
        line->nodes = last->nodes;
        line->size = last->size;
        line->is_plain = last->is_plain;
        memcpy(line->pages, last->pages, (size_t)last->nodes * sizeof *last->pages);
        return;
    }
    line->policy = take(&rest, ' ');
    line->nodes = 0;
    line->size = 0;
    line->is_plain = true;
    while (line->is_plain && rest.at < rest.end) {
        struct text word = take(&rest, ' ');

        line->is_plain = read_word(line, word, &is_policy, base) && line->size < MOST;
        if (is_policy)
            line->policy.end = word.end;
    }
}

/* Go on to the next line of numa_maps that is wanted. Return false at the end. `last`: the line
 * before it. */
static bool next_line(struct reading *reading, struct line *line, const struct line *last)
{
    while (reading->numa_maps.at < reading->numa_maps.end) {
        struct text whole = take(&reading->numa_maps, '\n'), shown = whole;
        struct text address = take(&shown, ' ');

        /* Blanks in file names are escaped, so " N" can only begin a count of pages. */
        if (reading->rules.resident_only && !shows(last, shown) && !contains(whole, " N") &&
            contains(whole, " default"))
            continue;
        if (!number(address, 16, &line->start))
            continue;
        line->shown = shown;
        read_line(line, last, reading->rules.base);
        return true;
    }
    return false;
}

/* Whether the inode and name of a mapping, `0     [vvar]`, are of pages of the kernel. */
static bool is_kernels(struct text rest)
{
    static const char *const names[] = {"[vdso]", "[vvar", "[uprobes"};

    take(&rest, ' ');
    while (rest.at < rest.end && *rest.at == ' ')
        rest.at++;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (starts_with(rest, names[i]))
            return true;
    return false;
}

/* Whether what follows a mapping's addresses, `rw-p 00000000 00:00 0`, is the process's own memory
 * and no file's. */
static bool is_anonymous(struct text rest)
{
    struct text permissions = take(&rest, ' '), offset = take(&rest, ' '), minor = take(&rest, ' '),
                major = take(&minor, ':');
    uint64_t value;

    return length(permissions) == 4 && permissions.at[3] == 'p' && number(offset, 16, &value) &&
           number(major, 16, &value) && !value && number(minor, 16, &value) && !value &&
           rest.at < rest.end && !is_kernels(rest);
}

/* Go on to the first line of maps that ends behind an address. */
static void find_mapping(struct mapping *mapping, uint64_t address)
{
    while (mapping->end <= address && mapping->file.at < mapping->file.end) {
        struct text text = take(&mapping->file, '\n');
        const char *line = text.at;
        struct text end = take(&text, ' '), start = take(&end, '-');
        uint64_t from, to;

        if (!number(start, 16, &from) || !number(end, 16, &to) || to <= from)
            continue;
        *mapping = (struct mapping){.file = mapping->file,
                                    .line = line,
                                    .start = from,
                                    .end = to,
                                    .is_anonymous = is_anonymous(text)};
    }
}

/* Append an object that the list takes over. -1: an exception. */
static int append(PyObject *list, PyObject *item)
{
    int error = item ? PyList_Append(list, item) : -1;

    Py_XDECREF(item);
    return error;
}

static PyObject *pages_of(const struct group *group)
{
    PyObject *pages = PyList_New(0);

    for (int node = 0; pages && node < group->nodes; node++)
        if (group->count[node] &&
            append(pages, Py_BuildValue("(iK)", node, (unsigned long long)group->count[node])) < 0)
            Py_CLEAR(pages);
    return pages;
}

static int add_part(struct group *group)
{
    uint64_t bounds[] = {group->begin, group->end};
    Py_ssize_t size;

    if (!group->parts)
        group->parts = PyByteArray_FromStringAndSize(NULL, 0);
    if (!group->parts)
        return -1;
    size = PyByteArray_Size(group->parts);
    if (PyByteArray_Resize(group->parts, size + (Py_ssize_t)sizeof bounds) < 0)
        return -1;
    memcpy(PyByteArray_AsString(group->parts) + size, bounds, sizeof bounds);
    return 0;
}

/* Append the group to what was found, and empty it. */
static int end_group(struct reading *reading)
{
    struct group *group = &reading->group;
    int error = 0;

    if (!group->end)
        return 0;
    if (group->parts)
        error = add_part(group);
    if (!error)
        error =
            append(reading->found, Py_BuildValue("(KKy#NO)", (unsigned long long)group->start,
                                                 (unsigned long long)group->end, group->policy.at,
                                                 (Py_ssize_t)length(group->policy), pages_of(group),
                                                 group->parts ? group->parts : Py_None));
    Py_CLEAR(group->parts);
    memset(group->count, 0, (size_t)group->nodes * sizeof *group->count);
    group->nodes = 0;
    group->start = group->end = 0;
    return error;
}

/* Append a mapping to the group, or begin another one. */
static int join(struct reading *reading, const struct line *line, uint64_t end)
{
    struct group *group = &reading->group;

    if (!group->end || !same(group->policy, line->policy) || line->start < group->end ||
        line->start - group->end > reading->rules.furthest) {
        if (end_group(reading) < 0)
            return -1;
        group->start = group->begin = group->end = line->start;
        group->policy = line->policy;
    }
    if (line->start > group->end) {
        if (add_part(group) < 0)
            return -1;
        group->begin = line->start;
    }
    group->end = end;
    for (int i = 0; i < line->nodes; i++) {
        int node = line->pages[i].node;

        group->count[node] += line->pages[i].count;
        group->nodes = node >= group->nodes ? node + 1 : group->nodes;
    }
    return 0;
}

/* Append a line that Python reads. */
static int hand_on(struct reading *reading, const struct line *line, PyObject *bound)
{
    const char *from = reading->mapping.line;

    if (!bound || end_group(reading) < 0) {
        Py_XDECREF(bound);
        return -1;
    }
    return append(reading->found,
                  Py_BuildValue("(KNy#n)", (unsigned long long)line->start, bound, line->shown.at,
                                (Py_ssize_t)length(line->shown),
                                from ? (Py_ssize_t)(from - reading->maps_start) : 0));
}

/* Join a line, or hand it on. `next`: the line behind it, or NULL. */
static int find(struct reading *reading, const struct line *line, const struct line *next)
{
    const struct mapping *mapping = &reading->mapping;
    uint64_t end;

    find_mapping(&reading->mapping, line->start);
    end = mapping->end;
    if (line->is_plain && mapping->is_anonymous && mapping->start == line->start &&
        line->size <= end - line->start && end - line->start <= reading->rules.largest &&
        (!next || end <= next->start))
        return join(reading, line, end);
    return hand_on(reading, line,
                   next ? PyLong_FromUnsignedLongLong(next->start) : Py_NewRef(Py_None));
}

static int find_all(struct reading *reading)
{
    struct line *line = &reading->lines[0], *next = &reading->lines[1];
    bool is_there = next_line(reading, line, next); /* which is empty yet */

    while (is_there) {
        struct line *read = line;

        is_there = next_line(reading, next, line);
        if (find(reading, line, is_there ? next : NULL) < 0)
            return -1;
        line = next;
        next = read;
    }
    return end_group(reading);
}

static PyObject *join_mappings(PyObject *self, PyObject *args)
{
    const char *numa_maps, *maps;
    Py_ssize_t numa_maps_size, maps_size;
    unsigned long long largest, furthest, base;
    int resident_only;
    struct reading *reading;
    PyObject *found;

    (void)self;
    if (!PyArg_ParseTuple(args, "y#y#pKKK:join_mappings", &numa_maps, &numa_maps_size, &maps,
                          &maps_size, &resident_only, &largest, &furthest, &base))
        return NULL;
    reading = calloc(1, sizeof *reading);
    if (!reading)
        return PyErr_NoMemory();
    reading->rules = (struct rules){
        .largest = largest, .furthest = furthest, .base = base, .resident_only = resident_only};
    reading->numa_maps = (struct text){numa_maps, numa_maps + numa_maps_size};
    reading->mapping.file = (struct text){maps, maps + maps_size};
    reading->maps_start = maps;
    reading->found = PyList_New(0);
    if (reading->found && find_all(reading) < 0)
        Py_CLEAR(reading->found);
    found = reading->found;
    Py_XDECREF(reading->group.parts);
    free(reading);
    return found;
}

static PyMethodDef methods[] = {
    {"join_mappings", join_mappings, METH_VARARGS,
     "join_mappings(numa_maps, maps, resident_only, largest, furthest, base): see _joined.pyi."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "schedhook.host._joined",
    .m_doc = "Small mappings that are alike, joined.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__joined(void)
{
    return PyModuleDef_Init(&module);
}
