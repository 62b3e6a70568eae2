/* The guest of the tests and the demo: the first process of a small Linux, driven by lines over the serial
 * console.
 *
 * At each step it adds one to a counter that lives only in memory and writes it, synced, to the disk. What it
 * prints at the start of a step is what it finds then:
 *
 *   T NONCE MEMORY DISK      a step; NONCE is random and lives only in memory; MEMORY and DISK must be equal
 *   E TEXT                   something that must not be: the test fails
 *   B COUNT                  of the command `beat`
 *   R TEXT                   the answer to a command; `run` gives `| OUTPUT` lines and `R exit STATUS`
 *
 * The counter's file is a ring of 4 KiB records, record N % RING_RECORDS holding N, so that a disk newer than
 * the memory shows as well as an older one. It is read back past the page cache. The same counter stands in
 * memory in a page that begins with a magic of its own, so that a memory image can be searched for it.
 * Parameters are taken from the environment, where the kernel puts what it does not know: bough_step_ms,
 * bough_disk, bough_label. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/input.h>
#include <linux/random.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define RECORD_BYTES 4096
#define RING_RECORDS 64
#define MAX_JOBS     8
#define CHURN_WORDS  16 /* that are written of a page's 512 */
#define GROW_PAGES   16 /* in one write */
#define MIB          (1024UL * 1024)

struct record {
    char magic[16];
    uint64_t nonce, counter;
    char rest[RECORD_BYTES - 32];
};

static struct record *memory; /* what a memory image is searched for: one page, shared with what is forked */
static struct record buffer __attribute__((aligned(RECORD_BYTES)));
static int counter_fd = -1, counter_direct_fd = -1, power_fd = -1;
static long step_ms = 100;
static uint64_t *area; /* of `fill` */
static size_t area_words;
static pid_t jobs[MAX_JOBS];
static uint64_t *churn_rounds; /* of each job, shared with it; 0 for one that does not churn */
static uint64_t *grown_pages;  /* of /disk/grown that are durable, shared with the job */
static uint64_t *job_done;     /* by each job, shared with it: pages of `dirty`, bytes of `write` */
static char device[64] = "";

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (length < 0)
        return;
    size_t end = (size_t)length < sizeof line - 2 ? (size_t)length : sizeof line - 2;
    line[end++] = '\n';
    for (size_t done = 0; done < end;) {
        ssize_t n = write(STDOUT_FILENO, line + done, end - done);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        if (n > 0)
            done += (size_t)n;
    }
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t mix(uint64_t *seed)
{ /* splitmix64 */
    uint64_t z = (*seed += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

/* A guest under TCG has next to no entropy, and mke2fs would wait seconds for it. Nothing secret is made
 * here. */
static void credit_entropy(void)
{
    struct {
        struct rand_pool_info head;
        uint64_t seed[4];
    } pool = {.head = {.entropy_count = 256, .buf_size = sizeof pool.seed}};
    for (size_t i = 0; i < 4; i++)
        pool.seed[i] = now_ms() + __builtin_ia32_rdtsc();
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) != 0)
        say("R no entropy: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

static uint64_t fresh_random(void)
{
    uint64_t value = 0;
    if (getrandom(&value, sizeof value, GRND_INSECURE) != sizeof value)
        say("E no random numbers");
    return value;
}

/* --- starting up --- */

static void load_modules(void)
{
    FILE *list = fopen("/modules/order", "re");
    char name[256];
    while (list != NULL && fscanf(list, "%255s", name) == 1) {
        char path[300];
        snprintf(path, sizeof path, "/modules/%s", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST && errno != ENODEV))
            say("R module %s: %s", name, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    if (list != NULL)
        fclose(list);
}

/* Runs a program and waits. Its exit status, or -1. */
static int run_program(const char *const *argv)
{
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDOUT_FILENO);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool find_disk(void)
{
    const char *wanted = getenv("bough_disk");
    if (wanted != NULL && strcmp(wanted, "none") == 0)
        return false;
    static const char *const usual[] = {"/dev/vda", "/dev/sda"};
    for (uint64_t end = now_ms() + 20000; now_ms() < end; usleep(20000)) {
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
            const char *path = wanted != NULL ? wanted : usual[i];
            if (access(path, F_OK) != 0)
                continue;
            snprintf(device, sizeof device, "%s", path);
            return true;
        }
    }
    say("E no disk");
    return false;
}

static bool mount_disk(void)
{
    mkdir("/disk", 0755);
    if (mount(device, "/disk", "ext4", 0, "") == 0)
        return true;
    const char *const mkfs[] = {
        "/sbin/mke2fs", "-q", "-t", "ext4", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0",
        device,         NULL};
    int status = run_program(mkfs);
    if (status == 0 && mount(device, "/disk", "ext4", 0, "") == 0)
        return true;
    say("E %s: mke2fs %d, mount: %s", device, status, strerror(errno));
    return false;
}

static void open_counter(void)
{
    counter_fd = open("/disk/counter", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    counter_direct_fd = open("/disk/counter", O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (counter_fd < 0 || counter_direct_fd < 0) {
        say("E counter: %s", strerror(errno));
        return;
    }
    for (off_t i = 0; i < RING_RECORDS; i++) /* the blocks are allocated once, later writes stay in place */
        if (pwrite(counter_fd, &buffer, sizeof buffer, i * RECORD_BYTES) != RECORD_BYTES)
            say("E counter: %m");
    if (fsync(counter_fd) != 0)
        say("E counter: %m");
    sync();
}

static void open_power_button(void)
{
    DIR *dir = opendir("/dev/input");
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL && power_fd < 0;) {
        char path[300], name[64] = "";
        snprintf(path, sizeof path, "/dev/input/%s", entry->d_name);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, EVIOCGNAME(sizeof name), name) >= 0 && strcmp(name, "Power Button") == 0)
            power_fd = fd;
        else if (fd >= 0)
            close(fd);
    }
    if (dir != NULL)
        closedir(dir);
}

static void open_console(void)
{
    int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
    if (fd < 0)
        fd = open("/dev/console", O_RDWR | O_NOCTTY);
    struct termios mode;
    if (tcgetattr(fd, &mode) == 0) {
        cfmakeraw(&mode);
        mode.c_oflag |= OPOST | ONLCR;
        tcsetattr(fd, TCSANOW, &mode);
    }
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
}

/* A magic is put together from halves, so that it stands nowhere else in memory. */
static void put_magic(char magic[static 16], const char *rest)
{
    memset(magic, 0, 16);
    strcpy(magic, "bough-");
    strcat(magic, rest);
}

static void make_memory(void)
{
    memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        say("E no memory");
        _exit(1);
    }
    put_magic(memory->magic, "memory");
    mlock(memory, sizeof *memory);
    churn_rounds = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (churn_rounds == MAP_FAILED) {
        say("E no memory");
        _exit(1);
    }
    grown_pages = churn_rounds + MAX_JOBS;
    job_done = grown_pages + 1;
}

