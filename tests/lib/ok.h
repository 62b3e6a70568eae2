/* A call that must succeed, else the test fails with what was called and the words of `err`, which the test has. cmocka.h comes before. */
#pragma once

#define OK(call)                                                                                             \
    do {                                                                                                     \
        if (!(call))                                                                                         \
            fail_msg("%s: %s", #call, err.text);                                                             \
    } while (0)
