/* Time for deadlines. */
#pragma once

#include <stdint.h>

int64_t clock_ms(void); /* monotonic */