static void start_up(void)
{
    mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755), mkdir("/tmp", 01777);
    mount("proc", "/proc", "proc", 0, "");
    mount("sysfs", "/sys", "sysfs", 0, "");
    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    open_console();
    say(" "); /* the firmware has left its own text without an end of line */
    load_modules();
    setenv("PATH", "/bin:/sbin", 1);
    setenv("HOME", "/", 1);
    const char *step = getenv("bough_step_ms");
    if (step != NULL)
        step_ms = atol(step);
    credit_entropy();
    make_memory();
    memory->nonce = fresh_random();
    if (find_disk() && mount_disk())
        open_counter();
    open_power_button();
    say("R ready %016" PRIx64 " %s", memory->nonce, device);
}

/* --- a step --- */

/* The counter in the ring's record for it, 0 if it is not one of this run. */
static uint64_t disk_counter(uint64_t counter)
{
    off_t offset = (off_t)(counter % RING_RECORDS) * RECORD_BYTES;
    if (pread(counter_direct_fd, &buffer, sizeof buffer, offset) != RECORD_BYTES) {
        say("E read counter: %s", strerror(errno));
        return 0;
    }
    return buffer.nonce == memory->nonce ? buffer.counter : 0;
}

static void step(void)
{
    uint64_t found = memory->counter;
    if (counter_fd >= 0) {
        uint64_t next = disk_counter(memory->counter + 1);
        found = next > memory->counter ? next : disk_counter(memory->counter);
    }
    say("T %016" PRIx64 " %" PRIu64 " %" PRIu64, memory->nonce, memory->counter, found);
    if (found != memory->counter)
        say("E memory %" PRIu64 " disk %" PRIu64, memory->counter, found);
    memory->counter++;
    if (counter_fd < 0)
        return;
    off_t offset = (off_t)(memory->counter % RING_RECORDS) * RECORD_BYTES;
    buffer.nonce = memory->nonce, buffer.counter = memory->counter;
    put_magic(buffer.magic, "disk");
    if (pwrite(counter_fd, &buffer, sizeof buffer, offset) != RECORD_BYTES)
        say("E write counter: %s", strerror(errno));
    if (fdatasync(counter_fd) != 0)
        say("E sync counter: %s", strerror(errno));
}

