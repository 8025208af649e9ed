#include "format.h"

#include <stdint.h>
#include <string.h>

#define NS_PER_MS 1000000

static const char *add(struct format *f, char letter, const char *text, size_t len) {
    if (f->count == FORMAT_ITEMS_MAX)
        return "it has too many parts";
    f->items[f->count++] = (struct format_item){letter, text, len};
    return NULL;
}

/* The text up to the next '%', unescaped in place: it only gets shorter. */
static const char *add_text(struct format *f, char *text, size_t len) {
    char after = text[len];
    text[len] = '\0';
    size_t n = unescape(text);
    const char *wrong = n > 0 ? add(f, 0, text, n) : NULL;
    text[len] = after;
    return wrong;
}

const char *format_parse(struct format *f, char *text) {
    const char *wrong = NULL;
    f->count = 0;
    while (*text != '\0' && wrong == NULL) {
        size_t len = strcspn(text, "%");
        if (len > 0) {
            wrong = add_text(f, text, len);
            text += len;
            continue;
        }
        if (text[1] == '\0')
            return "a % is at its end; %% is a percent sign";
        if (strchr("tpokKsSRTh%", text[1]) == NULL)
            return "after a % there is one of t p o k K s S R T h %";
        wrong = text[1] == '%' ? add(f, 0, text, 1) : add(f, text[1], NULL, 0);
        text += 2;
    }
    return wrong;
}

void format_delimited(struct format *f, const char *key_delimiter, size_t key_len,
                      const char *delimiter, size_t len) {
    f->count = 0;
    if (key_delimiter != NULL) {
        add(f, 'k', NULL, 0);
        add(f, 0, key_delimiter, key_len);
    }
    add(f, 's', NULL, 0);
    add(f, 0, delimiter, len);
}

static void put(const struct format *f, struct out *o, const void *data, uint32_t len) {
    if (data != NULL)
        out_bytes(o, data, len);
    else if (f->null_shown)
        out_text(o, "NULL");
}

static void put_headers(struct out *o, const eagre_record_t *r) {
    eagre_header_t h;
    for (size_t i = 0; r->headers != NULL && eagre_record_header(r, i, &h) == EAGRE_OK; i++) {
        if (i > 0)
            out_text(o, ",");
        out_bytes(o, h.name, h.name_len);
        out_text(o, "=");
        if (h.value != NULL)
            out_bytes(o, h.value, h.value_len);
        else
            out_text(o, "NULL");
    }
}

static int64_t length(const void *data, uint32_t len) { return data == NULL ? -1 : (int64_t)len; }

void format_record(const struct format *f, struct out *o, const eagre_record_t *r) {
    for (size_t i = 0; i < f->count; i++) {
        const struct format_item *item = &f->items[i];
        switch (item->letter) {
        case 0:
            out_bytes(o, item->text, item->len);
            break;
        case 't':
            out_text(o, r->topic);
            break;
        case 'p':
            out_int(o, r->partition);
            break;
        case 'o':
            out_int(o, r->offset);
            break;
        case 'k':
            put(f, o, r->key, r->key_len);
            break;
        case 'K':
            out_int(o, length(r->key, r->key_len));
            break;
        case 's':
            put(f, o, r->value, r->value_len);
            break;
        case 'S':
            out_int(o, length(r->value, r->value_len));
            break;
        case 'R': {
            uint32_t n = __builtin_bswap32((uint32_t)length(r->value, r->value_len));
            out_bytes(o, &n, sizeof(n));
            break;
        }
        case 'T':
            out_int(o, r->timestamp_ns / NS_PER_MS);
            break;
        default:
            put_headers(o, r);
        }
    }
}

/* ,"NAME": the bytes as a string, or as NAME_base64. */
static void member(struct out *o, const char *name, const void *data, uint32_t len) {
    out_text(o, ",\"");
    out_text(o, name);
    if (data == NULL) {
        out_text(o, "\":null");
    } else if (utf8_is_valid(data, len)) {
        out_text(o, "\":");
        json_string(o, data, len);
    } else {
        out_text(o, "_base64\":");
        json_base64(o, data, len);
    }
}

static void element(struct out *o, const void *data, size_t len) {
    if (data == NULL) {
        out_text(o, "null");
    } else if (utf8_is_valid(data, len)) {
        json_string(o, data, len);
    } else {
        out_text(o, "{\"base64\":");
        json_base64(o, data, len);
        out_text(o, "}");
    }
}

void format_json(struct out *o, const eagre_record_t *r) {
    out_text(o, "{\"topic\":");
    json_text(o, r->topic);
    out_text(o, ",\"partition\":");
    out_int(o, r->partition);
    out_text(o, ",\"offset\":");
    out_int(o, r->offset);
    out_text(o, ",\"tstype\":\"create\",\"ts\":");
    out_int(o, r->timestamp_ns / NS_PER_MS);
    out_text(o, ",\"ts_ns\":");
    out_int(o, r->timestamp_ns);
    if (r->headers != NULL) {
        eagre_header_t h;
        out_text(o, ",\"headers\":[");
        for (size_t i = 0; eagre_record_header(r, i, &h) == EAGRE_OK; i++) {
            if (i > 0)
                out_text(o, ",");
            element(o, h.name, h.name_len);
            out_text(o, ",");
            element(o, h.value, h.value_len);
        }
        out_text(o, "]");
    }
    member(o, "key", r->key, r->key_len);
    member(o, "payload", r->value, r->value_len);
    out_text(o, "}");
}
