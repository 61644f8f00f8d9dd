# title: Reset
# what: Resets the machine through the keyboard controller, as PCs have been since 1984.
# expect: "resetting", then the machine is reset
#
# The 8042 has a line to the processor's reset pin; the command 0xfe pulses it. Nothing else of a keyboard is here.

        .include "long.inc"

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        print   "resetting\n"
        mov     al, KEYBOARD_RESET
        out     KEYBOARD_RESET_PORT, al
1:      hlt
        jmp     1b
