/*
 * logfile.h - the format of a log file: the image of one segment, as it lies on disk.
 *
 *   0      EG_SEGMENT_DATA                                                        capacity
 *   +------+-------+-----+-------+----------------+-----+---------------------------+
 *   |header| frame | pad | frame | ...            | EOS | anything                  |
 *   +------+-------+-----+-------+----------------+-----+---------------------------+
 *
 * What differs from the segment in memory:
 *   header    fingerprint, `allocated` and `hint` are 0; base and base_crc are filled in. What lies behind
 *             base_crc is 0 and ignored. EG_LOGFILE_VERSION is the file's own: other layouts of shared
 *             memory read the same files.
 *   word      its owner bits hold the number of the flush that wrote the frame, see below.
 *   slack     a frame may be longer than its contents need (a claim that was committed shorter, a pad). No
 *             CRC covers the word, so the first 8 bytes behind what is needed repeat the length, with a
 *             CRC (slack_note() in logfile.c). The rest is 0 and ignored. (A length
 *             that is hit so that there is no slack any more is found at the next place: the note is no frame.)
 *   pad       key and value null, timestamp = its count, CRC as of a data frame without payload.
 *   EOS       likewise; timestamp 0, index = records in the segment, count 0, length = all that is left of
 *             the capacity. Where less than a frame's header is left, the word alone: nothing but an end
 *             can be there. A segment that is full to the last byte has none.
 * So every bit of the chain is checked but those of the flush, and of zeros that fill up.
 * Behind the end: whatever the file held before. Who writes a file puts a zero word behind the last frame of
 * each write, if there is room (eg_logfile_end_bytes()): then a clean end can be told from a torn one.
 *
 * ---- Flush numbers, and what they prove ----
 *
 * Flushes of a segment are numbered 1, 2, .. EG_LOGFILE_FLUSH_MAX, 1, ..; a flush has at least one frame.
 * Frames of the next flush are given to the kernel only after the sync of this one has succeeded. So along
 * the file the numbers never go down (but where they wrap), and whoever finds a frame of a flush knows that
 * all flushes before were on disk, without a mark that would cost a sync of its own.
 * Who goes on with a file (warm or cold start) uses the number behind that of the last frame which is known
 * to be durable: eg_logfile_flush_next(). It rewrites what was not durable under the number that it had.
 * Who cuts a torn tail must make sure that its bytes are gone (truncate, sync, then extend again): frames
 * that were left behind the cut would be evidence at the next crash, of something that never was.
 *
 * No I/O here but on what is given; no allocation; untrusted bytes in all of them.
 */
#ifndef EG_LOG_LOGFILE_H
#define EG_LOG_LOGFILE_H

#include "log/frame.h"

#define EG_LOGFILE_VERSION 1u
#define EG_LOGFILE_FLUSH_MAX EG_OWNER_MAX

static inline uint32_t eg_logfile_flush_next(uint32_t flush) {
    return flush >= EG_LOGFILE_FLUSH_MAX ? 1 : flush + 1;
}

/* ---- header page -------------------------------------------------------------------------------- */

/* What a file says of itself. */
struct eg_logfile_id {
    uint32_t topic_uid;
    uint32_t partition_uid;
    uint32_t partition; /* its number within the topic */
    uint32_t align;
    uint64_t capacity;
    uint64_t seq;
    int64_t created_ns;
    int64_t base; /* offset of its first record */
};

enum eg_logfile_header_fault {
    EG_HEADER_OK = 0,
    EG_HEADER_SHORT, /* fewer bytes than a header page */
    EG_HEADER_MAGIC, /* also: nothing was ever written */
    EG_HEADER_VERSION,
    EG_HEADER_CRC,
    EG_HEADER_BASE,   /* its CRC, or impossible */
    EG_HEADER_VALUES, /* capacity, align or seq that no file has */
    EG_HEADER_TOPIC,  /* of another topic; also all below: a good header, but not of that file */
    EG_HEADER_PARTITION,
    EG_HEADER_SEQ,
    EG_HEADER_CAPACITY,
    EG_HEADER_ALIGN,
};

/* Fill page (EG_PAGE bytes). */
void eg_logfile_header_make(void *page, const struct eg_logfile_id *id);

/*
 * Check a file's first `bytes` bytes (one page will do). expected: NULL, or who it must be; its base and
 * created_ns are not compared. EAGRE_OK and *out; else EAGRE_E_CORRUPT or EAGRE_E_VERSION with a text that
 * tells what is wrong, and *fault (may be NULL).
 */
int eg_logfile_header_check(const void *page, uint64_t bytes, const struct eg_logfile_id *expected,
                            struct eg_logfile_id *out, enum eg_logfile_header_fault *fault);

/* ---- frames --------------------------------------------------------------------------------------- */

/* What is needed to make or check the frames of one segment. */
struct eg_logfile {
    const uint8_t
        *data; /* the file from its first byte, mapped or read, aligned to 8; NULL: only to write */
    uint64_t bytes; /* of data; files may be shorter than capacity */
    uint64_t capacity;
    uint64_t seq;
    int64_t base;
    uint32_t align;
    uint32_t seed;
};

/* id: checked by eg_logfile_header_check, or one's own. */
void eg_logfile_init(struct eg_logfile *l, const struct eg_logfile_id *id, const void *data,
                     uint64_t bytes);

/* What one frame was, wherever it comes from. */
struct eg_logfile_frame {
    enum eg_frame_kind kind;
    uint32_t flush;
    uint64_t pos;
    uint64_t length;
    uint32_t index;            /* of its (first) record */
    uint32_t count;            /* data: 1; pad: records that it skips; EOS: 0 */
    struct eg_frame_view view; /* data only; into the file, or into dst */
};

