/*
 * images.h - a recording (record.h) played forward, and what a power cut at this place could leave of the directory.
 *
 * What counts as on disk is what the rules of POSIX say: a file's contents and size after its fsync or fdatasync, a
 * name after the fsync of its directory. Of everything since, each sector of 512 bytes has any of the contents that it
 * had, each file any of its sizes, each name is changed or not, in any combination.
 */
#ifndef EG_TESTS_IMAGES_H
#define EG_TESTS_IMAGES_H

#include <stdbool.h>

#include "record.h"

struct images;

struct images *images_new(struct record_log *log);
/* Begin with a directory as it is, taken as on disk. */
struct images *images_of(struct record_log *log, const char *dir);
void images_free(struct images *im);
/* The next record: played, and returned. NULL: the end. */
struct record *images_step(struct images *im);
uint64_t images_position(const struct images *im);
/* Make dir, which must not be there, as the cut could leave it; which way: 0 nothing that is not on disk, 1 all of it, else by
 * these random numbers. Returns false: there is no directory on disk. */
bool images_build(struct images *im, uint64_t variant, const char *dir);
/* Where the directory differs from what was recorded; NULL: nowhere. A static text. */
const char *images_compare(struct images *im, const char *dir);

#endif
