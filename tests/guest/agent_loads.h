/* The loads of the guest of the tests: a part of agent.c. Each is a job, a process of its own that ends with the guest or with `idle`. */
#pragma once

/* Dirties memory at a steady rate, one word in each page of 64 MiB; at 0 as fast as it can. */
static void work_dirty(unsigned long mib_per_second)
{
    uint64_t seed = fresh_random();
    const size_t words = 64 * MIB / 8;
    uint64_t *own =
        mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (own == MAP_FAILED)
        return;
    for (uint64_t page = 0, start = now_ms();; usleep(mib_per_second ? 1000 : 0)) {
        uint64_t due = mib_per_second ? (now_ms() - start) * mib_per_second * 256 / 1000 : page + words / 512;
        for (; page < due; page++)
            own[page * 512 % words] = mix(&seed);
        job_done[job] = page;
    }
}

/* Overwrites a file, past the page cache, so fast at most. */
static void work_write(unsigned long mb_per_second)
{
    static uint64_t words[MIB / 8] __attribute__((aligned(4096)));
    uint64_t seed = fresh_random(), start = now_ms();
    int fd = open("/disk/written", O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0644);
    for (size_t i = 0; i < MIB / 8; i++)
        words[i] = mix(&seed);
    for (uint64_t *done = &job_done[job];; *done += MIB) {
        if (pwrite(fd, words, MIB, (off_t)(*done % (128 * MIB))) != (ssize_t)MIB) {
            say("E write: %s", strerror(errno));
            return;
        }
        while (*done / 1000 > (now_ms() - start) * mb_per_second)
            usleep(1000);
    }
}

/* Lines and nothing else: from outside they show when the guest stood still. */
static void work_beat(unsigned long ms)
{
    uint64_t next = now_ms();
    for (uint64_t count = 1;; count++) {
        say("B %" PRIu64, count);
        next += ms;
        for (uint64_t now = now_ms(); now < next; now = now_ms())
            usleep((useconds_t)(next - now) * 1000);
    }
}

static uint64_t churn_word(uint64_t round, size_t page, size_t word)
{
    uint64_t seed = round << 32 ^ page << 8 ^ word;
    return mix(&seed);
}

/* Writes each page again and again, a round at a time, and before that looks whether it holds what the round
 * before has written. So a page that is older than the rest of memory shows, though it is whole in itself. */
static void work_churn(unsigned long kib)
{
    const size_t pages = kib / 4, stride = 512 / CHURN_WORDS;
    uint64_t *own = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED) {
        say("E churn: %s", strerror(errno));
        return;
    }
    for (uint64_t round = 1;; round++) {
        for (size_t i = 0; i < pages * CHURN_WORDS; i++) {
            size_t page = i / CHURN_WORDS, word = i % CHURN_WORDS;
            uint64_t *at = own + page * 512 + word * stride;
            uint64_t expected = round == 1 ? 0 : churn_word(round - 1, page, word);
            if (*at != expected) {
                say("E churn: round %" PRIu64 " of %lu KiB: page %zu is stale at word %zu", round, kib, page,
                    word);
                return;
            }
            *at = churn_word(round, page, word);
        }
        churn_rounds[job] = round;
    }
}

/* The same on the disk, past the page cache and never synced: what the disk has answered must be there. */
static void work_rewrite(unsigned long kib)
{
    static uint64_t words[512] __attribute__((aligned(4096)));
    const size_t pages = kib / 4;
    int fd = open("/disk/rewritten", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0644);
    if (fd < 0)
        say("E rewrite: %s", strerror(errno));
    for (uint64_t round = 1; fd >= 0; round++) {
        for (size_t i = 0; i < pages; i++) {
            size_t page = (i * 37 + round) % pages;
            bool same = round == 1 || pread(fd, words, sizeof words, (off_t)page * 4096) == sizeof words;
            for (size_t word = 0; word < 512; word++) {
                same = same && (round == 1 || words[word] == churn_word(round - 1, page, word));
                words[word] = churn_word(round, page, word);
            }
            if (!same || pwrite(fd, words, sizeof words, (off_t)page * 4096) != sizeof words) {
                say("E rewrite: round %" PRIu64 ": page %zu is not what was written: %s", round, page, strerror(errno));
                return;
            }
        }
        churn_rounds[job] = round;
    }
}

