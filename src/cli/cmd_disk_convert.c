#include "buf.h"
#include "bytes.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "convert.h"

#include <stdio.h>

struct args {
    const char *format, *source_format;
    uint64_t block_bytes;
    bool trust_source, json;
    /* By the names above and the operands: */
    enum image_format from_format, to_format;
};

static const struct cli_option OPTIONS[] = {
    {"format", CLI_TEXT, offsetof(struct args, format), "FORMAT",
     "of TO: dynamic or fixed (VHDs), raw, qcow2, vmdk, vdi, vhdx; else by its name"},
    {"block-size", CLI_SIZE, offsetof(struct args, block_bytes), "SIZE",
     "of a dynamic VHD: 512K, 1M, 2M (the default) or 4M"},
    {"source-format", CLI_TEXT, offsetof(struct args, source_format), "FORMAT",
     "of FROM: vhd, raw, qcow2, vmdk, vdi, vhdx; else by its content"},
    {"trust-source", CLI_FLAG, offsetof(struct args, trust_source), NULL,
     "read other files that FROM names (a backing file, extents): they may be any"},
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static int check(void *values, char **operands)
{
    struct args *args = values;
    int status = 0;

    if (args->source_format) {
        args->from_format = image_source_by_name(args->source_format);
        if (args->from_format == IMAGE_UNKNOWN)
            return cli_usage_error("--source-format: '%s' is not %s", args->source_format,
                                   image_source_names());
    }
    args->to_format = args->format ? image_target_by_name(args->format) : image_target_of_path(operands[1]);
    if (args->to_format == IMAGE_UNKNOWN && args->format)
        return cli_usage_error("--format: '%s' is not %s", args->format, image_target_names());
    if (args->to_format == IMAGE_UNKNOWN)
        return cli_usage_error("the name '%s' tells no format: give --format", operands[1]);
    if (args->block_bytes != 0 && args->to_format != IMAGE_DYNAMIC)
        return cli_usage_error("--block-size goes only with a dynamic VHD");
    (void)block_size_is_wrong(args->block_bytes, &status);
    return status;
}

static bool work(void *values, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    const struct args *args = values;
    const struct convert_options options = {.from = operands[0],
                                            .to = operands[1],
                                            .from_format = args->from_format,
                                            .to_format = args->to_format,
                                            .block_bytes = (uint32_t)args->block_bytes,
                                            .trust_source = args->trust_source};
    struct convert_result result;

    if (!convert_image(&io_real, &options, progress, &result, err))
        return false;
    *ret_answer =
        json_pack("{s:o, s:s, s:o, s:s, s:I, s:I, s:I, s:I}", "source", json_from_text(operands[0]),
                  "source_format", image_format_name(result.from_format), "file", json_from_text(operands[1]),
                  "format", image_format_name(args->to_format), "size_bytes", (json_int_t)result.size_bytes,
                  "added_bytes", (json_int_t)result.added_bytes, "file_bytes", (json_int_t)result.file_bytes,
                  "file_allocated_bytes", (json_int_t)result.file_allocated_bytes);
    return true;
}

static int print(const json_t *answer)
{
    uint64_t added = json_bytes(answer, "added_bytes");
    char size[16], taken[16];
    AUTO_FREE char *text = string_printf("%s, %s, takes %s", json_text(answer, "format"),
                                         size_format(json_bytes(answer, "size_bytes"), size),
                                         size_format(json_bytes(answer, "file_allocated_bytes"), taken));

    line_print(json_text(answer, "file"), text ? text : "");
    if (added > 0)
        printf("the source is no multiple of 512 bytes: %u zeros were added\n", (unsigned)added);
    return 0;
}

int cmd_disk_convert(int argc, char **argv)
{
    static const struct disk_verb VERB = {
        .syntax = &SYNTAX, .changes = true, .check = check, .work = work, .print = print};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
