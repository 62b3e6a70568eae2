#include "machine_private.h"

#include "auto.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* Is word one of the words of text? */
static bool has_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = text; (at = strstr(at, word)); at += length)
        if ((at == text || isspace((unsigned char)at[-1])) &&
            (at[length] == '\0' || isspace((unsigned char)at[length])))
            return true;
    return false;
}

static bool cpu_has_virtualization(const char *cpuinfo_path)
{
    FILE *file = fopen(cpuinfo_path, "re");
    if (!file)
        return false;
    bool found = false;
    char *line = NULL;
    size_t capacity = 0;
    while (!found && getline(&line, &capacity, file) > 0)
        found = strncmp(line, "flags", 5) == 0 && (has_word(line, "vmx") || has_word(line, "svm"));
    free(line);
    fclose(file);
    return found;
}

static bool kvm_opens(const char *kvm_path)
{
    AUTO_FD int fd = open(kvm_path, O_RDWR | O_CLOEXEC);
    return fd >= 0;
}

bool kvm_works(const char *kvm_path, const char *cpuinfo_path, const char **ret_why)
{
    if (!kvm_opens(kvm_path)) {
        *ret_why = "/dev/kvm cannot be opened";
        return false;
    }
    /* There are hosts whose /dev/kvm opens, and even makes a VM, while no ordinary kernel gets through its
     * boot. */
    if (!cpu_has_virtualization(cpuinfo_path)) {
        *ret_why = "the processor shows neither vmx nor svm";
        return false;
    }
    return true;
}

/* Who names KVM gets it wherever it can be had: a small guest may run where no ordinary one does. */
bool accel_resolve(enum config_accel wanted, enum config_accel *ret_accel, struct err *err)
{
    const char *why = "";
    if (wanted == ACCEL_KVM && !kvm_opens("/dev/kvm"))
        return err_set(err, ERR_UNSUPPORTED, "KVM does not work on this host: /dev/kvm cannot be opened");
    bool is_kvm = wanted == ACCEL_KVM || (wanted == ACCEL_AUTO && kvm_works("/dev/kvm", "/proc/cpuinfo", &why));
    *ret_accel = is_kvm ? ACCEL_KVM : ACCEL_TCG;
    return true;
}
