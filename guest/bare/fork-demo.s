# title: Fork demo: which twin am I?
# what: Announces a good moment for a snapshot; whoever comes back from there says whether it is the original or a fork.
# expect: "before", then in the original "after: I am the original"; in fork N "after: I am fork N"; exit code 0
#
# The OUT to the port TWIN_PORT is an exit in which the VMM can write everything down: registers, memory, devices. A fork
# is a new virtual machine that begins with that, so every fork returns from the same OUT, with the same registers and the
# same memory but for 16 bytes: the generation counter, which the VMM changes in each of them. What must not be the same in
# two machines (keys, random numbers, network addresses) has to be made anew when it changes.
#
# Microsoft, "Virtual Machine Generation ID"; Linux drivers/virt/vmgenid.c.

        .include "long.inc"

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        mov     ebx, GENERATION_COUNTER
        mov     r12, [rbx]
        mov     r13, [rbx + 8]
        print   "before\n"

        out     TWIN_PORT, al           # take the snapshot now

        in      al, TWIN_PORT
        movzx   ecx, al
        print   "after: I am "
        test    ecx, ecx
        jz      original
        print   "fork "
        print_dec rcx
        jmp     generation
original:
        print   "the original"
generation:
        cmp     r12, [rbx]
        jne     1f
        cmp     r13, [rbx + 8]
        jne     1f
        print   ", of the same generation\n"
        exit    0
1:      print   ", of another generation\n"
        exit    0
