/*
 * scene.h - a ring that somebody destroys, word by word, while a reader, a producer, repair, the checker and the
 * daemon's look at it (eg_slots_follow) use it. The input is a program:
 *
 *   u8 alignment (2 bits), check CRCs (bit 2), larger segments (bit 3), also when moving large records (bit 4)
 *   u8 records before   u16 bytes of each   u8 polls before
 *   then actions: u8 which, and what it needs: see scene.c
 *
 * moving: the strokes of `arm` actions fall between two loads of whoever uses the ring (watch.h).
 */
#ifndef EG_TESTS_FUZZ_SCENE_H
#define EG_TESTS_FUZZ_SCENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void scene_run(const uint8_t *data, size_t size, bool moving);

#endif
