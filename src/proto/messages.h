/*
 * messages.h - the control protocol: one request, one reply, over a SOCK_SEQPACKET Unix socket.
 *
 * A message is struct eg_msg_header and a body of fields, in the order told below, encoded by
 * codec.h: u8 u16 u32 u64 i64 as little-endian, str as u16 length and bytes. The reply has the
 * request's id and type | EG_MSG_REPLY; if its status is not 0 the body is one str, the detail.
 * Descriptors travel as SCM_RIGHTS of the same message. A peer that breaks the framing (size,
 * magic, a body too short or too long, a request before HELLO) gets EAGRE_E_PROTOCOL and is closed;
 * an unknown type gets EAGRE_E_UNSUPPORTED. A peer that is one too many gets, unasked, a reply to
 * HELLO with id 0 and EAGRE_E_LIMIT, and is closed.
 *
 *   HELLO    > u32 layout version, u32 fingerprint, u32 pid, str client name
 *            < u64 instance id, u32 epoch, u32 daemon pid, str version        fd: bus (r)
 *   ATTACH   > u32 owner (0: new), u64 cookie                        become a client with an owner
 *            < u32 owner, u64 cookie                                 number; or be it again after a
 *                                          fds: client page (rw), bells (r)   daemon restart, then:
 *            > ... u16 n, n x (u32 topic uid, u16 producers, u16 consumers)     the handles that it has open.
 *                    What it was granted beyond them is taken back: the answer to an OPEN was lost, or it
 *                    closed a handle and does not know whether the daemon was told
 *            > ... u16 n, n x u64 member                                        the members that it is. Others of it
 *                    leave their groups (static ones are away), for the same reasons
 *   OPEN     > u8 role, u32 numa node (of the caller, ~0: unknown), str topic
 *            < u32 topic uid, u32 partitions         fds: status (r), ring (rw | r), waiters (rw);
 *                                                    to producers also bells (rw), the topic's eventfd
 *   BUFFERS  > u8 role, u32 topic uid, u32 partition, u16 n, n x u16 buffer (n 0: the ring's)
 *            < u16 n, n x u16 buffer                                 n fds (rw | r), same order
 *   RELEASE  > u8 role, u32 topic uid                                one handle fewer of that role
 *   SEGMENT  > u32 topic uid, u32 partition, u8 by (0 offset, 1 seq), i64 value     the log file that holds it;
 *                                                                        by seq: that segment's, or the next one
 *            < u8 where (0 here, 1 in the ring, 2 before the log's start, 3 damaged, 4 lost: between two
 *              files), u64 seq, i64 base, i64 end of it or the next one (0: in the ring),
 *              u64 capacity, u64 first seq, u64 last seq (of all files)      fds, if here: log (r), index (r; may be missing)
 *   BELL     >                               < u32 bell              a doorbell for one consumer
 *   BELL_FREE > u32 bell
 *   TOPIC_CREATE > str name, u16 n, n x (str name, str value)        < u32 uid
 *   TOPIC_ALTER  > str name, u16 n, n x (str name, str value)
 *   TOPIC_DELETE > str name
 *   TOPIC_LIST   > str after (exclusive), < u8 more, u16 n, n x (str name, u32 uid, u32 partitions, u8 storage)
 *   TOPIC_DESCRIBE > str name             < u32 uid, u16 n, n x (str name, str value, u8 is default)
 *   PARTITIONS > str name, u32 from       < u8 more, u16 n, n x (u32 partition, u32 state, i64 log start, i64 end,
 *                                           u64 active seq, u64 hot segments, u64 memory bytes, u64 pinned bytes,
 *                                           i64 stalled offset or -1, u32 its pid, u64 ms,
 *                                           i64 durable end (-1: no files), u8 enum eg_disk_state)
 *                                           end: one behind the last offset that is taken. more, n 0: ask again
 *   TRIM     > str topic, u32 partition, i64 before         records before this offset go (Kafka's DeleteRecords);
 *                                                         -1: all that is on disk
 *            < i64 log start
 *   DISK_RESUME > str topic, u32 partition                  leave disk state ERROR after re-reading the medium
 *   STATUS   > u32 from                   < u8 more, u16 n, n x (str name, str value)
 *   SHUTDOWN > u8 keep memory
 *
 * Groups (DESIGN: consumer groups; src/layout/group.h has what members share with the daemon). `member` is the
 * id that JOIN gave; all but JOIN fail with EAGRE_E_FENCED if there is no such member of this client (any more).
 *
 *   GROUP_JOIN > str group, u8 type (enum eg_group_type), str instance id ("": dynamic), str client id,
 *                u8 n, n x u8 strategy (enum eg_assignor, the preferred one first), u32 max.poll.interval.ms,
 *                u32 session.timeout.ms (static members), u32 auto.commit.interval.ms, u32 numa node (~0: unknown)
 *            < u64 member, u16 number, u32 group uid                    fd: member page (rw)
 *   GROUP_SUBSCRIBE > u64 member, u8 flags (1: first part, 2: last part, 4: names come from a pattern: those that
 *                     are not there or may not be consumed are left out), u16 n, n x str topic
 *   GROUP_SYNC > u64 member, u32 applied, u32 skip           "I have given up everything that version `applied`
 *                    (0: none yet) does not have"; and what is mine now, from the skip-th partition on
 *            < u32 version (0: what was told with less to skip does not hold any more), u32 generation, u8 more, u16 t, t x (u32 topic uid, str topic, u16 n,
 *              n x (u32 partition, u32 cell, i64 committed (-1: none), u8 flags (EG_OFFSET_*)))
 *   GROUP_LEAVE > u64 member, u8 how (0: leave; 1: a static member that will be back)
 *   GROUP_COMMIT > u64 member, u64 commits, u16 n, n x (u32 topic uid, u32 partition, i64 offset, str metadata)
 *                    store what the member's cells say; these have metadata: each belongs to the offset that its
 *                    cell says, too (one that says another offset is of a later commit). The page's `stored` reaches
 *                    `commits` when it is in the database. EAGRE_E_OFFSET_OUT_OF_RANGE: a cell says an offset beyond the
 *                    log's end: `stored` stays behind until it does not any more
 *   GROUP_COMMITTED > str group, u16 n, n x (str topic, u32 partition)
 *            < u16 n, n x (i64 offset (-1: none), i64 time ms, u8 flags, str metadata)
 *   GROUP_PUT > str group, u8 type (if it is made by this), u16 n, n x (str topic, u32 partition, i64 offset (-1: forget
 *               it), str metadata). EAGRE_E_GROUP_ACTIVE if it has members. In the database when the reply comes
 *   GROUP_LIST > str after (exclusive) < u8 more, u16 n, n x (str group, u8 type, u8 state, u32 members, u32 generation,
 *                                             u32 owner's Unix uid)
 *   GROUP_DESCRIBE > str group, u32 skip (members)
 *            < u8 type, u8 state, u32 generation, str assignor, u32 owner's Unix uid, u8 more, u16 n,
 *              n x (u64 member, str client id, str instance id, u32 pid (0: a static one that is away), u32 uid,
 *              u32 node, u32 partitions, u16 t, t x str topic)
 *   GROUP_OFFSETS > str group, u32 skip (partitions: committed or assigned)
 *            < u8 more, u16 n, n x (str topic, u32 partition, i64 committed (-1), i64 log start, i64 end, u64 member (0:
 *              nobody's), i64 time ms, u8 flags, str metadata (share groups: what is in flight, and counts))
 *   GROUP_DELETE > str group                                        EAGRE_E_GROUP_ACTIVE
 *   SHARE_OPEN > u64 member, u32 topic uid, u32 partition, i64 where the group begins if it has no offset there (-1:
 *                nowhere)
 *            < u32 partition uid                                            fd: the share group's cells (rw)
 */
