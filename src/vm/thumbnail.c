#include "thumbnail.h"

#include "auto.h"
#include "file.h"

#include <errno.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIDE_MAX_PIXELS 16384
#define PIXEL_BYTES     3

struct picture {
    uint32_t width, height;
    uint8_t *pixels; /* red, green, blue; rows without gaps */
};

static void picture_done(struct picture *picture)
{
    free(picture->pixels);
}

/* --- reading --- */

/* Fewer only at the end of the file. */
static bool read_some(int fd, off_t offset, uint8_t *bytes, size_t length, size_t *ret_length, struct err *err)
{
    size_t done = 0;

    while (done < length) {
        ssize_t got = pread(fd, bytes + done, length - done, offset + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(err, errno, "read the picture of the screen");
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_length = done;
    return true;
}

static bool read_at(int fd, off_t offset, uint8_t *bytes, size_t length, struct err *err)
{
    size_t got;

    return read_some(fd, offset, bytes, length, &got, err) &&
           (got == length || err_set(err, ERR_CORRUPT, "the picture of the screen ends early"));
}

/* A number of at most five digits and the character behind it; 0 if it is anything else. */
static uint32_t number_take(const char **text, char end)
{
    uint32_t number = 0;
    const char *at = *text;

    while (at - *text < 5 && *at >= '0' && *at <= '9')
        number = number * 10 + (uint32_t)(*at++ - '0');
    if (*at != end)
        return 0;
    *text = at + 1;
    return number;
}

/* "P6\nWIDTH HEIGHT\n255\n", as QEMU writes it. */
static bool header_read(int fd, struct picture *ret_screen, off_t *ret_offset, struct err *err)
{
    char header[24] = "";
    size_t length;

    if (!read_some(fd, 0, (uint8_t *)header, sizeof header - 1, &length, err))
        return false;
    const char *at = header + 3;
    bool ok = length > 3 && strncmp(header, "P6\n", 3) == 0;
    ret_screen->width = ok ? number_take(&at, ' ') : 0;
    ret_screen->height = ret_screen->width > 0 ? number_take(&at, '\n') : 0;
    if (ret_screen->height == 0 || number_take(&at, '\n') != 255 || ret_screen->width > SIDE_MAX_PIXELS ||
        ret_screen->height > SIDE_MAX_PIXELS)
        return err_set(err, ERR_CORRUPT, "QEMU's picture of the screen cannot be understood");
    *ret_offset = at - header;
    return true;
}

/* --- scaling: each pixel is the mean of those that it stands for --- */

/* Neither side becomes 0, because neither is longer than SIDE_MAX_PIXELS, or longer than the screen's. */
static void size_fit(const struct picture *screen, struct picture *thumbnail)
{
    uint32_t width = screen->width, height = screen->height;

    if (width > THUMBNAIL_MAX_WIDTH || height > THUMBNAIL_MAX_HEIGHT) {
        bool is_wide = width * THUMBNAIL_MAX_HEIGHT >= height * THUMBNAIL_MAX_WIDTH;
        thumbnail->width = is_wide ? THUMBNAIL_MAX_WIDTH : width * THUMBNAIL_MAX_HEIGHT / height;
        thumbnail->height = is_wide ? height * THUMBNAIL_MAX_WIDTH / width : THUMBNAIL_MAX_HEIGHT;
    } else {
        thumbnail->width = width;
        thumbnail->height = height;
    }
    thumbnail->width += thumbnail->width == 0;
    thumbnail->height += thumbnail->height == 0;
}

static uint32_t box_start(uint32_t index, uint32_t screen, uint32_t thumbnail)
{
    return index * screen / thumbnail;
}

/* Adds a row of the screen to the sums of a row of the thumbnail. */
static void row_add(uint64_t *sums, const uint8_t *row, uint32_t screen_width, uint32_t width)
{
    for (uint32_t x = 0; x < width; x++)
        for (uint32_t from = box_start(x, screen_width, width); from < box_start(x + 1, screen_width, width); from++)
            for (uint32_t channel = 0; channel < PIXEL_BYTES; channel++)
                sums[x * PIXEL_BYTES + channel] += row[from * PIXEL_BYTES + channel];
}

static void sums_divide(const uint64_t *sums, uint32_t rows, uint32_t screen_width, uint32_t width, uint8_t *pixels)
{
    for (uint32_t x = 0; x < width; x++) {
        uint64_t count = (uint64_t)rows * (box_start(x + 1, screen_width, width) - box_start(x, screen_width, width));
        for (uint32_t channel = 0; channel < PIXEL_BYTES; channel++)
            pixels[x * PIXEL_BYTES + channel] = (uint8_t)((sums[x * PIXEL_BYTES + channel] + count / 2) / count);
    }
}

static bool picture_read(int fd, struct picture *thumbnail, struct err *err)
{
    struct picture screen;
    off_t offset;

    if (!header_read(fd, &screen, &offset, err))
        return false;
    size_fit(&screen, thumbnail);
    size_t row_bytes = (size_t)screen.width * PIXEL_BYTES, thumbnail_row_bytes = (size_t)thumbnail->width * PIXEL_BYTES;
    AUTO_FREE uint8_t *row = malloc(row_bytes);
    AUTO_FREE uint64_t *sums = calloc(thumbnail_row_bytes, sizeof *sums);
    thumbnail->pixels = malloc(thumbnail_row_bytes * thumbnail->height);
    if (!row || !sums || !thumbnail->pixels)
        return err_oom(err);
    for (uint32_t y = 0; y < thumbnail->height; y++) {
        uint32_t from = box_start(y, screen.height, thumbnail->height);
        uint32_t end = box_start(y + 1, screen.height, thumbnail->height);
        memset(sums, 0, thumbnail_row_bytes * sizeof *sums);
        for (uint32_t i = from; i < end; i++, offset += (off_t)row_bytes) {
            if (!read_at(fd, offset, row, row_bytes, err))
                return false;
            row_add(sums, row, screen.width, thumbnail->width);
        }
        sums_divide(sums, end - from, screen.width, thumbnail->width, thumbnail->pixels + y * thumbnail_row_bytes);
    }
    return true;
}

/* --- writing --- */

static bool png_failed(const png_image *image, struct err *err)
{
    return err_set(err, ERR_INTERNAL, "make a PNG: %s", image->message);
}

/* The whole of it in *png; owned by the caller. */
static bool png_encode(const struct picture *picture, uint8_t **ret_png, size_t *ret_length, struct err *err)
{
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = picture->width, .height = picture->height, .format = PNG_FORMAT_RGB};
    png_alloc_size_t length = 0;

    if (!png_image_write_to_memory(&image, /* memory= */ NULL, &length, /* convert_to_8bit= */ 0, picture->pixels,
                                   /* row_stride= */ 0, /* colormap= */ NULL))
        return png_failed(&image, err);
    AUTO_FREE uint8_t *png = malloc(length);
    if (!png)
        return err_oom(err);
    if (!png_image_write_to_memory(&image, png, &length, 0, picture->pixels, 0, NULL))
        return png_failed(&image, err);
    *ret_png = TAKE(png);
    *ret_length = length;
    return true;
}

bool thumbnail_write(int ppm_fd, const char *png_path, struct err *err)
{
    AUTO(picture_done) struct picture thumbnail = {0};
    AUTO_FREE uint8_t *png = NULL;
    size_t length;
    bool renamed;

    return picture_read(ppm_fd, &thumbnail, err) && png_encode(&thumbnail, &png, &length, err) &&
           file_replace(&io_real, png_path, png, length, &renamed, err);
}
