/* Groups of a round. */
#ifndef EG_TESTS_TORTURE_MEMBER_H
#define EG_TESTS_TORTURE_MEMBER_H

#include "torture/client.h"

/* "g3"; buf has 16 bytes. */
const char *torture_group_name(char *buf, uint32_t group);

/* Its committed offsets and generation to k's log. */
void torture_look_at_group(struct torture_client *k, uint32_t group);

#endif
