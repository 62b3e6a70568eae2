#include "buf.h"
#include "bytes.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "file.h"
#include "vhd.h"

struct args {
    uint64_t size_bytes, block_bytes;
    const char *parent;
    bool fixed, json;
};

static const struct cli_option OPTIONS[] = {
    {"size", CLI_SIZE, offsetof(struct args, size_bytes), "SIZE",
     "size of the disk, e.g. 20G; a child has its parent's if none is given"},
    {"fixed", CLI_FLAG, offsetof(struct args, fixed), NULL, "take all the space now instead of growing"},
    {"parent", CLI_TEXT, offsetof(struct args, parent), "FILE", "make a differencing image over this one"},
    {"block-size", CLI_SIZE, offsetof(struct args, block_bytes), "SIZE", "512K, 1M, 2M (the default) or 4M"},
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static int check(void *values, char **operands)
{
    const struct args *args = values;
    int status = 0;

    (void)operands;
    if (args->fixed && (args->parent || args->block_bytes))
        return cli_usage_error("--fixed goes neither with --parent nor with --block-size");
    if (args->size_bytes == 0 && !args->parent)
        return cli_usage_error("--size is missing");
    (void)block_size_is_wrong(args->block_bytes, &status);
    return status;
}

static bool create(const char *path, const struct vhd_create_options *options, struct err *err)
{
    AUTO_FREE char *dir = path_dir(path);

    if (!dir)
        return err_oom(err);
    return vhd_create(&io_real, path, options, err) && io_sync_dir(&io_real, dir, err);
}

static bool work(void *values, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    const struct args *args = values;
    AUTO_VHD struct vhd *vhd = NULL;
    struct vhd_create_options options = {
        .type = args->parent  ? VHD_DIFFERENCING
                : args->fixed ? VHD_FIXED
                              : VHD_DYNAMIC,
        .size_bytes = args->size_bytes,
        .block_bytes = (uint32_t)args->block_bytes,
        .parent_path = args->parent,
    };

    (void)progress;
    if (!create(operands[0], &options, err) || !vhd_open(&io_real, operands[0], IO_READ_ONLY, &vhd, err))
        return false;
    *ret_answer =
        json_pack("{s:o, s:s, s:I, s:I, s:o}", "file", json_from_text(operands[0]), "type",
                  vhd_type_name(vhd->type), "size_bytes", (json_int_t)vhd->size_bytes, "block_bytes",
                  (json_int_t)vhd->block_bytes, "parent", json_from_text(args->parent));
    return true;
}

static int print(const json_t *answer)
{
    char size[16];
    AUTO_FREE char *text = string_printf("%s, %s", json_text(answer, "type"),
                                         size_format(json_bytes(answer, "size_bytes"), size));

    line_print(json_text(answer, "file"), text ? text : "");
    return 0;
}

int cmd_disk_create(int argc, char **argv)
{
    static const struct disk_verb VERB = {
        .syntax = &SYNTAX, .changes = true, .check = check, .work = work, .print = print};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
