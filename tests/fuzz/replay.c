/*
 * fuzz_TARGET [--mutations N] DIRECTORY              every file of the corpus, then N mutations of them
 * fuzz_TARGET --write M FILE DIRECTORY               the M-th of those mutations, as a file
 * fuzz_TARGET FILE...                                these, in this process: for a debugger
 *
 * The main of a fuzz target where there is no libFuzzer. Mutations follow from their number and the corpus
 * alone. They run in a child, so that whatever ends it, its parent can say by which input.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "sys/rand.h"

#define INPUT_MAX 65536u
#define FILES_MAX 512u
#define HANG_S 20u

struct input {
    char name[256];
    uint8_t *data;
    size_t size;
};

static struct input files[FILES_MAX];
static size_t file_count;
static struct {
    char name[256];
    uint64_t mutation; /* 0: the file as it is */
} * current;           /* shared with the child */

static void load(const char *path, const char *name) {
    FILE *f = fopen(path, "re");
    struct input *in = &files[file_count];
    if (f == NULL || file_count == FILES_MAX) {
        (void)fprintf(stderr, "%s: cannot be read, or is one too many\n", path);
        exit(2);
    }
    in->data = malloc(INPUT_MAX);
    FUZZ_REQUIRE(in->data != NULL);
    in->size = fread(in->data, 1, INPUT_MAX, f);
    (void)fclose(f);
    (void)snprintf(in->name, sizeof(in->name), "%s", name);
    file_count++;
}

static void load_corpus(const char *directory) {
    struct dirent **entries;
    int n = scandir(directory, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[4096];
        (void)snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            load(path, entries[i]->d_name);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    if (file_count == 0) {
        (void)fprintf(stderr, "%s: no corpus there\n", directory);
        exit(2);
    }
}

static void free_corpus(void) {
    for (size_t i = 0; i < file_count; i++)
        free(files[i].data);
}

/* ---- mutations -------------------------------------------------------------------------------------- */

static uint64_t pick(uint64_t *rand, uint64_t n) { return n == 0 ? 0 : eg_rand_next(rand) % n; }

/* A number that lies at the edge of something. */
static uint64_t edge(uint64_t *rand) {
    uint64_t v = 1ull << pick(rand, 64);
    return v + pick(rand, 3) - 1;
}

static void mutate_once(struct input *in, uint64_t *rand) {
    size_t at = pick(rand, in->size), n = 1 + pick(rand, 16);
    switch (pick(rand, 7)) {
    case 0:
        if (in->size > 0)
            in->data[at] ^= (uint8_t)(1u << pick(rand, 8));
        break;
    case 1:
        if (in->size > 0)
            in->data[at] = (uint8_t)eg_rand_next(rand);
        break;
    case 2: { /* a number */
        uint64_t v = edge(rand);
        n = 1ull << pick(rand, 4);
        if (in->size - at >= n)
            memcpy(in->data + at, &v, n);
        break;
    }
    case 3: /* bytes more */
        if (in->size + n > INPUT_MAX)
            break;
        memmove(in->data + at + n, in->data + at, in->size - at);
        memset(in->data + at, (int)pick(rand, 256), n);
        in->size += n;
        break;
    case 4: /* fewer */
        if (n > in->size - at)
            n = in->size - at;
        memmove(in->data + at, in->data + at + n, in->size - at - n);
        in->size -= n;
        break;
    case 5: { /* what lies elsewhere */
        size_t from = pick(rand, in->size);
        if (n <= in->size - at && n <= in->size - from)
            memmove(in->data + at, in->data + from, n);
        break;
    }
    default: { /* the rest of another one */
        const struct input *other = &files[pick(rand, file_count)];
        size_t from = pick(rand, other->size);
        n = other->size - from < INPUT_MAX - at ? other->size - from : INPUT_MAX - at;
        memcpy(in->data + at, other->data + from, n);
        in->size = at + n;
    }
    }
}

static void mutate(struct input *in, uint64_t number) {
    uint64_t rand = number * 0x9e3779b97f4a7c15u;
    const struct input *from = &files[number % file_count];
    memcpy(in->data, from->data, from->size);
    in->size = from->size;
    memcpy(in->name, from->name, sizeof(in->name));
    for (uint64_t times = 1 + pick(&rand, 4); times > 0; times--)
        mutate_once(in, &rand);
}

/* ---- running ------------------------------------------------------------------------------------------ */

/* The input lies at the end of its memory, so that AddressSanitizer sees what reads beyond it. */
static void run(const struct input *in, uint64_t mutation) {
    uint8_t *copy = malloc(in->size > 0 ? in->size : 1);
    FUZZ_REQUIRE(copy != NULL);
    memcpy(copy, in->data, in->size);
    memcpy(current->name, in->name, sizeof(current->name));
    current->mutation = mutation;
    (void)alarm(HANG_S);
    (void)LLVMFuzzerTestOneInput(copy, in->size);
    free(copy);
}

static void run_all(uint64_t mutations) {
    struct input in = {.data = malloc(INPUT_MAX)};
    FUZZ_REQUIRE(in.data != NULL);
    for (size_t i = 0; i < file_count; i++)
        run(&files[i], 0);
    for (uint64_t i = 1; i <= mutations; i++) {
        mutate(&in, i);
        run(&in, i);
    }
    free(in.data);
}

static int run_in_child(uint64_t mutations) {
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        run_all(mutations);
        free_corpus();
        exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status))
        (void)fprintf(stderr, "ended by signal %d (%s)\n", WTERMSIG(status),
                      strsignal(WTERMSIG(status)));
    (void)fprintf(stderr, "by %s", current->name);
    if (current->mutation > 0)
        (void)fprintf(stderr, ", mutation %llu: --write %llu FILE DIRECTORY makes a file of it",
                      (unsigned long long)current->mutation, (unsigned long long)current->mutation);
    (void)fputs("\n", stderr);
    return 1;
}

static int write_mutation(uint64_t number, const char *path, const char *directory) {
    load_corpus(directory);
    struct input in = {.data = malloc(INPUT_MAX)};
    FILE *f = fopen(path, "we");
    FUZZ_REQUIRE(f != NULL && in.data != NULL);
    mutate(&in, number);
    bool good = fwrite(in.data, 1, in.size, f) == in.size;
    free(in.data);
    free_corpus();
    return fclose(f) == 0 && good ? 0 : 1;
}

int main(int argc, char **argv) {
    uint64_t mutations = 0;
    int i = 1;
    current =
        mmap(NULL, sizeof(*current), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    FUZZ_REQUIRE(current != MAP_FAILED);
    if (argc == 5 && strcmp(argv[1], "--write") == 0)
        return write_mutation(strtoull(argv[2], NULL, 10), argv[3], argv[4]);
    if (argc > 2 && strcmp(argv[1], "--mutations") == 0) {
        mutations = strtoull(argv[2], NULL, 10);
        i = 3;
    }
    DIR *directory = i + 1 == argc ? opendir(argv[i]) : NULL;
    if (directory != NULL) {
        (void)closedir(directory);
        load_corpus(argv[i]);
        return run_in_child(mutations);
    }
    for (; i < argc; i++)
        load(argv[i], argv[i]);
    run_all(0);
    free_corpus();
    return 0;
}
