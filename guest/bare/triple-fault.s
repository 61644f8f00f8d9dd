# title: Triple fault
# what: Throws the IDT away and makes an exception: there is no handler, nor one for that, and the processor gives up.
# expect: "three, two, one", then the processor shuts down: an error of the run
#
# An exception whose delivery fails becomes #DF; if that cannot be delivered either, the processor enters shutdown, which PCs
# answer with a reset and KVM with KVM_EXIT_SHUTDOWN. Operating systems reset by it when all else has failed.
#
# Intel SDM 3A, 6.15, interrupt 8.

        .include "long.inc"

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        print   "three, two, one\n"
        lidt    [rip + empty]
        ud2

        .section .rodata
empty:  .word   0
        .quad   0
