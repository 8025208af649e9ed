/*
 * layout.h - THE shared format: every byte that two processes of a bus both see.
 *
 *   object (a memfd)   writers            readers       holds
 *   bus                daemon             all           struct eg_bus
 *   bells              producers, daemon  all           struct eg_bells: doorbells
 *   client page        its client         daemon        struct eg_client_page: pins
 *   T.status           daemon             T's clients   struct eg_topic_status, then one
 *                                                       struct eg_partition_status a partition
 *   T.ring             T's producers,     T's clients   per partition, at p * eg_ring_stride():
 *                      daemon                           struct eg_ring, slots, hot index
 *   T.waiters          T's clients        T's clients   struct eg_waiters a partition
 *   buffer             T's producers,     T's clients   one segment: struct eg_segment_header in
 *                      daemon                           the first page, then the chain of frames
 *
 * All little-endian. Offsets instead of pointers. Every object begins with struct eg_magic, whose
 * magic is stored last (release) and whose fingerprint is that of this file's structures, so that
 * incompatible builds refuse each other. A log file is the image of a buffer.
 *
 * Who may believe what: a client's or a producer's value is loaded once, checked, then used. The
 * daemon never takes a decision about one topic from memory that another topic's clients write.
 */
#ifndef EG_LAYOUT_LAYOUT_H
#define EG_LAYOUT_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout/word.h"

#define EG_LAYOUT_VERSION 1u

#define EG_PAGE 4096u
#define EG_LINE 64u

#define EG_SEGMENT_BYTES_MIN (64u << 10)
#define EG_SEGMENT_BYTES_MAX (512u << 20)
#define EG_SEGMENT_DATA EG_PAGE /* first frame's position: the header page lies before it */
#define EG_RING_SEGMENTS_MIN 3u
#define EG_RING_SEGMENTS_MAX 64u
#define EG_BUFFERS_MAX 128u      /* buffers of one partition: its slots and what pins hold */
#define EG_TOPIC_PARTITIONS_MAX 1024u
#define EG_PARTITIONS_MAX 65536u /* of one instance: width of the pin's partition index */
#define EG_CLIENTS_MAX 16383u    /* owner numbers 1 .. */
#define EG_CLIENT_PINS 512u      /* producer and consumer handles of one client */
#define EG_BELLS_MAX 4096u       /* consumers of one instance that may sleep */
#define EG_TOPIC_NAME_MAX 249u   /* Kafka's limit */
#define EG_ALIGN_MIN 8u
#define EG_ALIGN_MAX 64u

struct eg_magic {
    _Atomic uint64_t magic; /* 0 until the object is complete; stored last, release */
    uint32_t version;
    uint32_t fingerprint;
};

/* Eight ASCII bytes as they lie in memory. */
#define EG_MAGIC(a, b, c, d, e, f, g, h)                                                            \
    ((uint64_t)(a) | (uint64_t)(b) << 8 | (uint64_t)(c) << 16 | (uint64_t)(d) << 24 |              \
     (uint64_t)(e) << 32 | (uint64_t)(f) << 40 | (uint64_t)(g) << 48 | (uint64_t)(h) << 56)
#define EG_MAGIC_BUS EG_MAGIC('E', 'A', 'G', 'R', 'E', 'b', 'u', 's')
#define EG_MAGIC_BELLS EG_MAGIC('E', 'A', 'G', 'R', 'E', 'b', 'e', 'l')
#define EG_MAGIC_CLIENT EG_MAGIC('E', 'A', 'G', 'R', 'E', 'c', 'l', 'i')
#define EG_MAGIC_STATUS EG_MAGIC('E', 'A', 'G', 'R', 'E', 's', 't', 'a')
#define EG_MAGIC_RING EG_MAGIC('E', 'A', 'G', 'R', 'E', 'r', 'n', 'g')
#define EG_MAGIC_SEGMENT EG_MAGIC('E', 'A', 'G', 'R', 'E', 's', 'e', 'g')

/* ---- bus ---------------------------------------------------------------------------------- */

enum eg_bus_state { EG_BUS_RUNNING = 1, EG_BUS_STOPPED = 2 };
#define EG_BUS_NO_MEMBARRIER 1u /* the daemon cannot membarrier: clients use full fences */

struct eg_bus {
    struct eg_magic magic;
    uint64_t instance_id;       /* random; new whenever the memory is new */
    _Atomic uint32_t epoch;     /* daemon: +1 a start on the same memory. Clients: acquire */
    _Atomic uint32_t state;     /* enum eg_bus_state */
    _Atomic uint32_t flags;     /* EG_BUS_* */
    _Atomic uint32_t daemon_pid;
    uint8_t pad0[24];
    _Atomic uint32_t asleep; /* enum eg_daemon_sleep. Daemon: before it blocks, then a full fence */
    uint8_t pad1[60];
};

