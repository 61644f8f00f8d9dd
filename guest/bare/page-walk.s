# title: A walk through the page tables
# what: Maps a page with tables of its own, then translates three addresses as the processor does, entry by entry.
# expect: four levels for a 4 KiB page, fewer for a large one, and "not present" for nothing; exit code 0
#
# A virtual address is four numbers of 9 bits and an offset. Each number chooses one of 512 entries of a table; the entry
# gives the physical address of the next table. CR3 gives the first. Bit 0 of an entry: present; bit 7, in the two levels in
# the middle: this is already the page (1 GiB or 2 MiB).
#
#       63    48 47    39 38    30 29    21 20    12 11     0
#       | sign  |  PML4  |  PDPT  |   PD   |   PT   | offset |
#
# The processor itself sets A (bit 5) in every entry that it uses, and D (bit 6) in the one of a page that it writes to.
#
# Intel SDM 3A, 4.5 (4-level paging); AMD APM 2, 5.3.

        .include "long.inc"

        .set    PRESENT, 1
        .set    WRITABLE, 2
        .set    ACCESSED, 1 << 5
        .set    DIRTY, 1 << 6
        .set    LARGE, 1 << 7
        .set    OUR_PAGE, 0x8000000000  # 512 GiB: the first address of PML4 entry 1, which is free
        .set    NO_PAGE, 0x10000000000  # 1 TiB
        .set    NAME_SIZE, 7

# link TABLE, INDEX, TARGET: an entry of one of our tables.
        .macro  link table, index, target
        lea     rax, [rip + \target]
        or      rax, PRESENT | WRITABLE
        mov     [rip + \table + \index * 8], rax
        .endm

        .globl  start
start:
        lea     rsp, [rip + stack_top]

        link    our_pdpt, 0, our_pd
        link    our_pd, 0, our_pt
        link    our_pt, 5, our_page
        lea     rax, [rip + our_pdpt]
        or      rax, PRESENT | WRITABLE
        mov     rdx, cr3
        and     rdx, -4096
        mov     [rdx + 1 * 8], rax      # a new entry needs no INVLPG: nothing absent is ever cached

        print   "our own page\n"
        mov     rdi, OUR_PAGE + 5 * 4096 + 0x123
        mov     byte ptr [rdi], '!'     # the same byte by one address
        mov     al, [rip + our_page + 0x123]    # and by another
        cmp     al, '!'
        jne     wrong
        call    walk

        print   "where this program lies\n"
        lea     rdi, [rip + start]
        call    walk

        print   "nothing\n"
        mov     rdi, NO_PAGE
        call    walk
        exit    0

wrong:  print   "the page is not where the tables say\n"
        exit    1

# Translate RDI and print each entry on the way.
walk:   print   "  address  "
        print_hex rdi
        print   "\n"
        mov     rbx, cr3
        mov     ecx, 39                 # where this level's 9 bits of the address begin
        lea     rsi, [rip + names]
level:  and     rbx, [rip + address_mask]
        mov     rax, rdi
        shr     rax, cl
        and     eax, 511
        call    print_text              # RSI: the name of the level
        print   "["
        print_dec rax
        print   "]  "
        mov     rbx, [rbx + rax * 8]
        print_hex rbx
        test    bl, PRESENT
        jz      not_present
        test    bl, ACCESSED
        jz      1f
        print   " A"
1:      test    bl, DIRTY
        jz      2f
        print   " D"
2:      print   "\n"
        cmp     ecx, 12
        je      page                    # the last level
        cmp     ecx, 39
        je      3f                      # in PML4 entries bit 7 is reserved
        test    bl, LARGE
        jnz     page
3:      sub     ecx, 9
        add     rsi, NAME_SIZE
        jmp     level

page:   mov     rax, -1
        shl     rax, cl                 # the address bits that the page gives
        and     rbx, rax
        and     rbx, [rip + address_mask]
        not     rax
        and     rax, rdi                # and those that are an offset into it
        or      rbx, rax
        print   "  physical "
        print_hex rbx
        print   "\n"
        ret

not_present:
        print   " not present\n"
        ret

        .section .rodata
names:  .asciz  "  PML4"
        .asciz  "  PDPT"
        .asciz  "  PD  "
        .asciz  "  PT  "
address_mask:
        .quad   0x000ffffffffff000      # bits 12 to 51

        .bss
        .balign 4096
our_pdpt:
        .skip   4096
our_pd: .skip   4096
our_pt: .skip   4096
our_page:
        .skip   4096
