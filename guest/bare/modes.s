# title: From real mode to long mode
# what: Climbs from 16 to 32 to 64 bits by itself, and says so on each floor.
# expect: three lines, one for each mode; exit code 0
#
# Protected mode wants a GDT and CR0.PE. Long mode wants page tables, CR4.PAE, EFER.LME and CR0.PG, in this order. Each
# mode begins with a far jump, because the processor learns of its new width when CS is loaded.
#
# Intel SDM 3A, 9.8.5 (initialising IA-32e mode), 9.9 (mode switching); AMD APM 2, 14.6.

        .code16
        .include "machine.inc"

        .set    CR0_PE, 1               # protection
        .set    CR0_PG, 1 << 31         # paging
        .set    CR4_PAE, 1 << 5         # entries of page tables have 64 bits
        .set    MSR_EFER, 0xc0000080
        .set    EFER_LME, 1 << 8        # long mode enable
        .set    PRESENT_WRITABLE, 3
        .set    LARGE_PAGE, 1 << 7

# say "TEXT": the same source for all three modes. REP OUTSB sends ECX bytes from ESI, and does not ask whether the
# transmitter takes them, which the UART of a virtual machine always does.
        .macro  say text
        .pushsection .rodata
9999:   .ascii  "\text"
9998:
        .popsection
        mov     esi, offset 9999b
        mov     ecx, offset 9998b - 9999b
        mov     dx, COM1 + UART_TX
        cld
        rep outsb
        .endm

        .globl  start
start:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, FLAT_PROGRAM
        say     "16 bits: real mode\n"

        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      eax, CR0_PE
        mov     cr0, eax
        jmp     0x08:protected_mode     # CS = the first descriptor of the GDT

        .code32
protected_mode:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        say     "32 bits: protected mode\n"

# One entry in each of three tables: the first 2 MiB, one to one. Memory is zero, so all other entries are "not present".
        mov     dword ptr [BOOT_PAGE_TABLES], BOOT_PAGE_TABLES + 0x1000 + PRESENT_WRITABLE
        mov     dword ptr [BOOT_PAGE_TABLES + 0x1000], BOOT_PAGE_TABLES + 0x2000 + PRESENT_WRITABLE
        mov     dword ptr [BOOT_PAGE_TABLES + 0x2000], PRESENT_WRITABLE + LARGE_PAGE

        mov     eax, cr4
        or      eax, CR4_PAE
        mov     cr4, eax
        mov     eax, BOOT_PAGE_TABLES
        mov     cr3, eax
        mov     ecx, MSR_EFER
        rdmsr
        or      eax, EFER_LME
        wrmsr
        mov     eax, cr0
        or      eax, CR0_PG             # with LME: long mode, still 32 bits wide
        mov     cr0, eax
        jmp     0x18:long_mode          # and now 64

        .code64
long_mode:
        say     "64 bits: long mode\n"
        xor     eax, eax
        out     EXIT_PORT, al
1:      hlt
        jmp     1b

# Descriptors (Intel SDM 3A, 3.4.5): flat segments of 4 GiB. They differ in two bits, D (32 bits) and L (64 bits).
        .data
        .balign 8
gdt:    .quad   0                       # 0x00: nothing may be here
        .quad   0x00cf9b000000ffff      # 0x08: code, 32 bits
        .quad   0x00cf93000000ffff      # 0x10: data
        .quad   0x00af9b000000ffff      # 0x18: code, 64 bits
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
