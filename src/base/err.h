/* Errors: what went wrong, where, and how the program ends because of it.
 *
 * The contract of every function that takes a `struct err *`: it returns true on success; on failure it
 * returns false, has filled *err, and has left every `ret_` output untouched. err is owned by the caller
 * and is never NULL. A text names the file and the field; callers add where they were with err_prefix(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* One table gives the code, the exit status of `bough`, and the name in JSON. */
#define ERR_TABLE(X)                                                                                         \
    X(ERR_NONE, 0, "none")                                                                                   \
    X(ERR_INTERNAL, 1, "internal")       /* a bug of ours */                                                 \
    X(ERR_USAGE, 2, "usage")             /* the command line is wrong */                                     \
    X(ERR_IO, 3, "io")                   /* the system refused a file operation; sys has errno */            \
    X(ERR_NO_SPACE, 4, "no-space")       /* ENOSPC or EDQUOT, or foreseen not to fit */                      \
    X(ERR_NO_MEMORY, 5, "no-memory")                                                                         \
    X(ERR_NOT_FOUND, 6, "not-found")     /* no such VM, snapshot, file */                                    \
    X(ERR_EXISTS, 7, "exists")           /* the name is taken */                                             \
    X(ERR_INVALID, 8, "invalid")         /* an argument or setting out of its range */                       \
    X(ERR_AMBIGUOUS, 9, "ambiguous")     /* more than one snapshot answers to it */                          \
    X(ERR_CORRUPT, 10, "corrupt")        /* a file breaks its format */                                      \
    X(ERR_MISMATCH, 11, "mismatch")      /* files that do not belong together (parent id, .bin and .vsv) */  \
    X(ERR_BUSY, 12, "busy")              /* another operation or another owner has it */                     \
    X(ERR_STATE, 13, "state")            /* not possible in the VM's present state */                        \
    X(ERR_UNSUPPORTED, 14, "unsupported") /* valid, but not done here */                                     \
    X(ERR_CANCELLED, 15, "cancelled")                                                                        \
    X(ERR_QEMU, 16, "qemu")              /* QEMU is missing, too old, refused, or ended */                   \
    X(ERR_PROTOCOL, 17, "protocol")      /* the other end of a socket broke its protocol */                  \
    X(ERR_TIMEOUT, 18, "timeout")                                                                            \
    X(ERR_HOOK, 19, "hook")              /* a program of the user's, run before an operation, has stopped it */

enum err_code {
#define ERR_ENUM(code, exit_status, name) code,
    ERR_TABLE(ERR_ENUM)
#undef ERR_ENUM
        ERR_CODES
};

struct err {
    enum err_code code;
    int sys; /* errno where the system gave one, else 0 */
    char text[480];
};

#define ERR_INIT ((struct err){.code = ERR_NONE})

void err_set_text(struct err *err, enum err_code code, int sys, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Macros whose value is false, so that `return err_set(...)` is one expression and static analysers see
 * that the call failed. */
#define err_set(err, code, ...) (err_set_text((err), (code), 0, __VA_ARGS__), false)
/* From errno: ENOSPC/EDQUOT become ERR_NO_SPACE, ENOMEM ERR_NO_MEMORY, ENOENT ERR_NOT_FOUND, EEXIST
 * ERR_EXISTS, all others ERR_IO. `: strerror` is appended. */
#define err_sys(err, errnum, ...) (err_set_errno((err), (errnum), __VA_ARGS__), false)
#define err_prefix(err, ...)      (err_prefix_text((err), __VA_ARGS__), false)
#define err_oom(err)              err_set((err), ERR_NO_MEMORY, "out of memory")

void err_set_errno(struct err *err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The text as valid UTF-8, for JSON: foreign bytes (of file names) become '?'; cut at a character's end. */
void err_text_utf8(const struct err *err, char text[static sizeof(((struct err *)0)->text)]);
/* Puts `format...: ` in front of the text; code and sys stay. */
void err_prefix_text(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

int err_exit_status(enum err_code code);
const char *err_name(enum err_code code);          /* the JSON name, e.g. "no-space" */
enum err_code err_code_by_name(const char *name);  /* ERR_INTERNAL if unknown */
/* The errno that a block client (NBD, QEMU) should see for it: ENOSPC or EIO mostly. */
int err_errno(const struct err *err);

#define MUST_CHECK __attribute__((warn_unused_result))
