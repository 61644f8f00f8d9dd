# title: Serial echo
# what: Sends back every line in upper case, until one says "quit". Asks the UART again and again: no interrupts.
# input: lines of text, the last of them "quit"
# expect: each line in upper case, then "bye"; exit code 0
#
# Polling is the simplest way to wait and the dearest: every IN leaves the virtual machine, only to learn that there is
# nothing. Compare serial-interrupt.s, which sleeps.

        .include "long.inc"

        .set    LINE_SIZE, 128

        .globl  start
start:
        lea     rsp, [rip + stack_top]
next:   lea     rbx, [rip + line]
        xor     ecx, ecx                # length of the line so far

read:   mov     edx, COM1 + UART_LSR
1:      in      al, dx
        test    al, UART_LSR_DR
        jz      1b
        mov     edx, COM1 + UART_RX
        in      al, dx
        cmp     al, '\n'
        je      whole
        cmp     al, '\r'                # what a terminal sends for Enter
        je      whole
        cmp     ecx, LINE_SIZE - 1
        jae     read                    # full: the rest of the line is dropped
        mov     [rbx + rcx], al
        inc     ecx
        jmp     read

whole:  mov     byte ptr [rbx + rcx], 0
        cmp     ecx, 4
        jne     1f
        cmp     dword ptr [rbx], 0x74697571     # "quit" as a little-endian number
        je      quit

1:      mov     rsi, rbx
upper:  mov     al, [rsi]
        cmp     al, 'a'
        jb      2f
        cmp     al, 'z'
        ja      2f
        sub     byte ptr [rsi], 'a' - 'A'
2:      inc     rsi
        test    al, al
        jnz     upper
        mov     rsi, rbx
        call    print_text
        print   "\n"
        jmp     next

quit:   print   "bye\n"
        exit    0

        .bss
line:   .skip   LINE_SIZE