/* How long the daemon may not look at the partitions that it watches (eg_ring.watched). */
enum eg_daemon_sleep { EG_AWAKE = 0, EG_ASLEEP = 1, EG_NAPPING = 2 /* some milliseconds at most */ };

/* ---- bells -------------------------------------------------------------------------------- */

/*
 * A doorbell is a futex counter. Wakers add 1 and FUTEX_WAKE; its sleeper only reads it, so a
 * sleeper's mapping may be read-only.
 */
struct eg_bell {
    _Atomic uint32_t rings;
    uint8_t pad[60];
};

struct eg_bells {
    struct eg_magic magic;
    uint8_t pad0[48];
    struct eg_bell bell[EG_BELLS_MAX];
};

/* ---- client page -------------------------------------------------------------------------- */

/* One handle's declaration "I am using segment seq of this partition". Client stores (release to
 * clear; to set: see writer.h), daemon loads after its membarrier. */
struct eg_pin_cell {
    _Atomic uint64_t pin;
    uint8_t pad[56];
};

#define EG_CLIENT_MEMBARRIER 1u /* flags: registered, so the daemon's membarrier reaches us */

struct eg_client_page {
    struct eg_magic magic;
    _Atomic uint32_t flags; /* client */
    /* So many pins have ever been some handle's; the daemon looks at no more of them. Client: before the first pin
     * there, only upwards. Who lies here is not seen to use what it uses, as who does not pin at all. */
    _Atomic uint32_t cells;
    uint8_t pad1[EG_PAGE - 24];
    struct eg_pin_cell pin[EG_CLIENT_PINS];
};

/* ---- topic status: the daemon's words about a topic ------------------------------------------ */

enum eg_storage { EG_STORAGE_DISK = 0, EG_STORAGE_MEMORY = 1 };
enum eg_topic_state { EG_TOPIC_ACTIVE = 1, EG_TOPIC_DELETED = 2 };
enum eg_partition_state { EG_PARTITION_ACTIVE = 1, EG_PARTITION_ERROR = 2 };
/* FULL: no space; retried. ERROR: a write or flush failed; nothing is acknowledged until somebody says resume. */
enum eg_disk_state { EG_DISK_OK = 0, EG_DISK_FULL = 1, EG_DISK_ERROR = 2 };

#define EG_TOPIC_SINGLE_WRITER 1u
#define EG_TOPIC_TIMESTAMP_NS 2u

struct eg_topic_status {
    struct eg_magic magic;
    uint64_t instance_id;
    uint32_t topic_uid;      /* never reused */
    uint32_t align;          /* record.alignment: power of two, 8 .. 64 */
    uint64_t segment_bytes;  /* capacity of each buffer, its header page included */
    uint32_t ring_segments;  /* N */
    uint32_t storage;        /* enum eg_storage */
    _Atomic uint32_t flags;  /* EG_TOPIC_*; fixed but for TIMESTAMP_NS */
    _Atomic uint32_t partitions;        /* may grow: release after the new ones are complete */
    _Atomic uint32_t state;             /* enum eg_topic_state */
    _Atomic uint32_t max_message_bytes; /* of key + value + headers */
};

/* What one buffer of the partition is for: the daemon's journal, so that a successor can go on. */
enum eg_buffer_use { EG_BUFFER_NONE = 0, EG_BUFFER_SLOT = 1, EG_BUFFER_DETACHED = 2, EG_BUFFER_SPARE = 3,
                     EG_BUFFER_DIRTY = 4 };

struct eg_buffer_journal {
    _Atomic uint64_t seq;       /* SLOT: of its slot; DETACHED: the seq that pins may hold */
    _Atomic uint32_t use;       /* enum eg_buffer_use */
    _Atomic uint32_t allocated; /* 4 KiB pages with memory behind them, from the start */
};

