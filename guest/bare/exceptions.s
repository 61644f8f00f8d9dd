# title: Exceptions
# what: Divides by zero, runs an undefined instruction and reads memory that is not there; catches all three and goes on.
# expect: a line for #DE, #UD and #PF, with the error code and CR2; exit code 0
#
# The processor pushes SS, RSP, RFLAGS, CS, RIP, and for some exceptions an error code, and jumps through the IDT. All three
# are faults: the RIP on the stack is that of the instruction itself, so a handler that only returns would come back for
# ever. These add the instruction's length to it.
#
# Intel SDM 3A, 6.13 (error codes), 6.14 (64-bit mode), 6.15 (each exception).

        .include "long.inc"
        .include "interrupts.inc"

        .set    DIVIDE_ERROR, 0
        .set    INVALID_OPCODE, 6
        .set    PAGE_FAULT, 14
        .set    NOT_MAPPED, 0x140000000 # 5 GiB: the entry state maps 4

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        catch   DIVIDE_ERROR, divide_error
        catch   INVALID_OPCODE, invalid_opcode
        catch   PAGE_FAULT, page_fault

        mov     eax, 5
        xor     edx, edx
        xor     ecx, ecx
divide: div     ecx
after_divide:

undefined:
        ud2
after_undefined:

        mov     rbx, NOT_MAPPED
read:   mov     rax, [rbx]
after_read:

        print   "still here\n"
        exit    0

divide_error:
        print   "#DE divide error at start + 0x"
        call    print_place
        add     qword ptr [rsp], after_divide - divide
        iretq

invalid_opcode:
        print   "#UD invalid opcode at start + 0x"
        call    print_place
        add     qword ptr [rsp], after_undefined - undefined
        iretq

page_fault:
        pop     rax                     # the error code has to be gone before IRETQ
        print   "#PF page fault, error code "
        print_hex rax, 4
        mov     rax, cr2                # the address that was not there
        print   ", CR2 "
        print_hex rax
        print   ", at start + 0x"
        call    print_place
        add     qword ptr [rsp], after_read - read
        iretq

# Where it happened: the RIP that the processor pushed lies above our own return address.
print_place:
        mov     rax, [rsp + 8]
        lea     rdx, [rip + start]
        sub     rax, rdx
        print_hex rax, 4
        print   "\n"
        ret
