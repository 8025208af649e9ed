#include "powercut/images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/rand.h"

#define SECTOR 512u
#define LMDB_LOCK "lock.mdb" /* mapped, never on disk in any sense: made anew */

struct entry {
    char *name;
    struct object *is;
};

struct change { /* of a directory */
    uint64_t position;
    char *drop, *add; /* NULL: none */
    struct object *is;
};

/* A file or directory. */
struct object {
    struct object *all;
    uint64_t inode;
    bool directory;
    /* file */
    uint8_t *data; /* on disk; cap bytes, 0 behind size */
    uint64_t size, cap;
    struct record **pending;
    size_t pending_count, pending_cap;
    /* directory */
    struct entry *entries; /* on disk */
    size_t entry_count;
    struct change *changes;
    size_t change_count;
};

struct images {
    struct record_log *log;
    uint64_t at;
    struct object *root, *objects;
    uint64_t random;
    int mode; /* of the image that is being built */
    uint64_t cut;
    unsigned odds;
};

static void *grown(void *list, size_t bytes) {
    list = realloc(list, bytes);
    if (list == NULL)
        abort();
    return list;
}

/* ---- playing ------------------------------------------------------------------------------------------------ */

static struct object *object_new(struct images *im, uint64_t inode, bool directory) {
    struct object *o = grown(NULL, sizeof(*o));
    *o = (struct object){.all = im->objects, .inode = inode, .directory = directory};
    im->objects = o;
    return o;
}

/* The newest first: numbers are used again. */
static struct object *by_inode(const struct images *im, uint64_t inode) {
    for (struct object *o = im->objects; o != NULL; o = o->all)
        if (o->inode == inode)
            return o;
    return NULL;
}

static struct object *entry_of(const struct object *o, const char *name) {
    for (size_t i = 0; i < o->entry_count; i++)
        if (strcmp(o->entries[i].name, name) == 0)
            return o->entries[i].is;
    return NULL;
}

/* As it is now, not as it is on disk. */
static struct object *look_up(const struct object *dir, const char *name) {
    struct object *found = entry_of(dir, name);
    for (size_t i = 0; i < dir->change_count; i++) {
        const struct change *c = &dir->changes[i];
        if (c->drop != NULL && strcmp(c->drop, name) == 0)
            found = NULL;
        if (c->add != NULL && strcmp(c->add, name) == 0)
            found = c->is;
    }
    return found;
}

/* Its directory; *last: its name there. */
static struct object *parent_of(const struct images *im, const char *path, const char **last) {
    struct object *dir = im->root;
    const char *slash;
    while (dir != NULL && (slash = strchr(path, '/')) != NULL) {
        char part[256];
        snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
        dir = look_up(dir, part);
        path = slash + 1;
    }
    *last = path;
    return dir;
}

static void change(struct object *dir, uint64_t position, const char *drop, const char *add,
                   struct object *is) {
    dir->changes = grown(dir->changes, (dir->change_count + 1) * sizeof(*dir->changes));
    dir->changes[dir->change_count++] = (struct change){.position = position,
                                                        .drop = drop != NULL ? strdup(drop) : NULL,
                                                        .add = add != NULL ? strdup(add) : NULL,
                                                        .is = is};
}

static void play_name(struct images *im, const struct record *r, enum record_op op) {
    const char *path = (const char *)r->data, *name, *to;
    if (op == RECORD_MKDIR && *path == '\0') {
        im->root = object_new(im, r->inode, true);
        return;
    }
    struct object *dir = parent_of(im, path, &name);
    if (dir == NULL)
        abort();
    if (op == RECORD_CREATE || op == RECORD_MKDIR) {
        change(dir, im->at, NULL, name, object_new(im, r->inode, op == RECORD_MKDIR));
    } else if (op == RECORD_UNLINK) {
        change(dir, im->at, name, NULL, NULL);
    } else {
        if (parent_of(im, path + strlen(path) + 1, &to) != dir)
            abort(); /* nobody does that here */
        change(dir, im->at, name, to, look_up(dir, name));
    }
}

static void set_entry(struct entry **list, size_t *count, const char *name, struct object *is) {
    for (size_t i = 0; i < *count; i++)
        if (strcmp((*list)[i].name, name) == 0) {
            if (is != NULL) {
                (*list)[i].is = is;
            } else {
                free((*list)[i].name);
                (*list)[i] = (*list)[--*count];
            }
            return;
        }
    if (is == NULL)
        return;
    *list = grown(*list, (*count + 1) * sizeof(**list));
    (*list)[(*count)++] = (struct entry){strdup(name), is};
}

