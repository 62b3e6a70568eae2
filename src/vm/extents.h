/* Can a file in that folder share its extents with the other one (XFS, btrfs)? */
#pragma once

#include <stdbool.h>

bool extents_can_be_shared(const char *from, const char *dir);
