/*
 * eg-naive --seed S --rounds N [--ops K]   N lists of K operations, from seeds S, S+1, ...
 * eg-naive --replay FILE                   one list, as a failure prints it
 * eg-naive --show S [--ops K]              the list that seed S makes
 *
 * A failure is shrunk and printed; then the exit code is 1.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "naive/naive.h"

static int usage(void) {
    (void)fputs(
        "usage: eg-naive --seed S --rounds N [--ops K] | --replay FILE | --show S [--ops K]\n",
        stderr);
    return 2;
}

/* In this process, for a debugger. */
static int replay(const char *path) {
    struct naive_list l;
    FILE *f = fopen(path, "re");
    if (f == NULL || !naive_parse(&l, f)) {
        (void)fprintf(stderr, "eg-naive: %s is no list of operations\n", path);
        if (f != NULL)
            (void)fclose(f);
        return 2;
    }
    (void)fclose(f);
    naive_run(&l, STDOUT_FILENO);
    puts("the log and the array agree");
    naive_free(&l);
    return 0;
}

static int search(uint64_t seed, uint64_t rounds, size_t ops) {
    struct naive_list l;
    char text[NAIVE_TEXT];
    for (uint64_t i = 0; i < rounds; i++) {
        naive_generate(&l, seed + i, ops);
        if (!naive_try(&l, text)) {
            printf("seed %llu: %s\nshrinking ...\n", (unsigned long long)(seed + i), text);
            naive_shrink(&l, text);
            printf("%s\nwith (eg-naive --replay FILE):\n", text);
            naive_print(&l, stdout);
            naive_free(&l);
            return 1;
        }
        naive_free(&l);
    }
    printf("%llu lists of %zu operations from seed %llu: the log and the array agree\n",
           (unsigned long long)rounds, ops, (unsigned long long)seed);
    return 0;
}

int main(int argc, char **argv) {
    uint64_t seed = 1, rounds = 0;
    size_t ops = 200;
    bool show = false;
    for (int i = 1; i < argc; i += 2) {
        const char *value = argv[i + 1];
        if (value == NULL)
            return usage();
        if (strcmp(argv[i], "--replay") == 0)
            return replay(value);
        uint64_t number = strtoull(value, NULL, 10);
        if (strcmp(argv[i], "--seed") == 0)
            seed = number;
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds = number;
        else if (strcmp(argv[i], "--ops") == 0)
            ops = number;
        else if (strcmp(argv[i], "--show") == 0)
            seed = number, show = true;
        else
            return usage();
    }
    if (show) {
        struct naive_list l;
        naive_generate(&l, seed, ops);
        naive_print(&l, stdout);
        naive_free(&l);
        return 0;
    }
    return rounds > 0 ? search(seed, rounds, ops) : usage();
}