struct eg_partition_status {
    uint32_t uid;              /* never reused; seeds the CRC */
    uint32_t index;            /* dense number in this instance; names it in pins */
    _Atomic uint32_t state;    /* enum eg_partition_state */
    _Atomic uint32_t room;     /* futex: +1 and FUTEX_WAKE whenever a slot becomes READY, and when
                                  the partition's or topic's state changes. Producers wait on it */
    _Atomic uint64_t log_start;   /* first offset that can still be read. release/acquire */
    _Atomic uint64_t durable_end; /* every offset below is on disk */
    _Atomic uint32_t blocked_pid[8]; /* whose pins keep the next slot from being READY; 0: none */
    _Atomic int64_t node; /* the daemon's note: NUMA node of the buffers + 1; 0: not decided yet */
    _Atomic uint32_t disk;    /* enum eg_disk_state. Release, before durable */
    _Atomic uint32_t durable; /* futex: +1 (release) and FUTEX_WAKE when durable_end or disk changed */
    uint8_t pad0[EG_LINE * 2 - 80];
    _Atomic uint64_t slot[EG_RING_SEGMENTS_MAX]; /* the daemon's last word on each slot */
    /* The daemon's notes: with what seq the ring begins or began, and at what offset. */
    _Atomic uint64_t start_seq;
    _Atomic int64_t start_offset;
    /* The archiver's notes for a successor: everything before this place of this segment is on disk; and the flush
     * number to go on with. */
    _Atomic uint64_t archived_seq, archived_at; /* seq; as a tail hint */
    _Atomic uint32_t archived_flush;
    uint8_t pad1[220];
    struct eg_buffer_journal buffer[EG_BUFFERS_MAX];
    _Atomic int64_t sealed_ns[EG_RING_SEGMENTS_MAX]; /* the daemon's note: when the slot's segment was
                                                        seen to be full; realtime. For retention.ms */
    uint8_t pad2[EG_PAGE - 128 - 512 - 256 - 2048 - 512];
};

/* ---- ring ---------------------------------------------------------------------------------- */

struct eg_slot {
    _Atomic uint64_t word;      /* seq, buffer, state. READY->OPEN: producers' CAS; rest: daemon */
    uint8_t pad0[56];
};

struct eg_ring {
    struct eg_magic magic;
    uint32_t partition_uid;
    uint32_t partition_index;
    /* The daemon's bell is an eventfd a topic, which its producers hold. 1: the daemon looks here by itself, or
     * somebody is about to ring. 0: who moves `active` has to ring. Both sides exchange it, acq_rel. */
    _Atomic uint32_t watched;
    uint8_t pad2[4];
    /* One behind the highest offset that somebody waits to see on disk. Producers: CAS up, relaxed, then they ring
     * the bell. The daemon only takes it as a reason to flush. */
    _Atomic int64_t durable_wanted;
    uint8_t pad0[24];
    _Atomic uint64_t active; /* seq that producers claim in. CAS acq_rel seq -> seq+1 */
    uint8_t pad1[56];
    struct eg_slot slot[];   /* N of them; the hot index follows at eg_ring_index_at(N) */
};

/* ---- waiters -------------------------------------------------------------------------------- */

/* Consumers that sleep: bit b of word w is bell w*64+b; bit w of summary says word w is not empty. */
struct eg_waiters {
    _Atomic uint64_t summary;
    uint8_t pad[56];
    _Atomic uint64_t bits[EG_BELLS_MAX / 64];
    uint8_t pad1[1024 - 64 - EG_BELLS_MAX / 8];
};

/* ---- segment -------------------------------------------------------------------------------- */

#define EG_BASE_UNSET (-1ll)
#define EG_OFFSET_MAX (1ll << 62) /* of a base: what any segment's counts add to it does not wrap */

struct eg_segment_header {
    struct eg_magic magic;
    uint32_t topic_uid;
    uint32_t partition_uid;
    uint32_t partition; /* its number within the topic */
    uint32_t align;
    uint64_t capacity;      /* bytes, this page included */
    _Atomic uint64_t seq;
    int64_t created_ns;     /* realtime, when it was prepared */
    uint32_t crc;           /* CRC32C of bytes 8 .. 56 (magic's version on, seq, created) */
    uint32_t pad0;
    _Atomic int64_t base;   /* offset of record 0. Producers: CAS from EG_BASE_UNSET, acq_rel */
    uint32_t base_crc;      /* log file only: CRC32C of base, seeded with crc */
    uint32_t pad1;
    /* `allocated` and `hint` lie in the buffer and not in the slot: a producer that stops before it
     * stores them, and goes on after the slot got another buffer, must not tell lies of that one. */
    _Atomic uint64_t allocated; /* bytes from the start with memory behind them; only ever grows.
                                   Daemon and producers: CAS up, release; readers acquire */
    uint8_t pad2[40];
    _Atomic uint64_t hint; /* tail: where to start looking for the free place. relaxed */
    uint8_t pad3[56];
};

/* A frame: header, key, value, headers block (u32 length, then pairs), zeros to the alignment. */
struct eg_frame {
    _Atomic uint64_t word;  /* see word.h; FREE->CLAIMED: CAS acq_rel; CLAIMED->PUBLISHED: its
                               owner's release store (or the daemon's CAS once the owner is dead) */
    uint32_t crc;           /* see frame.h */
    uint32_t index;         /* record number within the segment */
    int64_t timestamp_ns;
    uint32_t key_length;    /* EG_NULL_LENGTH: no key */
    uint32_t value_length;  /* EG_NULL_LENGTH: null (tombstone) */
    uint8_t payload[];
};

#define EG_NULL_LENGTH 0xffffffffu
#define EG_FRAME_HEADER 32u

/* ---- sizes and places derived from settings --------------------------------------------------- */

