/*
 * eagre/error.h - every status a call of libeagre can return.
 *
 * A call that can fail returns 0 (EAGRE_OK) or one of the negative codes below. The code says what
 * kind of thing went wrong; eagre_error_detail() says, for the last failure in this thread, what
 * exactly: which topic, setting, limit or path, and what to do. (One X-macro for code, name, class
 * and text is libuv's idea; "retriable or fatal" is Kafka's.)
 *
 * Classes: RETRY - the same call may succeed later without anybody's doing; FATAL - this handle
 * will not work again, close it; ERROR - the call was refused, the handle is as it was before.
 */
#ifndef EAGRE_ERROR_H
#define EAGRE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* X(code, name, class, text) */
#define EAGRE_ERROR_MAP(X)                                                                         \
    X(-1, INVALID, ERROR, "invalid argument")                                                      \
    X(-2, NO_MEMORY, RETRY, "out of memory or over a memory limit")                                \
    X(-3, NO_DAEMON, RETRY, "no daemon answers")                                                   \
    X(-4, VERSION, FATAL, "incompatible version")                                                  \
    X(-5, PERMISSION, ERROR, "permission denied")                                                  \
    X(-6, PROTOCOL, ERROR, "protocol violation on the control socket")                             \
    X(-7, UNKNOWN_TOPIC, ERROR, "unknown topic")                                                   \
    X(-8, UNKNOWN_PARTITION, ERROR, "partition out of range")                                      \
    X(-9, TOPIC_EXISTS, ERROR, "topic already exists")                                             \
    X(-10, INVALID_CONFIG, ERROR, "invalid setting or value")                                      \
    X(-11, RECORD_TOO_LARGE, ERROR, "record too large")                                            \
    X(-12, WOULD_BLOCK, RETRY, "would block")                                                      \
    X(-13, TIMED_OUT, RETRY, "timed out")                                                          \
    X(-14, OFFSET_OUT_OF_RANGE, ERROR, "offset out of range")                                      \
    X(-15, CORRUPT, ERROR, "corrupt data")                                                         \
    X(-16, FORKED, FATAL, "handle was inherited through fork")                                     \
    X(-17, CLOSED, FATAL, "closed")                                                                \
    X(-18, TOPIC_DELETED, FATAL, "topic was deleted")                                              \
    X(-19, BUSY, RETRY, "in use by somebody else")                                                 \
    X(-20, LIMIT, ERROR, "a limit is reached")                                                     \
    X(-21, STATE, ERROR, "not possible in this state")                                             \
    X(-22, IO, ERROR, "input/output error")                                                        \
    X(-23, SYSTEM, ERROR, "the operating system refused")                                          \
    X(-24, UNSUPPORTED, ERROR, "not supported")                                                    \
    X(-25, INTERNAL, FATAL, "internal error: please report it")                                    \
    X(-26, FENCED, ERROR, "not a member of the group any more")                                    \
    X(-27, NO_OFFSET, ERROR, "no committed offset")                                                \
    X(-28, UNKNOWN_GROUP, ERROR, "unknown group")                                                  \
    X(-29, GROUP_ACTIVE, RETRY, "the group has members")

typedef enum eagre_status {
    EAGRE_OK = 0,
#define EAGRE_X(code, name, class_, text) EAGRE_E_##name = (code),
    EAGRE_ERROR_MAP(EAGRE_X)
#undef EAGRE_X
} eagre_status_t;

/* The symbolic name ("EAGRE_E_WOULD_BLOCK"); "EAGRE_E_?" for an unknown code. Never NULL, static. */
const char *eagre_status_name(int status);

/* A short English text ("would block"). Never NULL, static. */
const char *eagre_status_text(int status);

/* 1 if the same call may succeed later without a change by the caller, else 0. */
int eagre_status_is_retriable(int status);

/* 1 if the handle that returned it will not work again and should be closed, else 0. */
int eagre_status_is_fatal(int status);

/*
 * What the last failed call in this thread had to say: one line, no newline at its end, never NULL
 * ("" if nothing failed yet). Valid until the next libeagre call of this thread. A successful call
 * leaves it as it is.
 */
const char *eagre_error_detail(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
