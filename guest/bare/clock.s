# title: kvmclock
# what: Asks KVM for a clock that needs no exits, reads it twice with 20 ms between, and prints the date as well.
# expect: nanoseconds since the virtual machine began, twice, and seconds since 1970; exit code 0
#
# The guest gives KVM an address; KVM writes there what the time was at some value of the time stamp counter, and how to
# turn further ticks into nanoseconds. A version that is odd, or not the same afterwards, says that KVM was writing just then.
#
#       nanoseconds = system_time + ((RDTSC - tsc_timestamp) << tsc_shift) * tsc_to_system_mul / 2^32
#
# Linux Documentation/virt/kvm/x86/msr.rst (MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW), arch/x86/kernel/pvclock.c.

        .include "long.inc"

        .set    KVM_FEATURE_CLOCKSOURCE2, 3
        .set    MSR_KVM_WALL_CLOCK_NEW, 0x4b564d00
        .set    MSR_KVM_SYSTEM_TIME_NEW, 0x4b564d01

# struct pvclock_vcpu_time_info
        .set    VERSION, 0
        .set    TSC_TIMESTAMP, 8
        .set    SYSTEM_TIME, 16
        .set    TSC_TO_SYSTEM_MUL, 24
        .set    TSC_SHIFT, 28
# struct pvclock_wall_clock: the date when the virtual machine began
        .set    WALL_SECONDS, 4
        .set    WALL_NANOSECONDS, 8

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        mov     eax, 0x40000001
        cpuid
        bt      eax, KVM_FEATURE_CLOCKSOURCE2
        jc      1f
        print   "this hypervisor has no kvmclock\n"
        exit    1

1:      lea     rax, [rip + time]
        or      eax, 1                  # bit 0: on
        xor     edx, edx                # WRMSR takes EDX:EAX; we lie below 4 GiB
        mov     ecx, MSR_KVM_SYSTEM_TIME_NEW
        wrmsr
        lea     rax, [rip + wall]
        mov     ecx, MSR_KVM_WALL_CLOCK_NEW
        wrmsr

        call    read_clock
        mov     rbx, rax
        print   "nanoseconds: "
        print_dec rbx
        print   "\n"
2:      pause
        call    read_clock
        mov     rcx, rax
        sub     rax, rbx
        cmp     rax, 20000000
        jb      2b
        print   "20 ms later: "
        print_dec rcx
        print   "\n"

        mov     eax, [rip + wall + WALL_NANOSECONDS]
        add     rax, rcx                # since the machine began, in nanoseconds, and what the date had then
        xor     edx, edx
        mov     ecx, 1000000000
        div     rcx
        mov     ecx, [rip + wall + WALL_SECONDS]
        add     rax, rcx
        print   "since 1970:  "
        print_dec rax
        print   " s\n"
        exit    0

# RAX: nanoseconds since the virtual machine began.
read_clock:
        push    rcx
        push    rdx
        push    rsi
        push    rdi
        lea     rsi, [rip + time]
1:      mov     edi, [rsi + VERSION]
        test    edi, 1
        jnz     1b
        lfence                          # RDTSC may not run ahead
        rdtsc
        shl     rdx, 32
        or      rax, rdx
        sub     rax, [rsi + TSC_TIMESTAMP]
        movsx   ecx, byte ptr [rsi + TSC_SHIFT]
        test    ecx, ecx
        js      2f
        shl     rax, cl
        jmp     3f
2:      neg     ecx
        shr     rax, cl
3:      mov     ecx, [rsi + TSC_TO_SYSTEM_MUL]
        mul     rcx                     # RDX:RAX
        shrd    rax, rdx, 32
        add     rax, [rsi + SYSTEM_TIME]
        cmp     edi, [rsi + VERSION]
        jne     1b
        pop     rdi
        pop     rsi
        pop     rdx
        pop     rcx
        ret

        .bss
        .balign 64
time:   .skip   32
wall:   .skip   12
