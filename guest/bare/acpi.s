# title: ACPI tables
# what: Finds the RSDP in low memory, follows it to the XSDT, and prints each table that this names.
# expect: a line for each table: signature, address, length, whether the checksum is good; exit code 0
#
# Tables begin with a signature of four characters and their length, and the sum of all their bytes is 0 modulo 256. The
# first one is found by its own signature, "RSD PTR ", at a multiple of 16 below 1 MiB.
#
# ACPI 6.4, 5.2.5 (RSDP), 5.2.6 (header), 5.2.8 (XSDT).

        .include "long.inc"

        .set    RSDP_SIZE, 36
        .set    RSDP_XSDT, 24           # offset of the XSDT's address
        .set    TABLE_LENGTH, 4
        .set    HEADER_SIZE, 36

        .globl  start
start:
        lea     rsp, [rip + stack_top]

        mov     ebx, ACPI_TABLES
        mov     rax, [rip + rsdp_signature]
search: cmp     [rbx], rax
        je      found
        add     ebx, 16
        cmp     ebx, ACPI_TABLES_END
        jb      search
        print   "there is no RSDP\n"
        exit    1

found:  print   "RSDP at "
        print_hex rbx, 8
        mov     ecx, RSDP_SIZE
        call    print_checksum

        mov     rbx, [rbx + RSDP_XSDT]
        call    print_table
        mov     r12d, [rbx + TABLE_LENGTH]
        add     r12, rbx                # the end of the XSDT
        lea     r13, [rbx + HEADER_SIZE]        # its entries: addresses of 64 bits, not aligned
next:   cmp     r13, r12
        jae     done
        mov     rbx, [r13]
        call    print_table
        add     r13, 8
        jmp     next
done:   exit    0

# The table at RBX: its signature and what else there is to say.
print_table:
        mov     rsi, rbx
        mov     ecx, 4
1:      lodsb
        call    print_character
        dec     ecx
        jnz     1b
        print   " at "
        print_hex rbx, 8
        print   ", "
        mov     ecx, [rbx + TABLE_LENGTH]
        print_dec rcx
        print   " bytes"

# The checksum over ECX bytes at RBX.
print_checksum:
        mov     rsi, rbx
        xor     edx, edx
1:      lodsb
        add     dl, al
        dec     ecx
        jnz     1b
        test    dl, dl
        jnz     2f
        print   ", checksum good\n"
        ret
2:      print   ", checksum bad\n"
        ret

        .section .rodata
rsdp_signature:
        .ascii  "RSD PTR "