/* --- commands --- */

static void do_run(const char *command)
{
    int ends[2];
    if (pipe(ends) != 0) {
        say("E pipe: %s", strerror(errno));
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDONLY);
        dup2(null, STDIN_FILENO), dup2(ends[1], STDOUT_FILENO), dup2(ends[1], STDERR_FILENO);
        close(ends[0]), close(ends[1]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    char line[900];
    while (output != NULL && fgets(line, sizeof line, output) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        say("| %s", line);
    }
    if (output != NULL)
        fclose(output);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    say("R exit %d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static uint64_t area_hash(void)
{ /* FNV-1a over words */
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t i = 0; i < area_words; i++)
        hash = (hash ^ area[i]) * 0x100000001b3U;
    return hash;
}

/* MiB of memory that compress to nothing; the same area is written again if it is asked for again. */
static void do_fill(const char *arguments)
{
    unsigned long mib = 0;
    uint64_t seed = 0;
    if (sscanf(arguments, "%lu %" SCNu64, &mib, &seed) < 1 || mib == 0) {
        say("R fill MIB [SEED]");
        return;
    }
    if (area != NULL)
        munmap(area, area_words * 8);
    area_words = mib * MIB / 8;
    area = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        area = NULL, area_words = 0;
        say("E fill: %s", strerror(errno));
        return;
    }
    for (size_t i = 0; i < area_words; i++)
        area[i] = mix(&seed);
    say("R filled %lu %016" PRIx64, mib, area_hash());
}

/* All memory that can be had is written, page by page, and given back. */
static void do_scribble(const char *arguments)
{
    uint64_t seed = strtoull(arguments, NULL, 0) + fresh_random();
    char *line = NULL;
    size_t room = 0;
    unsigned long kib = 0;
    FILE *info = fopen("/proc/meminfo", "re");
    while (info != NULL && getline(&line, &room, info) > 0 && sscanf(line, "MemAvailable: %lu", &kib) != 1) {
    }
    if (info != NULL)
        fclose(info);
    free(line);
    size_t bytes = kib > 40960 ? (size_t)(kib - 24576) * 1024 : 0;
    uint64_t *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) {
        say("E scribble: %s", strerror(errno));
        return;
    }
    for (size_t i = 0; i < bytes / 8; i += 64)
        words[i] = mix(&seed);
    munmap(words, bytes);
    say("R scribbled %zu", bytes / MIB);
}

static size_t job; /* which one this process is */

static void job_start(void (*work)(unsigned long), unsigned long argument)
{
    for (size_t i = 0; i < MAX_JOBS; i++) {
        if (jobs[i] != 0)
            continue;
        churn_rounds[i] = job_done[i] = 0;
        jobs[i] = fork();
        if (jobs[i] == 0) {
            job = i;
            work(argument);
            _exit(0);
        }
        say("R job %zu", i);
        return;
    }
    say("R too many jobs");
}

static void do_idle(const char *arguments)
{
    (void)arguments;
    for (size_t i = 0; i < MAX_JOBS; i++) {
        if (jobs[i] == 0)
            continue;
        kill(jobs[i], SIGKILL);
        waitpid(jobs[i], NULL, 0);
        jobs[i] = 0;
        churn_rounds[i] = 0;
    }
    say("R idle");
}

#include "agent_loads.h"

static void do_done(const char *arguments)
{
    say("R done %" PRIu64, ((volatile uint64_t *)job_done)[strtoul(arguments, NULL, 0) % MAX_JOBS]);
}
static void do_hash(const char *arguments)
{
    (void)arguments, say("R hash %016" PRIx64, area_hash());
}
static void do_ping(const char *arguments)
{
    say("R pong %s", arguments);
}

static void do_step(const char *arguments)
{
    step_ms = strtol(arguments, NULL, 0);
    say("R step %ld", step_ms);
}

static void power_off(void)
{
    do_idle("");
    close(counter_fd), close(counter_direct_fd);
    if (umount("/disk") != 0)
        sync();
    say("R power off");
    tcdrain(STDOUT_FILENO);
    reboot(RB_POWER_OFF);
}

