# title: The memory map
# what: Prints what boot_params says of physical memory: the e820 map, as an operating system reads it first.
# expect: one line for each range with its kind, and the sum of what is usable; exit code 0
#
# PCs gave this map by BIOS call INT 15h, AX = E820h; the name has stayed. In the 64-bit boot protocol the boot loader (here
# the VMM) writes it into boot_params: the number of entries at 0x1e8, entries of 20 bytes from 0x2d0: address, length, kind.
#
# Linux Documentation/arch/x86/zero-page.rst, arch/x86/include/uapi/asm/setup_data.h; ACPI 6.4, 15.

        .include "long.inc"

        .set    E820_ENTRIES, 0x1e8
        .set    E820_TABLE, 0x2d0
        .set    ENTRY_SIZE, 20
        .set    KINDS, 6                # names in the table below

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        movzx   ecx, byte ptr [rsi + E820_ENTRIES]
        lea     rbx, [rsi + E820_TABLE]
        xor     r8d, r8d                # usable bytes

next:   test    ecx, ecx
        jz      done
        mov     rax, [rbx]              # address
        mov     rdx, [rbx + 8]          # length
        mov     edi, [rbx + 16]         # kind
        print_hex rax
        print   " - "
        lea     rax, [rax + rdx - 1]
        print_hex rax
        print   " "
        cmp     edi, 1
        jne     1f
        add     r8, rdx
1:      cmp     edi, KINDS
        jb      2f
        mov     edi, 0
2:      lea     rsi, [rip + kinds]
        shl     edi, 4                  # names have 16 bytes
        add     rsi, rdi
        call    print_text
        print   "\n"
        add     rbx, ENTRY_SIZE
        dec     ecx
        jmp     next

done:   shr     r8, 10
        print   "usable: "
        print_dec r8
        print   " KiB\n"
        exit    0

        .section .rodata
        .balign 16
kinds:  .ascii  "of unknown kind\0"
        .ascii  "usable\0\0\0\0\0\0\0\0\0\0"
        .ascii  "reserved\0\0\0\0\0\0\0\0"
        .ascii  "ACPI tables\0\0\0\0\0"
        .ascii  "ACPI storage\0\0\0\0"
        .ascii  "bad\0\0\0\0\0\0\0\0\0\0\0\0\0"