/* Waits until every job that churns has looked at all its pages: two rounds from now. */
static void do_churned(const char *arguments)
{
    uint64_t goal[MAX_JOBS], sum = 0;
    (void)arguments;
    for (size_t i = 0; i < MAX_JOBS; i++)
        goal[i] = churn_rounds[i] ? churn_rounds[i] + 2 : 0;
    for (size_t i = 0; i < MAX_JOBS; i++) {
        for (; *(volatile uint64_t *)&churn_rounds[i] < goal[i]; usleep(1000)) {
            if (waitpid(jobs[i], NULL, WNOHANG) <= 0)
                continue;
            jobs[i] = 0, churn_rounds[i] = 0;
            say("E churn: the job has ended");
            return;
        }
        sum += churn_rounds[i];
    }
    say("R churned %" PRIu64, sum);
}

/* Makes, syncs, renames and removes files of random size for ever. */
static void work_files(unsigned long pause_ms)
{
    uint64_t seed = fresh_random();
    static char bytes[65536];
    mkdir("/disk/load", 0755);
    for (;;) {
        char path[64], other[64];
        snprintf(path, sizeof path, "/disk/load/%u", (unsigned)(mix(&seed) % 48));
        snprintf(other, sizeof other, "/disk/load/%u", (unsigned)(mix(&seed) % 48));
        uint64_t choice = mix(&seed) % 8;
        if (choice == 0)
            unlink(path);
        else if (choice == 1)
            rename(path, other);
        else {
            size_t length = (size_t)(mix(&seed) % sizeof bytes);
            for (size_t i = 0; i < length / 8; i++)
                memcpy(bytes + i * 8, &(uint64_t){mix(&seed)}, 8);
            int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
            if (fd < 0 || write(fd, bytes, length) < 0)
                usleep(100000);
            else if (choice < 5)
                fdatasync(fd);
            if (fd >= 0)
                close(fd);
        }
        usleep((useconds_t)pause_ms * 1000);
    }
}

/* Every page of the file has 512 words of its own. */
static uint64_t grown_word(uint64_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15U;
}

/* Writes a file that grows, past the page cache. What is synced is counted, and nobody but the disk has it.
 */
static void work_grow(unsigned long mib)
{
    static uint64_t words[GROW_PAGES * 512] __attribute__((aligned(4096)));
    int fd = open("/disk/grown", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0644);
    if (fd < 0)
        say("E grow: %s", strerror(errno));
    for (uint64_t page = 0; fd >= 0 && page < mib * 256; page += GROW_PAGES) {
        for (size_t i = 0; i < GROW_PAGES * 512; i++)
            words[i] = grown_word(page + i / 512);
        if (pwrite(fd, words, sizeof words, (off_t)page * 4096) != sizeof words || fdatasync(fd) != 0) {
            say("E grow: page %" PRIu64 ": %s", page, strerror(errno));
            return;
        }
        *grown_pages = page + GROW_PAGES;
        if (*grown_pages % 256 == 0)
            say("R grows %" PRIu64, *grown_pages);
    }
    say("R grew %lu", mib);
}

static void do_grow(const char *arguments)
{
    *grown_pages = 0;
    job_start(work_grow, strtoul(arguments, NULL, 0));
}

/* Reads what is durable of it, past the page cache. */
static void do_grown(const char *arguments)
{
    static uint64_t words[512] __attribute__((aligned(4096)));
    uint64_t pages = *(volatile uint64_t *)grown_pages;
    int fd = open("/disk/grown", O_RDONLY | O_DIRECT);
    (void)arguments;
    for (uint64_t page = 0; page < pages; page++) {
        bool same = pread(fd, words, sizeof words, (off_t)page * 4096) == sizeof words;
        for (size_t i = 0; same && i < 512; i++)
            same = words[i] == grown_word(page);
        if (!same) {
            say("E grown: page %" PRIu64 " of %" PRIu64 " is not what was written", page, pages);
            break;
        }
    }
    close(fd);
    say("R grown %" PRIu64, pages);
}
