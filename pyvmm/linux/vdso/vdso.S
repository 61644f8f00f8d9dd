# The vDSO: reading the clock without an exit (vdso(7)).
#
# The page before this image ("vvar") is written by the monitor and read here; its layout is in clock.py. Time is
#     monotonic = base + ((rdtsc - tsc_base) * mult >> 32)
# as long as rdtsc - tsc_base < tsc_valid. Past that (and always at first: tsc_valid is 0 in a new fork) the clock is read by a
# system call, made at the label vdso_calibrate with the counter in R9, from which the monitor learns the guest's TSC and renews the page.
#
# Assembled once by `make vdso`; vdso.so is committed, so that users need no tool chain.

        .set VVAR, -0x1000
        .set TSC_BASE, 0
        .set TSC_VALID, 8
        .set MONO_BASE, 16
        .set MULT, 24
        .set REAL_OFFSET, 32
        .set SEQUENCE, 40

        .text
        .globl __vdso_clock_gettime
        .type __vdso_clock_gettime, @function
__vdso_clock_gettime:
read_clock:
        cmp     $7, %edi
        ja      .Lsystem_call
        mov     $0xf3, %eax             # REALTIME MONOTONIC MONOTONIC_RAW REALTIME_COARSE MONOTONIC_COARSE BOOTTIME
        bt      %edi, %eax
        jnc     .Lsystem_call
        lea     vvar_page(%rip), %r10
.Lretry:
        mov     SEQUENCE(%r10), %r8
        lfence
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, %r9
        sub     TSC_BASE(%r10), %rax
        cmp     TSC_VALID(%r10), %rax
        jae     .Lcalibrate
        mulq    MULT(%r10)
        shrd    $32, %rdx, %rax
        add     MONO_BASE(%r10), %rax
        mov     $0x21, %ecx             # REALTIME REALTIME_COARSE
        bt      %edi, %ecx
        jnc     .Lmonotonic
        add     REAL_OFFSET(%r10), %rax
.Lmonotonic:
        cmp     SEQUENCE(%r10), %r8
        jne     .Lretry
        xor     %edx, %edx
        mov     $1000000000, %ecx
        div     %rcx
        mov     %rax, (%rsi)
        mov     %rdx, 8(%rsi)
        xor     %eax, %eax
        ret
.Lcalibrate:
        mov     $228, %eax              # clock_gettime
        syscall
        .globl vdso_calibrate
vdso_calibrate:                         # RIP as the monitor sees it during that call
        ret
.Lsystem_call:
        mov     $228, %eax
        syscall
        ret
        .size __vdso_clock_gettime, . - __vdso_clock_gettime

        .globl __vdso_gettimeofday
        .type __vdso_gettimeofday, @function
__vdso_gettimeofday:
        push    %rbx
        push    %r12
        sub     $24, %rsp
        mov     %rdi, %rbx
        mov     %rsi, %r12
        test    %rbx, %rbx
        jz      .Lzone
        xor     %edi, %edi
        mov     %rsp, %rsi
        call    read_clock
        mov     (%rsp), %rax
        mov     %rax, (%rbx)
        mov     8(%rsp), %rax
        xor     %edx, %edx
        mov     $1000, %ecx
        div     %rcx
        mov     %rax, 8(%rbx)
.Lzone:
        test    %r12, %r12
        jz      .Ldone
        movq    $0, (%r12)              # struct timezone: UTC
.Ldone:
        xor     %eax, %eax
        add     $24, %rsp
        pop     %r12
        pop     %rbx
        ret
        .size __vdso_gettimeofday, . - __vdso_gettimeofday

        .globl __vdso_time
        .type __vdso_time, @function
__vdso_time:
        push    %rbx
        sub     $16, %rsp
        mov     %rdi, %rbx
        xor     %edi, %edi
        mov     %rsp, %rsi
        call    read_clock
        mov     (%rsp), %rax
        test    %rbx, %rbx
        jz      1f
        mov     %rax, (%rbx)
1:      add     $16, %rsp
        pop     %rbx
        ret
        .size __vdso_time, . - __vdso_time

        .globl __vdso_getcpu
        .type __vdso_getcpu, @function
__vdso_getcpu:
        test    %rdi, %rdi
        jz      1f
        movl    $0, (%rdi)
1:      test    %rsi, %rsi
        jz      2f
        movl    $0, (%rsi)
2:      xor     %eax, %eax
        ret
        .size __vdso_getcpu, . - __vdso_getcpu

        .section .note.GNU-stack, "", @progbits
