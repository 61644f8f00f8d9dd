# Makes a fork of a Linux template differ from its twins: sets the clock, gives the kernel fresh random bytes and has it
# seed its generator with them at once. A shell can do neither of the last two: they are ioctls (random(4)).
#
# stdin: 88 bytes; struct timespec with the time, then struct rand_pool_info with 64 bytes of entropy.
# The exit code says what failed: 1 reading, 2 the clock, 3 /dev/urandom, 4 adding entropy, 5 seeding.

        .intel_syntax noprefix
        .set    SYS_read, 0
        .set    SYS_open, 2
        .set    SYS_ioctl, 16
        .set    SYS_exit, 60
        .set    SYS_clock_settime, 227
        .set    CLOCK_REALTIME, 0
        .set    O_RDWR, 2
        .set    RNDADDENTROPY, 0x40085203
        .set    RNDRESEEDCRNG, 0x5207
        .set    SIZE, 88

        .text
        .globl  _start
_start:
        sub     rsp, 96
        mov     r12d, 1                 # what failed, should it fail

        xor     edi, edi                # read(0, rsp, SIZE)
        mov     rsi, rsp
        mov     edx, SIZE
        mov     eax, SYS_read
        syscall
        cmp     rax, SIZE
        jne     failed

        inc     r12d
        mov     edi, CLOCK_REALTIME     # clock_settime(CLOCK_REALTIME, rsp)
        mov     rsi, rsp
        mov     eax, SYS_clock_settime
        syscall
        test    rax, rax
        jnz     failed

        inc     r12d
        lea     rdi, [rip + device]     # open("/dev/urandom", O_RDWR)
        mov     esi, O_RDWR
        mov     eax, SYS_open
        syscall
        test    rax, rax
        js      failed

        inc     r12d
        mov     edi, eax                # ioctl(fd, RNDADDENTROPY, rsp + 16)
        mov     esi, RNDADDENTROPY
        lea     rdx, [rsp + 16]
        mov     eax, SYS_ioctl
        syscall
        test    rax, rax
        jnz     failed

        inc     r12d
        mov     esi, RNDRESEEDCRNG      # ioctl(fd, RNDRESEEDCRNG)
        xor     edx, edx
        mov     eax, SYS_ioctl
        syscall
        test    rax, rax
        jnz     failed

        xor     r12d, r12d
failed:
        mov     edi, r12d
        mov     eax, SYS_exit
        syscall

device: .asciz  "/dev/urandom"