static void apply_change(struct entry **list, size_t *count, const struct change *c) {
    if (c->drop != NULL)
        set_entry(list, count, c->drop, NULL);
    if (c->add != NULL)
        set_entry(list, count, c->add, c->is);
}

static void room(uint8_t **data, uint64_t *cap, uint64_t bytes) {
    if (bytes <= *cap)
        return;
    *data = grown(*data, bytes);
    memset(*data + *cap, 0, bytes - *cap);
    *cap = bytes;
}

static uint64_t size_after(uint64_t size, const struct record *r) {
    uint64_t end = r->op == RECORD_WRITE ? r->at + r->bytes : r->at;
    return r->op == RECORD_TRUNCATE || end > size ? end : size;
}

static void apply(struct object *o, const struct record *r) {
    uint64_t size = size_after(o->size, r);
    room(&o->data, &o->cap, size);
    if (r->op == RECORD_WRITE)
        memcpy(o->data + r->at, r->data, r->bytes);
    if (size < o->size)
        memset(o->data + size, 0, o->size - size);
    o->size = size;
}

static void sync_object(struct object *o, const struct images *im, uint64_t before) {
    size_t n = 0;
    if (o->directory) {
        for (; n < o->change_count && o->changes[n].position < before; n++) {
            apply_change(&o->entries, &o->entry_count, &o->changes[n]);
            free(o->changes[n].drop);
            free(o->changes[n].add);
        }
        o->change_count -= n;
        memmove(o->changes, o->changes + n, o->change_count * sizeof(*o->changes));
        return;
    }
    for (;
         n < o->pending_count && (uint64_t)((uint8_t *)o->pending[n] - (uint8_t *)im->log) < before;
         n++)
        apply(o, o->pending[n]);
    o->pending_count -= n;
    memmove(o->pending, o->pending + n, o->pending_count * sizeof(struct record *));
}

struct record *images_step(struct images *im) {
    if (im->at >= atomic_load(&im->log->used))
        return NULL;
    struct record *r = record_at(im->log, im->at);
    enum record_op op = (enum record_op)atomic_load(&r->op);
    struct object *o = op <= RECORD_SYNC ? by_inode(im, r->inode) : NULL;
    switch (op) {
    case RECORD_NOTHING:
        abort(); /* nobody is killed while it writes one: record_freeze() */
    case RECORD_WRITE:
    case RECORD_TRUNCATE:
    case RECORD_ALLOCATE:
        if (o == NULL || o->directory)
            break;
        if (r->flags && o->pending_count == 0) {
            apply(o, r);
            break;
        }
        if (o->pending_count == o->pending_cap) {
            o->pending_cap = 2 * o->pending_cap + 16;
            o->pending = grown(o->pending, o->pending_cap * sizeof(struct record *));
        }
        o->pending[o->pending_count++] = r;
        if (r->flags)
            sync_object(o, im, UINT64_MAX);
        break;
    case RECORD_SYNC:
        if (o != NULL)
            sync_object(o, im, r->begin);
        break;
    case RECORD_CREATE:
    case RECORD_MKDIR:
    case RECORD_RENAME:
    case RECORD_UNLINK:
        play_name(im, r, op);
        break;
    default:
        break;
    }
    im->at += r->size;
    return r;
}

uint64_t images_position(const struct images *im) { return im->at; }

/* ---- what a cut leaves -------------------------------------------------------------------------------------- */

enum mode { OLD = 0, NEW, PREFIX, SECTORS, PAGES, ONE_TORN, LAST_FIRST, MODES };

static uint64_t dice(struct images *im, uint64_t sides) {
    return eg_rand_next(&im->random) % sides;
}

/* One mode for all, or one for each object. */
static enum mode mode_of(struct images *im) {
    return im->mode >= 0 ? (enum mode)im->mode : (enum mode)dice(im, MODES);
}

static bool is_of(const struct images *im, const struct record *r) {
    return (uint64_t)((const uint8_t *)r - (const uint8_t *)im->log) < im->cut;
}

/* How many of n versions a unit has seen. */
static uint32_t version(struct images *im, uint32_t n) {
    if (dice(im, 8) < im->odds)
        return n;
    return (uint32_t)dice(im, n + 1);
}