/*
 * Make the disk form of the frame `src` of a ring at dst. Copies and verifies in one pass, so what is right
 * is the copy, whatever its producer does to src meanwhile. word: loaded from src once (acquire), published;
 * (pos, index): where the chain is. dst has room for the word's length (at most capacity - pos), which is
 * written whole but for EOS: eg_logfile_bytes() of it. *out is filled; next place: pos + length, index + count.
 * EAGRE_E_CORRUPT: the ring is damaged there; dst holds rubbish.
 */
int eg_logfile_frame_write(const struct eg_logfile *l, uint8_t *dst, const struct eg_frame *src,
                           uint64_t word, uint64_t pos, uint64_t index, uint32_t flush,
                           struct eg_logfile_frame *out);

/* Bytes of the file that a frame takes: its length, or an EOS's header (or word). */
static inline uint64_t eg_logfile_bytes(const struct eg_logfile_frame *f) {
    uint64_t eos = f->length < EG_FRAME_HEADER ? sizeof(uint64_t) : EG_FRAME_HEADER;
    return f->kind == EG_KIND_EOS ? eos : f->length;
}

/* Zeros to write behind the last frame of a write, which ends at pos. */
static inline uint64_t eg_logfile_end_bytes(const struct eg_logfile *l, uint64_t pos) {
    return l->capacity - pos >= sizeof(uint64_t) ? sizeof(uint64_t) : 0;
}

/*
 * Check the frame at pos of the file, expected to begin with record `index`. NULL and *out: it is good.
 * Else what is wrong: a text that lives forever. A zero word is "nothing is written here".
 */
const char *eg_logfile_frame_check(const struct eg_logfile *l, uint64_t pos, uint64_t index,
                                   struct eg_logfile_frame *out);

/* ---- walking ------------------------------------------------------------------------------------------ */

enum eg_logfile_step {
    EG_STEP_RECORD,
    EG_STEP_PAD,
    EG_STEP_END,     /* end of the segment: EOS, or full. it->frame.kind is EOS; length 0 if full */
    EG_STEP_NOTHING, /* a zero word, or the file ends here: nothing was written from here on */
    EG_STEP_BAD      /* it->reason */
};

struct eg_logfile_iter {
    struct eg_logfile l;
    uint64_t pos; /* of the next frame; END, NOTHING, BAD: where it stopped */
    uint64_t index;
    struct eg_logfile_frame frame; /* RECORD, PAD, END: the one that was stepped over */
    const char *reason;
};

/* Begin at (EG_SEGMENT_DATA, 0), or at any place that is known to be one: a wrong one is found BAD. */
void eg_logfile_iter_init(struct eg_logfile_iter *it, const struct eg_logfile *l, uint64_t pos,
                          uint64_t index);

/* The next frame, verified. After END, NOTHING or BAD the same again: NOTHING may become more once the file
 * has grown (set it->l.bytes). */
enum eg_logfile_step eg_logfile_next(struct eg_logfile_iter *it);

/* The first good frame behind pos, where something bad is, and behind record `index`. False: there is none, or
 * too much looks like one to tell. */
bool eg_logfile_find(const struct eg_logfile *l, uint64_t pos, uint64_t index,
                     struct eg_logfile_frame *out);

/* ---- recovery: where does the good part of a file end? ------------------------------------------------ */

enum eg_logfile_verdict {
    EG_FILE_CLEAN, /* ends with an end, or with nothing; nothing of the segment was found behind */
    EG_FILE_TORN, /* something unfinished lies behind the good part, and nothing says that it was durable */
    EG_FILE_DAMAGED /* what is bad or missing was durable: never to be cut */
};

struct eg_logfile_scan {
    enum eg_logfile_verdict verdict;
    bool sealed; /* ended by END */
    /* The good part: from where the scan began to here. */
    uint64_t good_pos; /* END: behind the EOS frame, that is, the capacity */
    uint64_t good_index;
    uint64_t data_end; /* good_pos, but END: the EOS frame's place */
    uint64_t records;
    uint64_t pads;
    uint32_t flush; /* of the last good frame; 0: none */
    int64_t first_timestamp_ns, last_timestamp_ns, max_timestamp_ns; /* if records > 0 */
    /* If it is not clean: */
    const char *reason; /* what is wrong at good_pos; lives forever, as the next */
    const char *proof;  /* DAMAGED: how that is known */
    uint64_t next_pos;  /* the next good frame behind good_pos; 0: there is none */
    uint64_t next_index;
    uint64_t behind_records; /* good records behind */
    uint64_t
        behind_index; /* index behind the last of them; 0: none. Lost if cut: behind_index - good_index */
    uint64_t behind_end;   /* position behind the last of them; 0: none */
    uint32_t behind_holes; /* bad places among them */
};

/*
 * Check the file from (pos, index), where flush_before is the number of the last frame before (0 at the
 * first frame, or unknown). mark: every byte below this position is known to be durable; the capacity, if the
 * segment is known to be whole. (A next file in which something is shows it: its
 * writer waits for this one's last sync.) Recovery begins at the first frame: a place
 * that somebody noted is as good as the note. (A pos that can be none means the first frame, too.)
 */
void eg_logfile_scan(const struct eg_logfile *l, uint64_t pos, uint64_t index,
                     uint32_t flush_before, uint64_t mark, struct eg_logfile_scan *out);

#endif
