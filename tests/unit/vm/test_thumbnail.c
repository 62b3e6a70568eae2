/* From what QEMU writes as its screen to a small PNG. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "buf.h"
#include "bytes.h"
#include "thumbnail.h"

#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[96];

static int dir_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/bough-png-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/a.png", dir);
    return 0;
}

/* Nothing may be left beside the picture. */
static int dir_remove(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

struct color {
    uint8_t rgb[3];
};

/* A file with the header, the pixels, and zeros behind them. */
static int screen_file(const char *header, const uint8_t *pixels, size_t length)
{
    static const char zeros[64];
    int fd = memfd_create("screen", MFD_CLOEXEC);

    assert_int_equal(write(fd, header, strlen(header)), strlen(header));
    if (length > 0)
        assert_int_equal(write(fd, pixels, length), length);
    assert_int_equal(write(fd, zeros, sizeof zeros), sizeof zeros);
    return fd;
}

/* A screen whose left half and right half have a color each. */
static int halves(uint32_t width, uint32_t height, struct color left, struct color right)
{
    AUTO_FREE uint8_t *pixels = malloc((size_t)width * height * 3);
    char header[64];

    for (size_t i = 0; i < (size_t)width * height; i++)
        memcpy(pixels + i * 3, i % width < width / 2 ? left.rgb : right.rgb, 3);
    snprintf(header, sizeof header, "P6\n%u %u\n255\n", width, height);
    return screen_file(header, pixels, (size_t)width * height * 3);
}

static uint8_t *png_read(uint32_t *ret_width, uint32_t *ret_height)
{
    png_image image = {.version = PNG_IMAGE_VERSION};

    assert_int_not_equal(png_image_begin_read_from_file(&image, path), 0);
    image.format = PNG_FORMAT_RGB;
    uint8_t *pixels = malloc((size_t)image.width * image.height * 3);
    assert_int_not_equal(png_image_finish_read(&image, NULL, pixels, 0, NULL), 0);
    *ret_width = image.width;
    *ret_height = image.height;
    return pixels;
}

static void a_screen_of_any_size_keeps_its_proportions_and_colors(void **state)
{
    static const struct {
        uint32_t width, height, small_width, small_height;
    } SIZES[] = {{720, 400, 320, 177}, {640, 480, 320, 240}, {1280, 800, 320, 200}, {320, 240, 320, 240}, {5, 4, 5, 4},
                 {321, 240, 320, 239}, {320, 241, 318, 240}, {600, 2400, 60, 240},  {16384, 2, 320, 1},   {2, 16384, 1, 240}};
    const struct color left = {{250, 1, 2}}, right = {{3, 4, 200}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
        AUTO_FD int fd = halves(SIZES[i].width, SIZES[i].height, left, right);
        struct err err = ERR_INIT;
        uint32_t width, height;
        if (!thumbnail_write(fd, path, &err))
            fail_msg("%u x %u: %s", SIZES[i].width, SIZES[i].height, err.text);
        AUTO_FREE uint8_t *pixels = png_read(&width, &height);
        assert_int_equal(width, SIZES[i].small_width);
        assert_int_equal(height, SIZES[i].small_height);
        for (uint32_t y = 0; width > 1 && y < height; y++) {
            assert_memory_equal(pixels + (size_t)y * width * 3, left.rgb, 3);
            assert_memory_equal(pixels + ((size_t)y * width + width - 1) * 3, right.rgb, 3);
        }
    }
}

static void a_pixel_is_the_mean_of_those_it_stands_for(void **state)
{
    const struct color black = {{0, 0, 0}}, white = {{255, 200, 101}};
    AUTO_FD int fd = halves(2, 480, black, white); /* 1 x 240: each of two columns and two rows */
    struct err err = ERR_INIT;
    uint32_t width, height;

    (void)state;
    assert_true(thumbnail_write(fd, path, &err));
    AUTO_FREE uint8_t *pixels = png_read(&width, &height);
    assert_int_equal(width, 1);
    const uint8_t mean[] = {128, 100, 51};
    for (uint32_t y = 0; y < height; y++)
        assert_memory_equal(pixels + (size_t)y * 3, mean, 3);
}

static void what_is_no_screen_is_refused_and_leaves_nothing(void **state)
{
    static const char *const HEADERS[] = {
        "",
        "P5\n2 2\n255\n",
        "P6 2 2\n255\n",
        "P6\n0 2\n255\n",
        "P6\n2 0\n255\n",
        "P6\n-2 2\n255\n",
        "P6\n2\n2\n255\n",
        "P6\n2 2\n65535\n",
        "P6\n2 2\n25\n",
        "P6\n2 2\n255 ",
        "P6\n# 2 2\n255\n",
        "P6\n16385 1\n255\n",
        "P6\n1 16385\n255\n",
        "P6\n99999 99999\n255\n",
        "P6\n4294967298 2\n255\n",
        "P6\n16384 16384\n255\n", /* a size that may be, but the pixels are not there */
        "P6\n8 8\n255\n",
    };
    struct stat status;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(HEADERS); i++) {
        AUTO_FD int fd = screen_file(HEADERS[i], NULL, 0);
        struct err err = ERR_INIT;
        if (thumbnail_write(fd, path, &err))
            fail_msg("'%s' was taken for a screen", HEADERS[i]);
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_int_not_equal(stat(path, &status), 0);
    }
}

static void a_picture_that_cannot_be_written_leaves_nothing(void **state)
{
    const struct color gray = {{9, 9, 9}};
    AUTO_FD int fd = halves(64, 48, gray, gray);
    struct err err = ERR_INIT;
    char elsewhere[128];

    (void)state;
    snprintf(elsewhere, sizeof elsewhere, "%s/none/a.png", dir);
    assert_false(thumbnail_write(fd, elsewhere, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_screen_of_any_size_keeps_its_proportions_and_colors, dir_make, dir_remove),
        cmocka_unit_test_setup_teardown(a_pixel_is_the_mean_of_those_it_stands_for, dir_make, dir_remove),
        cmocka_unit_test_setup_teardown(what_is_no_screen_is_refused_and_leaves_nothing, dir_make, dir_remove),
        cmocka_unit_test_setup_teardown(a_picture_that_cannot_be_written_leaves_nothing, dir_make, dir_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
