# title: Hello from long mode
# what: The smallest ELF program: it begins where a 64-bit Linux kernel begins.
# expect: "Hello from long mode!", exit code 0
#
# The 64-bit boot protocol of Linux (Documentation/arch/x86/boot.rst): paging is on, the first 4 GiB are mapped one to one,
# interrupts are off, RSI points to boot_params. There is no stack that one may count on, so bring one.

        .include "long.inc"

        .globl  start
start:
        lea     rsp, [rip + stack_top]

        print   "Hello from long mode!\n"
        exit    0
