#include "progress.h"

void progress_report(const struct progress *progress, const char *phase, uint64_t done, uint64_t total)
{
    if (progress && progress->report)
        progress->report(progress->context, phase, done, total);
}

bool progress_cancelled(const struct progress *progress)
{
    return progress && progress->cancelled && progress->cancelled(progress->context);
}
