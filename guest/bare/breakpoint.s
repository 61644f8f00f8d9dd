# title: A breakpoint and single steps
# what: What debuggers are made of: INT3 traps into a handler, and with RFLAGS.TF every instruction does.
# needs: hardware KVM, because software KVM interprets ring 0 and does not know INT3
# expect: the place of the INT3, then of three single steps; exit code 0
#
# Both are traps: the RIP that the processor pushes is that of the next instruction, so IRETQ goes on after it. A debugger
# puts INT3, the byte 0xcc, over the first byte of an instruction, and puts that back before it goes on.
#
# Intel SDM 3B, 17.3.1.4 (single step), 17.3.2 (breakpoint).

        .include "long.inc"
        .include "interrupts.inc"

        .set    DEBUG, 1
        .set    BREAKPOINT, 3
        .set    FLAGS_TF, 1 << 8
        .set    FRAME_FLAGS, 16         # where RFLAGS lie above RSP when a handler begins

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        catch   DEBUG, debug
        catch   BREAKPOINT, breakpoint

        int3

        mov     dword ptr [rip + steps], 3
        pushfq
        or      dword ptr [rsp], FLAGS_TF
        popfq                           # the first step ends after the instruction that follows
        nop
        nop
        nop
        print   "and on\n"
        exit    0

breakpoint:
        print   "#BP breakpoint before start + 0x"
        call    print_place
        iretq

debug:  print   "#DB single step to start + 0x"
        call    print_place
        dec     dword ptr [rip + steps]
        jnz     1f
        and     dword ptr [rsp + FRAME_FLAGS], ~FLAGS_TF
1:      iretq

# Where it happened: the RIP that the processor pushed lies above our own return address.
print_place:
        push    rax
        push    rdx
        mov     rax, [rsp + 24]
        lea     rdx, [rip + start]
        sub     rax, rdx
        print_hex rax, 4
        print   "\n"
        pop     rdx
        pop     rax
        ret

        .bss
steps:  .skip   4
