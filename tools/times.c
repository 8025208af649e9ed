#include "times.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

#include "sys/clock.h"

#define TIME_MAX_MS (INT64_MAX / EG_NS_PER_MS)

/* Digits, at most `max` of them; the number of digits. */
static size_t digits(const char **text, size_t max, int64_t *out) {
    size_t n = 0;
    *out = 0;
    for (; n < max && isdigit((unsigned char)**text); n++)
        *out = *out * 10 + *(*text)++ - '0';
    return n;
}

static bool relative(const char *text, int64_t now_ns, int64_t *ns) {
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ms", EG_NS_PER_MS},
                 {"s", EG_NS_PER_S},
                 {"m", 60 * EG_NS_PER_S},
                 {"h", 3600 * EG_NS_PER_S},
                 {"d", 86400 * EG_NS_PER_S}};
    int64_t n;
    if (digits(&text, 15, &n) == 0)
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (strcmp(text, units[i].name) == 0) {
            *ns = n < now_ns / units[i].ns ? now_ns - n * units[i].ns : 0;
            return true;
        }
    }
    return false;
}

/* Behind the sign of "+01:00", "-0130". */
static bool zone(const char **text, int64_t *seconds) {
    int64_t hours, minutes = 0;
    if (digits(text, 2, &hours) != 2)
        return false;
    if (**text == ':')
        ++*text;
    if (**text != '\0' && digits(text, 2, &minutes) != 2)
        return false;
    *seconds = hours * 3600 + minutes * 60;
    return hours <= 24 && minutes < 60;
}

static bool iso(const char *text, int64_t *ns) {
    int64_t year, month, day, hour = 0, minute = 0, second = 0, fraction = 0, offset = 0;
    bool local = true;
    if (digits(&text, 4, &year) != 4 || *text++ != '-' || digits(&text, 2, &month) != 2 || *text++ != '-' ||
        digits(&text, 2, &day) != 2 || year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 || day > 31)
        return false;
    if (*text == 'T' || *text == ' ') {
        text++;
        if (digits(&text, 2, &hour) != 2 || *text++ != ':' || digits(&text, 2, &minute) != 2)
            return false;
        if (*text == ':') {
            text++;
            if (digits(&text, 2, &second) != 2)
                return false;
            if (*text == '.') {
                text++;
                size_t n = digits(&text, 9, &fraction);
                if (n == 0)
                    return false;
                for (; n < 9; n++)
                    fraction *= 10;
            }
        }
        if (hour > 24 || minute > 59 || second > 60)
            return false;
    }
    if (*text == 'Z') {
        text++;
        local = false;
    } else if (*text == '+' || *text == '-') {
        int sign = *text++ == '+' ? 1 : -1;
        if (!zone(&text, &offset))
            return false;
        offset *= sign;
        local = false;
    }
    if (*text != '\0')
        return false;
    struct tm tm = {.tm_year = (int)year - 1900,
                    .tm_mon = (int)month - 1,
                    .tm_mday = (int)day,
                    .tm_hour = (int)hour,
                    .tm_min = (int)minute,
                    .tm_sec = (int)second,
                    .tm_isdst = -1};
    time_t t = local ? mktime(&tm) : timegm(&tm);
    if (tm.tm_mday != day && hour < 24) /* the 30th of February */
        return false;
    int64_t seconds = (int64_t)t - offset;
    *ns = seconds < 0 ? 0 : seconds * EG_NS_PER_S + fraction;
    return true;
}

bool time_parse(const char *text, int64_t now_ns, int64_t *ns) {
    int64_t ms;
    const char *at = text + 1;
    if (text[0] != '@')
        return false;
    if (*at == '-')
        return relative(at + 1, now_ns, ns);
    if (digits(&at, 14, &ms) > 0 && *at == '\0' && ms <= TIME_MAX_MS) {
        *ns = ms * EG_NS_PER_MS;
        return true;
    }
    return iso(text + 1, ns);
}

int64_t cli_time(const struct cli *c, const char *option, const char *text) {
    int64_t ns;
    if (!time_parse(text, eg_now_ns(), &ns))
        cli_usage(c, "%s: '%s' is no time: @MILLISECONDS, @-1h (ms, s, m, h, d) or @2025-01-31T12:00:00Z", option, text);
    return ns;
}