static void do_poweroff(const char *arguments)
{
    (void)arguments, power_off();
}

/* A shell for people; the steps wait until it ends. */
static void do_sh(const char *arguments)
{
    (void)arguments;
    struct termios raw, mode;
    tcgetattr(STDIN_FILENO, &raw);
    mode = raw;
    mode.c_iflag |= ICRNL;
    mode.c_lflag |= ISIG | ICANON | ECHO | ECHOE | IEXTEN;
    tcsetattr(STDIN_FILENO, TCSANOW, &mode);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        ioctl(STDIN_FILENO, TIOCSCTTY, 1);
        setenv("PS1", "guest# ", 1);
        execl("/bin/sh", "sh", "-i", (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    say("R exit");
}

static void do_help(const char *arguments);
static const struct {
    const char *name;
    void (*action)(const char *arguments);
    void (*work)(unsigned long); /* of a job, where there is no action */
    const char *help;
} commands[] = {
    {"ping", do_ping, NULL, "TEXT: answers"},
    {"step", do_step, NULL, "MS: time between steps, 0 for none"},
    {"run", do_run, NULL, "COMMAND: a shell command and its output"},
    {"sh", do_sh, NULL, "a shell; `exit` ends it"},
    {"fill", do_fill, NULL, "MIB [SEED]: memory filled with random numbers"},
    {"hash", do_hash, NULL, "hash of that memory"},
    {"scribble", do_scribble, NULL, "writes all free memory"},
    {"dirty", NULL, work_dirty, "MIB: dirties so much memory a second, with 0 all it can"},
    {"churn", NULL, work_churn,
     "KIB: writes memory again and again, and looks whether it is what was written"},
    {"rewrite", NULL, work_rewrite,
     "KIB: the same with a file on the disk, which is never synced; not a multiple of 148"},
    {"churned", do_churned, NULL, "waits until all of that has been looked at"},
    {"files", NULL, work_files, "MS: makes and removes files, a pause between each"},
    {"grow", do_grow, NULL, "MIB: writes and syncs a growing file"},
    {"grown", do_grown, NULL, "reads it back, as far as it is synced"},
    {"write", NULL, work_write, "MB: overwrites a file, so fast at most in a second"},
    {"beat", NULL, work_beat, "MS: a line `B COUNT` so often"},
    {"done", do_done, NULL, "JOB: what `dirty` (pages) or `write` (bytes) has done"},
    {"idle", do_idle, NULL, "ends the jobs: dirty, churn, rewrite, files, grow, write, beat"},
    {"poweroff", do_poweroff, NULL, "ends the guest"},
    {"help", do_help, NULL, "these lines"},
};

static void do_help(const char *arguments)
{
    (void)arguments;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        say("| %-9s %s", commands[i].name, commands[i].help);
    say("R help");
}

static void obey(const char *line)
{
    size_t length = strcspn(line, " ");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strlen(commands[i].name) != length || strncmp(commands[i].name, line, length) != 0)
            continue;
        const char *arguments = line[length] == ' ' ? line + length + 1 : "";
        if (commands[i].action)
            commands[i].action(arguments);
        else
            job_start(commands[i].work, strtoul(arguments, NULL, 0));
        return;
    }
    say("R unknown command: %s", line);
}

/* --- the loop --- */

static void read_console(void)
{
    static char line[4096];
    static size_t length;
    char bytes[256];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] != '\n' && bytes[i] != '\r') {
            if (length < sizeof line - 1)
                line[length++] = bytes[i];
            continue;
        }
        line[length] = '\0';
        if (length > 0)
            obey(line);
        length = 0;
    }
}

static void read_power_button(void)
{
    struct input_event event;
    while (read(power_fd, &event, sizeof event) == sizeof event)
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
            power_off();
}

int main(void)
{
    start_up();
    uint64_t next = now_ms();
    for (;;) {
        struct pollfd events[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = power_fd, .events = POLLIN}};
        uint64_t now = now_ms();
        int wait_ms = step_ms <= 0 ? -1 : next > now ? (int)(next - now) : 0;
        int ready = poll(events, 2, wait_ms);
        while (waitpid(-1, NULL, WNOHANG) > 0) { /* orphans are the first process's to bury */
        }
        if (ready > 0 && events[0].revents != 0)
            read_console();
        if (ready > 0 && events[1].revents != 0)
            read_power_button();
        now = now_ms();
        if (step_ms <= 0 || now < next)
            continue;
        step();
        next = now + (uint64_t)step_ms;
    }
}