/* Each unit (a sector, or a page) of the file has seen any number of the writes that touched it. */
static void torn(struct images *im, const struct object *from, struct object *to, size_t first,
                 size_t last, uint32_t unit) {
    uint64_t most = to->size, size = to->size;
    for (size_t i = first; i < last; i++) {
        size = size_after(size, from->pending[i]);
        most = size > most ? size : most;
    }
    size_t units = (most + unit - 1) / unit;
    uint32_t *seen = calloc(2 * units + 1, sizeof(*seen)), *limit = seen + units;
    if (seen == NULL)
        abort();
    room(&to->data, &to->cap, units * unit);
    uint64_t final = to->size;
    for (int pass = 0; pass < 2; pass++) {
        size = to->size;
        for (size_t i = first; i < last; i++) {
            const struct record *r = from->pending[i];
            uint64_t low = r->at, high = r->op == RECORD_WRITE      ? r->at + r->bytes
                                         : r->op == RECORD_TRUNCATE ? size
                                                                    : r->at;
            size = size_after(size, r);
            for (uint64_t u = low / unit; low < high && u < (high + unit - 1) / unit; u++) {
                if (pass == 0) {
                    limit[u]++;
                    continue;
                }
                if (seen[u]++ >= limit[u])
                    continue;
                uint64_t a = u * unit > low ? u * unit : low,
                         b = (u + 1) * unit < high ? (u + 1) * unit : high;
                if (r->op == RECORD_WRITE)
                    memcpy(to->data + a, r->data + (a - r->at), b - a);
                else
                    memset(to->data + a, 0, b - a);
            }
        }
        for (size_t u = 0; pass == 0 && u < units; u++)
            limit[u] = limit[u] > 0 ? version(im, limit[u]) : 0;
    }
    uint32_t sizes = version(im, (uint32_t)(last - first));
    for (size_t i = first; i < first + sizes; i++)
        final = size_after(final, from->pending[i]);
    memset(to->data + (final < to->cap ? final : to->cap), 0,
           final < to->cap ? to->cap - final : 0);
    room(&to->data, &to->cap, final);
    to->size = final;
    free(seen);
}

