/*
 * From a path to the name of the object that stands for it.
 *
 * The path is made absolute and plain: a/./b, a//b, x/../a/b and /a/b are one. Names of objects are spelled with letters,
 * digits, '.', '_' and '-', and do not begin with a dot: every other byte becomes _XX with its hexadecimal number. So
 * does a dot that begins a component, and a '_' that could be read as such a code. a/b is a_2Fb.
 *
 * The host spells the folder of `vmsync run --files` alike (runtime/cli/src/files.rs).
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "vmp.h"

struct spelling {
    char *name;
    int length; /* -1: does not fit */
};

static void put(struct spelling *out, char byte)
{
    if (out->length < 0 || out->length >= VMP_NAME_MAX)
        out->length = -1;
    else
        out->name[out->length++] = byte;
}

static void put_code(struct spelling *out, unsigned char byte)
{
    static const char digits[] = "0123456789ABCDEF";
    put(out, '_');
    put(out, digits[byte >> 4]);
    put(out, digits[byte & 15]);
}

static bool is_code(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'F');
}

static bool is_plain(const char *part, size_t length, size_t index)
{
    char byte = part[index];
    if (byte == '.')
        return index > 0;
    if (byte == '_')
        return !(index + 2 < length && is_code(part[index + 1]) && is_code(part[index + 2]));
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '-';
}

static void put_part(struct spelling *out, const char *part, size_t length)
{
    if (out->length > 0)
        put_code(out, '/');
    for (size_t index = 0; index < length; ++index) {
        if (is_plain(part, length, index))
            put(out, part[index]);
        else
            put_code(out, (unsigned char)part[index]);
    }
}

/* The bounds of the path's components, without "." and with ".." applied; their number, or -1. */
struct part {
    const char *start;
    size_t length;
};

static int split(const char *path, struct part *parts, int count, int room)
{
    while (*path != 0) {
        size_t length = strcspn(path, "/");
        if (length == 2 && memcmp(path, "..", 2) == 0) {
            count -= count > 0;
        } else if (length > 0 && !(length == 1 && *path == '.')) {
            if (count == room)
                return -1;
            parts[count++] = (struct part){path, length};
        }
        path += length + (path[length] == '/');
    }
    return count;
}

int vmp_name(const char *path, char name[VMP_NAME_MAX + 1])
{
    struct part parts[VMP_NAME_MAX / 2];
    const int room = sizeof parts / sizeof *parts;
    char folder[PATH_MAX];
    int count = 0;
    if (*path != '/' && getcwd(folder, sizeof folder) != NULL)
        count = split(folder, parts, count, room);
    if (count >= 0)
        count = split(path, parts, count, room);
    struct spelling out = {name, 0};
    for (int index = 0; index < count; ++index)
        put_part(&out, parts[index].start, parts[index].length);
    if (count < 0 || out.length < 0) {
        errno = ENAMETOOLONG;
        return -1;
    }
    name[out.length] = 0;
    return out.length;
}
