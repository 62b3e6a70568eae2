#include "bytes.h"
#include "cli_disk.h"
#include "cli_options.h"
#include "file.h"
#include "vhd.h"

#include <string.h>

struct args {
    uint64_t size_bytes, block_bytes;
    const char *parent;
    bool fixed;
};

static const struct cli_option OPTIONS[] = {
    {"size", CLI_SIZE, offsetof(struct args, size_bytes), "SIZE",
     "size of the disk, e.g. 20G; for a child, the parent's"},
    {"fixed", CLI_FLAG, offsetof(struct args, fixed), NULL, "take all the space now instead of growing"},
    {"parent", CLI_TEXT, offsetof(struct args, parent), "FILE", "make a differencing image over this one"},
    {"block-size", CLI_SIZE, offsetof(struct args, block_bytes), "SIZE", "512K, 1M, 2M (the default) or 4M"},
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static bool create(const char *path, const struct vhd_create_options *options, struct err *err)
{
    AUTO_FREE char *dir = path_dir(path);

    if (!dir)
        return err_oom(err);
    return vhd_create(&io_real, path, options, err) && io_sync_dir(&io_real, dir, err);
}

int cmd_disk_create(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (args.fixed && (args.parent || args.block_bytes))
        return cli_usage_error("--fixed goes neither with --parent nor with --block-size");
    if (args.size_bytes == 0 && !args.parent)
        return cli_usage_error("--size is missing");
    if (args.block_bytes != 0 && (args.block_bytes < 512U << 10 || args.block_bytes > 4U << 20))
        return cli_usage_error("a block size is from 512K to 4M");
    struct vhd_create_options options = {
        .type = args.parent  ? VHD_DIFFERENCING
                : args.fixed ? VHD_FIXED
                             : VHD_DYNAMIC,
        .size_bytes = args.size_bytes,
        .block_bytes = (uint32_t)args.block_bytes,
        .parent_path = args.parent,
    };
    return create(operands.items[0], &options, &err) ? 0 : cli_fail(operands.items[0], &err);
}
