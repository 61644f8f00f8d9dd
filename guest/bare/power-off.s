# title: Power off
# what: Turns the machine off the way an operating system does on hardware-reduced ACPI: by the sleep control register.
# expect: "good night", then the machine is off
#
# The FADT says where the register is, and the package \_S5 in the DSDT what "soft off" is called. An operating system reads
# both; we know them.
#
# ACPI 6.4, 4.8.3.7 (sleep control and status registers), 7.4.2 (sleep types).

        .include "long.inc"

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        print   "good night\n"
        mov     edx, SLEEP_CONTROL_PORT
        mov     al, SLEEP_TYPE_S5 << 2 | SLEEP_ENABLE
        out     dx, al
1:      hlt
        jmp     1b
