# title: Flood
# what: Writes to the serial port for ever, as fast as it can.
# expect: the same line again and again, until the limit of time or output ends the run
#
# Whoever keeps what a guest writes must keep it within bounds. REP OUTSB is one instruction for the line, but KVM makes an
# exit of each byte.

        .include "long.inc"

        .section .rodata
line:   .ascii  "All work and no play makes Jack a dull boy.\n"
        .set    LINE_SIZE, . - line

        .text
        .globl  start
start:
        cld
        mov     edx, COM1 + UART_TX
1:      lea     rsi, [rip + line]
        mov     ecx, LINE_SIZE
        rep outsb
        jmp     1b

