# title: An interrupt
# what: Sleeps until somebody types: a byte on COM1 goes through the I/O APIC to the local APIC to a handler.
# input: a line of text
# expect: "An interrupt brought: " and the line; exit code 0
#
# The way of an interrupt: the UART asserts its line; the I/O APIC's entry for that line (number 4) makes a message of it, a
# vector for a processor; the local APIC hands it over when RFLAGS.IF lets it; the IDT leads to the handler. Between bytes
# the processor is halted, and the host has nothing to do.
#
# Intel SDM 3A, 6.8 (maskable interrupts), 11.4 (local APIC); 82093AA data sheet.

        .include "long.inc"
        .include "interrupts.inc"

        .set    RECEIVED, 0x24          # the vector; 0 to 31 belong to exceptions
        .set    LINE_SIZE, 128

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        catch   RECEIVED, received
        call    enable_local_apic
        route   COM1_IRQ, RECEIVED      # by edge, as ISA devices are

# The FIFOs stay off, as they are after a reset: turning them on would drop what was typed before.
        mov     edx, COM1 + UART_IER
        mov     al, UART_IER_RDI
        out     dx, al
        mov     edx, COM1 + UART_MCR
        mov     al, UART_MCR_OUT2       # on a PC this output connects the interrupt line
        out     dx, al
        print   "Type a line: "

# CLI, look, then STI and HLT together: STI takes effect only after the next instruction, so no interrupt can come between
# looking and halting, and none is slept over.
wait:   cli
        cmp     byte ptr [rip + complete], 1
        je      done
        sti
        hlt
        jmp     wait

done:   print   "An interrupt brought: "
        lea     rsi, [rip + line]
        call    print_text
        print   "\n"
        exit    0

# Takes everything that the UART has: it asserts its line anew only after that.
received:
        push    rax
        push    rbx
        push    rdx
        lea     rbx, [rip + line]
1:      mov     edx, COM1 + UART_LSR
        in      al, dx
        test    al, UART_LSR_DR
        jz      3f
        mov     edx, COM1 + UART_RX
        in      al, dx
        cmp     al, '\n'
        je      2f
        cmp     al, '\r'                # what a terminal sends for Enter
        je      2f
        mov     edx, [rip + length]
        cmp     edx, LINE_SIZE - 1
        jae     1b                      # full: the rest is dropped
        mov     [rbx + rdx], al
        inc     dword ptr [rip + length]
        jmp     1b
2:      mov     byte ptr [rip + complete], 1
        jmp     1b
3:      end_of_interrupt
        pop     rdx
        pop     rbx
        pop     rax
        iretq

        .bss
length: .skip   4
complete:
        .skip   1
line:   .skip   LINE_SIZE