static inline uint64_t eg_align_up(uint64_t n, uint64_t align) { return (n + align - 1) & ~(align - 1); }
static inline uint64_t eg_record_bytes_max(uint64_t segment_bytes) { return segment_bytes / 8; }
static inline size_t eg_ring_index_at(uint32_t slots) {
    return sizeof(struct eg_ring) + slots * sizeof(struct eg_slot);
}
static inline size_t eg_index_blocks(uint64_t segment_bytes) { return segment_bytes / EG_INDEX_BLOCK; }
static inline size_t eg_ring_stride(uint32_t slots, uint64_t segment_bytes) {
    return eg_align_up(eg_ring_index_at(slots) + slots * eg_index_blocks(segment_bytes) * 8, EG_PAGE);
}
static inline size_t eg_status_bytes(uint32_t partitions) {
    return EG_PAGE + (size_t)partitions * sizeof(struct eg_partition_status);
}
static inline size_t eg_waiters_bytes(uint32_t partitions) {
    return eg_align_up((size_t)partitions * sizeof(struct eg_waiters), EG_PAGE);
}
static inline struct eg_partition_status *eg_status_of(struct eg_topic_status *t, uint32_t partition) {
    return (struct eg_partition_status *)(void *)((uint8_t *)t + EG_PAGE) + partition;
}
/* Hot index of slot s: eg_index_blocks() entries. Block 0 needs none (its first frame is known). */
static inline _Atomic uint64_t *eg_ring_index(struct eg_ring *r, uint32_t slots, uint32_t s, uint64_t segment_bytes) {
    return (_Atomic uint64_t *)(void *)((uint8_t *)r + eg_ring_index_at(slots)) + s * eg_index_blocks(segment_bytes);
}

/* ---- what the compiler must agree with -------------------------------------------------------- */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");
static_assert(sizeof(struct eg_magic) == 16, "eg_magic");
static_assert(offsetof(struct eg_bus, asleep) == 64 && sizeof(struct eg_bus) == 128, "eg_bus");
static_assert(offsetof(struct eg_bells, bell) % EG_LINE == 0, "eg_bells.bell");
static_assert(offsetof(struct eg_client_page, pin) == EG_PAGE, "eg_client_page.pin");
static_assert(sizeof(struct eg_topic_status) <= EG_PAGE, "eg_topic_status");
static_assert(offsetof(struct eg_partition_status, slot) == 128, "eg_partition_status.slot");
static_assert(offsetof(struct eg_partition_status, buffer) == 128 + 512 + 256, "eg_partition_status.buffer");
static_assert(sizeof(struct eg_partition_status) == EG_PAGE, "eg_partition_status");
static_assert(sizeof(struct eg_slot) == EG_LINE, "eg_slot");
static_assert(offsetof(struct eg_ring, active) == 64 && offsetof(struct eg_ring, slot) == 128, "eg_ring");
static_assert(offsetof(struct eg_waiters, bits) == 64 && sizeof(struct eg_waiters) == 1024, "eg_waiters");
static_assert(offsetof(struct eg_segment_header, crc) == 56, "eg_segment_header.crc");
static_assert(offsetof(struct eg_segment_header, base) == 64, "eg_segment_header.base");
static_assert(offsetof(struct eg_segment_header, hint) == 128, "eg_segment_header.hint");
static_assert(offsetof(struct eg_frame, payload) == EG_FRAME_HEADER, "eg_frame");
static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "lock-free u64");

/* ---- layout.c ------------------------------------------------------------------------------------ */

/* Fingerprint of the structures above: differs whenever an offset or size does. */
uint32_t eg_layout_fingerprint(void);

/* Fill in and, with eg_magic_publish, complete an object's magic. */
void eg_magic_init(struct eg_magic *m);
void eg_magic_publish(struct eg_magic *m, uint64_t magic);

/* EAGRE_OK if the object is complete, of this version and this fingerprint; else EAGRE_E_VERSION or
 * EAGRE_E_CORRUPT with `what` in the detail text. */
int eg_magic_check(const struct eg_magic *m, uint64_t magic, const char *what);

/* Ranges of a topic's fixed settings, as any process must check them before it does arithmetic. */
int eg_topic_status_check(const struct eg_topic_status *t, size_t mapped);

/* The daemon: (re)write the header of a buffer for segment seq: base unset, hint at the first frame;
 * `allocated` is left as it is. The frames are not touched. */
void eg_segment_init(struct eg_segment_header *h, const struct eg_topic_status *t,
                     uint32_t partition, uint32_t partition_uid, uint64_t seq, int64_t now_ns);
/* EAGRE_OK if h is the header of that segment. */
int eg_segment_check(const struct eg_segment_header *h, uint32_t partition_uid, uint64_t seq, uint64_t capacity);

#endif