static void put_file(struct images *im, const struct object *o, const char *path, enum mode mode) {
    struct object copy = {.size = o->size, .cap = o->cap};
    size_t n = 0;
    copy.data = grown(NULL, o->cap + 1);
    memcpy(copy.data, o->data != NULL ? o->data : (uint8_t *)"", o->cap);
    switch (mode) {
    case OLD:
        break;
    case NEW:
    case PREFIX:
        for (; n < o->pending_count && (mode == NEW || is_of(im, o->pending[n])); n++)
            apply(&copy, o->pending[n]);
        break;
    case ONE_TORN: /* all before one, and some of that */
        if (o->pending_count > 0)
            for (size_t last = dice(im, o->pending_count); n <= last; n++) {
                if (n == last)
                    torn(im, o, &copy, n, n + 1, SECTOR);
                else
                    apply(&copy, o->pending[n]);
            }
        break;
    case LAST_FIRST: /* not the first, but all that came later */
        for (n = o->pending_count > 0 ? 1 + dice(im, o->pending_count) : 0; n < o->pending_count;
             n++)
            apply(&copy, o->pending[n]);
        break;
    default:
        torn(im, o, &copy, 0, o->pending_count, mode == SECTORS ? SECTOR : 8 * SECTOR);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    uint64_t bytes = copy.size;
    while (bytes > 0 && copy.data[bytes - 1] == 0)
        bytes--;
    if (fd < 0 || pwrite(fd, copy.data, bytes, 0) != (ssize_t)bytes ||
        ftruncate(fd, (off_t)copy.size) != 0)
        abort();
    close(fd);
    free(copy.data);
}

static void entries_free(struct entry *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(list[i].name);
    free(list);
}

static void put_directory(struct images *im, const struct object *o, const char *path) {
    struct entry *list = NULL;
    size_t count = 0;
    enum mode mode = mode_of(im);
    if (mkdir(path, 0700) != 0)
        abort();
    for (size_t i = 0; i < o->entry_count; i++)
        set_entry(&list, &count, o->entries[i].name, o->entries[i].is);
    uint64_t prefix = dice(im, o->change_count + 1);
    for (size_t i = 0; i < o->change_count; i++) {
        const struct change *c = &o->changes[i];
        bool there = mode == NEW || (mode == PREFIX && c->position < im->cut) ||
                     ((mode == SECTORS || mode == LAST_FIRST) && dice(im, 2) == 0) ||
                     ((mode == PAGES || mode == ONE_TORN) && i < prefix);
        if (there)
            apply_change(&list, &count, c);
    }
    for (size_t i = 0; i < count; i++) {
        char below[4096];
        snprintf(below, sizeof(below), "%s/%s", path, list[i].name);
        if (list[i].is->directory)
            put_directory(im, list[i].is, below);
        else if (strcmp(list[i].name, LMDB_LOCK) != 0)
            put_file(im, list[i].is, below, mode_of(im));
    }
    entries_free(list, count);
}

bool images_build(struct images *im, uint64_t variant, const char *dir) {
    if (im->root == NULL)
        return false;
    im->random = variant;
    im->mode = variant < 2 ? (int)variant : dice(im, 3) == 0 ? (int)dice(im, MODES) : -1;
    im->cut = dice(im, im->at) + 1;
    if (im->at > 65536 && dice(im, 2) == 0)
        im->cut = im->at - dice(im, 65536);
    im->odds = (unsigned)dice(im, 8);
    put_directory(im, im->root, dir);
    return true;
}

/* ---- the recording against the directory -------------------------------------------------------------------- */

static char difference[8192];

static bool differs(struct images *im, const struct object *o, const char *path) {
    struct stat st;
    char text[8192];
    if (stat(path, &st) != 0)
        return snprintf(difference, sizeof(difference), "%s is not there", path) > 0;
    if (o->directory) {
        struct entry *list = NULL;
        size_t count = 0, there = 0;
        bool bad = false;
        for (size_t i = 0; i < o->entry_count; i++)
            set_entry(&list, &count, o->entries[i].name, o->entries[i].is);
        for (size_t i = 0; i < o->change_count; i++)
            apply_change(&list, &count, &o->changes[i]);
        DIR *d = opendir(path);
        for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
            there += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        closedir(d);
        for (size_t i = 0; i < count && !bad; i++) {
            snprintf(text, sizeof(text), "%.4000s/%s", path, list[i].name);
            bad = strcmp(list[i].name, LMDB_LOCK) != 0 && differs(im, list[i].is, text);
        }
        if (!bad && there != count)
            bad = snprintf(difference, sizeof(difference), "%s has %zu entries, recorded are %zu",
                           path, there, count) > 0;
        entries_free(list, count);
        return bad;
    }
    struct object copy = {.size = o->size, .cap = o->cap};
    copy.data = grown(NULL, o->cap + 1);
    memcpy(copy.data, o->data != NULL ? o->data : (uint8_t *)"", o->cap);
    for (size_t n = 0; n < o->pending_count; n++)
        apply(&copy, o->pending[n]);
    uint8_t *now = grown(NULL, (size_t)st.st_size + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool same = fd >= 0 && pread(fd, now, (size_t)st.st_size, 0) == st.st_size &&
                (uint64_t)st.st_size == copy.size;
    uint64_t at = 0;
    while (same && at < copy.size && now[at] == copy.data[at])
        at++;
    if (!same || at < copy.size)
        snprintf(difference, sizeof(difference),
                 "%s: byte %llu is not what was recorded (%llu bytes, recorded %llu)", path,
                 (unsigned long long)at, (unsigned long long)st.st_size,
                 (unsigned long long)copy.size);
    bool bad = !same || at < copy.size;
    close(fd);
    free(now);
    free(copy.data);
    return bad;
}

const char *images_compare(struct images *im, const char *dir) {
    if (im->root == NULL)
        return "nothing was recorded";
    return differs(im, im->root, dir) ? difference : NULL;
}

/* ---- beginning and end -------------------------------------------------------------------------------------- */

static struct object *take(struct images *im, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0)
        abort();
    struct object *o = object_new(im, st.st_ino, S_ISDIR(st.st_mode));
    if (!o->directory) {
        room(&o->data, &o->cap, (uint64_t)st.st_size);
        o->size = (uint64_t)st.st_size;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, o->data, o->size, 0) != (ssize_t)o->size)
            abort();
        close(fd);
        return o;
    }
    DIR *d = opendir(path);
    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char below[4096];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof(below), "%.3000s/%s", path, e->d_name);
        set_entry(&o->entries, &o->entry_count, e->d_name, take(im, below));
    }
    closedir(d);
    return o;
}

struct images *images_new(struct record_log *log) {
    struct images *im = grown(NULL, sizeof(*im));
    *im = (struct images){.log = log, .at = RECORD_FIRST};
    return im;
}

struct images *images_of(struct record_log *log, const char *dir) {
    struct images *im = images_new(log);
    im->root = take(im, dir);
    return im;
}

void images_free(struct images *im) {
    for (struct object *o = im->objects, *next; o != NULL; o = next) {
        next = o->all;
        for (size_t i = 0; i < o->change_count; i++) {
            free(o->changes[i].drop);
            free(o->changes[i].add);
        }
        entries_free(o->entries, o->entry_count);
        free(o->changes);
        free(o->data);
        free(o->pending);
        free(o);
    }
    free(im);
}
