#include "cli_disk.h"
#include "cli_options.h"
#include "cli_progress.h"
#include "disk_tools.h"
#include "file.h"

struct args {
    bool fixed;
    uint64_t block_bytes;
};

static const struct cli_option OPTIONS[] = {
    {"fixed", CLI_FLAG, offsetof(struct args, fixed), NULL, "a fixed image instead of a dynamic one"},
    {"block-size", CLI_SIZE, offsetof(struct args, block_bytes), "SIZE", "512K, 1M, 2M (the default) or 4M"},
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static bool convert(const char *from, const char *to, const struct args *args, struct err *err)
{
    AUTO_FREE char *dir = path_dir(to);
    struct cli_progress progress;

    if (!dir)
        return err_oom(err);
    cli_progress_begin(&progress, "convert");
    bool ok = disk_convert(&io_real, from, to, args->fixed ? VHD_FIXED : VHD_DYNAMIC,
                           (uint32_t)args->block_bytes, &progress.progress, err);
    cli_progress_end(&progress);
    return ok && io_sync_dir(&io_real, dir, err);
}

int cmd_disk_convert(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (args.fixed && args.block_bytes != 0)
        return cli_usage_error("--fixed goes not with --block-size");
    if (args.block_bytes != 0 && (args.block_bytes < 512U << 10 || args.block_bytes > 4U << 20))
        return cli_usage_error("a block size is from 512K to 4M");
    if (convert(operands.items[0], operands.items[1], &args, &err))
        return 0;
    return cli_fail(operands.items[0], &err);
}
