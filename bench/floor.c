/*
 * The floor under a fork: the system calls of pyvmm.fork and Machine.close(), in their order and nothing else.
 *
 *     floor LIMIT IN_USE IMAGE_FD IMAGE_SIZE XCR0 XSAVE_FD [MSR=VALUE]...
 *
 * LIMIT, IN_USE and IMAGE_SIZE are bytes as in GuestMemory; IMAGE_FD is the snapshot's memory, mapped copy-on-write; XSAVE_FD holds the
 * XSAVE area of the snapshot's processor. All other numbers are in C notation. Answers commands on standard input, one to a line, so that its
 * caller can interleave them with other measurements:
 *
 *     cycle N      make a VM and destroy it, N times; N lines: nanoseconds of every step, in the order of the line "steps" printed at the start
 *     hold N       make N more VMs and keep them; "ok"
 *     drop         destroy those; "ok"
 *     mappings N   have N more mappings in this process, for KVM_CREATE_VM looks at each; "ok"
 *
 * Anything that fails ends the program, with a message on standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MAX_MSRS 64
#define MAX_CPUID 256
#define MAX_HELD 4096

/* The first CREATE_STEPS make a VM, the others destroy it. */
static const char *const steps[] = {
    "mmap", "mmap-image", "KVM_CREATE_VM", "KVM_SET_USER_MEMORY_REGION", "KVM_CREATE_VCPU", "mmap-kvm_run", "KVM_SET_CPUID2",
    "KVM_SET_XCRS", "KVM_SET_MSRS", "KVM_SET_XSAVE", "registers", "munmap-kvm_run", "close-vcpu", "close-vm", "munmap",
};
enum { CREATE_STEPS = 11, STEPS = sizeof steps / sizeof *steps };

struct vm {
    int vm, vcpu;
    char *memory, *run;
};

static unsigned long limit, in_use, image_size;
static int kvm, image_fd;
static long run_size;
static struct kvm_xcrs xcrs;
static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[MAX_CPUID]; } cpuid;
static struct { struct kvm_msrs head; struct kvm_msr_entry entries[MAX_MSRS]; } msrs;
static char *xsave;
static struct vm held[MAX_HELD];
static int held_count;

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long checked(long result, const char *what)
{
    if (result < 0)
        fail(what);
    return result;
}

static char *map(void *address, size_t size, int flags, int fd)
{
    char *result = mmap(address, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (result == MAP_FAILED)
        fail("mmap");
    return result;
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

/* Both write the time at the end of each of their steps, and return where the next one goes. */
static uint64_t *create(struct vm *vm, uint64_t *at)
{
    struct kvm_userspace_memory_region region = {.memory_size = in_use};

    vm->memory = map(NULL, limit, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    *at++ = now();
    map(vm->memory, image_size, MAP_PRIVATE | MAP_FIXED, image_fd);
    *at++ = now();
    vm->vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    *at++ = now();
    region.userspace_addr = (uintptr_t)vm->memory;
    checked(ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    *at++ = now();
    vm->vcpu = checked(ioctl(vm->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    *at++ = now();
    vm->run = map(NULL, run_size, MAP_SHARED, vm->vcpu);
    *at++ = now();
    checked(ioctl(vm->vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
    *at++ = now();
    checked(ioctl(vm->vcpu, KVM_SET_XCRS, &xcrs), "KVM_SET_XCRS");
    *at++ = now();
    if (checked(ioctl(vm->vcpu, KVM_SET_MSRS, &msrs), "KVM_SET_MSRS") != msrs.head.nmsrs)
        fail("KVM_SET_MSRS took only some");
    *at++ = now();
    checked(ioctl(vm->vcpu, KVM_SET_XSAVE, xsave), "KVM_SET_XSAVE");
    *at++ = now();
    /* What the registers are does not matter here: this VM never runs. */
    memset(&((struct kvm_run *)vm->run)->s, 0, sizeof(struct kvm_sync_regs));
    ((struct kvm_run *)vm->run)->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    ((struct kvm_run *)vm->run)->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    *at++ = now();
    return at;
}

static uint64_t *destroy(struct vm *vm, uint64_t *at)
{
    checked(munmap(vm->run, run_size), "munmap");
    *at++ = now();
    checked(close(vm->vcpu), "close");
    *at++ = now();
    checked(close(vm->vm), "close");
    *at++ = now();
    checked(munmap(vm->memory, limit), "munmap");
    *at++ = now();
    return at;
}

static void cycle(long count)
{
    struct vm vm;
    uint64_t times[STEPS + 1];

    for (; count > 0; count--) {
        times[0] = now();
        destroy(&vm, create(&vm, times + 1));
        for (int step = 0; step < STEPS; step++)
            printf("%s%llu", step ? " " : "", (unsigned long long)(times[step + 1] - times[step]));
        printf("\n");
    }
}

static void hold(long count)
{
    uint64_t ignored[STEPS];

    if (count > MAX_HELD - held_count) {
        errno = ENOMEM;
        fail("hold");
    }
    while (count-- > 0)
        create(&held[held_count++], ignored);
    printf("ok\n");
}

static void drop(void)
{
    uint64_t ignored[STEPS];

    while (held_count > 0)
        destroy(&held[--held_count], ignored);
    printf("ok\n");
}

/* Neighbours of different protection, which the kernel cannot merge. */
static void add_mappings(long count)
{
    char *area = map(NULL, (count + 1) * PAGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

    for (long index = 0; index < count; index += 2)
        checked(mprotect(area + index * PAGE, PAGE, PROT_READ), "mprotect");
    printf("ok\n");
}

static void read_xsave(int fd)
{
    struct { struct kvm_xsave area; char more[1 << 16]; } *buffer = calloc(1, sizeof *buffer);

    xsave = (char *)buffer;
    checked(pread(fd, xsave, sizeof *buffer, 0), "reading the XSAVE area");
}

static void read_msrs(int count, char **arguments)
{
    if (count > MAX_MSRS) {
        errno = E2BIG;
        fail("MSRs");
    }
    msrs.head.nmsrs = count;
    for (int index = 0; index < count; index++) {
        char *value;
        msrs.entries[index].index = strtoul(arguments[index], &value, 0);
        msrs.entries[index].data = strtoull(value + 1, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    char command[32];
    long count;

    if (argc < 7) {
        fprintf(stderr, "usage: floor LIMIT IN_USE IMAGE_FD IMAGE_SIZE XCR0 XSAVE_FD [MSR=VALUE]...\n");
        return 2;
    }
    limit = strtoul(argv[1], NULL, 0);
    in_use = strtoul(argv[2], NULL, 0);
    image_fd = atoi(argv[3]);
    image_size = strtoul(argv[4], NULL, 0);
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = strtoull(argv[5], NULL, 0);
    read_xsave(atoi(argv[6]));
    read_msrs(argc - 7, argv + 7);

    kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    run_size = checked(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    cpuid.head.nent = MAX_CPUID;
    checked(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");

    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    printf("steps %d", CREATE_STEPS);
    for (int step = 0; step < STEPS; step++)
        printf(" %s", steps[step]);
    printf("\n");
    fflush(stdout);
    while (scanf("%31s", command) == 1) {
        if (!strcmp(command, "drop"))
            drop();
        else if (scanf("%ld", &count) != 1)
            break;
        else if (!strcmp(command, "cycle"))
            cycle(count);
        else if (!strcmp(command, "hold"))
            hold(count);
        else if (!strcmp(command, "mappings"))
            add_mappings(count);
        fflush(stdout);
    }
    return 0;
}