#ifndef EG_PROTO_MESSAGES_H
#define EG_PROTO_MESSAGES_H

#include <stdint.h>

#define EG_PROTO_VERSION 1u
#define EG_MSG_MAGIC 0x31524745u /* "EGR1" */
#define EG_MSG_MAX 65536u        /* header and body */
#define EG_MSG_REPLY 0x8000u

struct eg_msg_header {
    uint32_t magic;
    uint16_t version; /* EG_PROTO_VERSION */
    uint16_t type;
    uint32_t id;    /* the client's choice; the reply repeats it */
    int32_t status; /* requests: 0 */
};

/* X(number, name) */
#define EG_MSG_MAP(X)                                                                              \
    X(1, HELLO)                                                                                    \
    X(2, ATTACH)                                                                                   \
    X(3, OPEN)                                                                                     \
    X(4, BUFFERS)                                                                                  \
    X(5, RELEASE)                                                                                  \
    X(6, BELL)                                                                                     \
    X(7, BELL_FREE)                                                                                \
    X(8, SEGMENT)                                                                                  \
    X(16, TOPIC_CREATE)                                                                            \
    X(17, TOPIC_ALTER)                                                                             \
    X(18, TOPIC_DELETE)                                                                            \
    X(19, TOPIC_LIST)                                                                              \
    X(20, TOPIC_DESCRIBE)                                                                          \
    X(21, PARTITIONS)                                                                              \
    X(22, STATUS)                                                                                  \
    X(23, SHUTDOWN)                                                                                \
    X(24, TRIM)                                                                                    \
    X(25, DISK_RESUME)                                                                             \
    X(32, GROUP_JOIN)                                                                              \
    X(33, GROUP_SUBSCRIBE)                                                                         \
    X(34, GROUP_SYNC)                                                                              \
    X(35, GROUP_LEAVE)                                                                             \
    X(36, GROUP_COMMIT)                                                                            \
    X(37, GROUP_COMMITTED)                                                                         \
    X(38, GROUP_PUT)                                                                               \
    X(39, GROUP_LIST)                                                                              \
    X(40, GROUP_DESCRIBE)                                                                          \
    X(41, GROUP_OFFSETS)                                                                           \
    X(42, GROUP_DELETE)                                                                            \
    X(43, SHARE_OPEN)

enum eg_msg_type {
#define EG_X(number, name) EG_MSG_##name = (number),
    EG_MSG_MAP(EG_X)
#undef EG_X
};

enum eg_role { EG_ROLE_PRODUCER = 1, EG_ROLE_CONSUMER = 2 };

#endif
