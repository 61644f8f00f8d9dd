# title: The timer
# what: Has the local APIC's timer ring a hundred times a second, and counts to five; halted between.
# expect: "tick 1" to "tick 5", exit code 0
#
# The timer counts down from the initial count at the APIC bus's frequency, divided; in periodic mode it begins again by
# itself. KVM's bus has 1 GHz. No device of pyvmm takes part: local APICs are in the kernel.
#
# Intel SDM 3A, 11.5.4 (APIC timer).

        .include "long.inc"
        .include "interrupts.inc"

        .set    TIMER, 0x20             # the vector
        .set    BUS_FREQUENCY, 1000000000
        .set    TICKS_PER_SECOND, 100

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        catch   TIMER, tick
        call    enable_local_apic
        mov     ebx, LAPIC
        mov     dword ptr [rbx + APIC_TDCR], APIC_DIVIDE_BY_16
        mov     dword ptr [rbx + APIC_LVTT], APIC_TIMER_PERIODIC | TIMER
        mov     dword ptr [rbx + APIC_TMICT], BUS_FREQUENCY / 16 / TICKS_PER_SECOND

        xor     ebx, ebx                # ticks that have been printed
wait:   cli
        cmp     ebx, [rip + ticks]
        jne     more
        sti                             # takes effect after HLT has begun: no tick can be slept over
        hlt
        jmp     wait
more:   sti
        inc     ebx
        print   "tick "
        print_dec rbx
        print   "\n"
        cmp     ebx, 5
        jb      wait
        exit    0

# Counts and no more: while a handler runs, the next tick has to wait.
tick:   push    rax
        inc     dword ptr [rip + ticks]
        end_of_interrupt
        pop     rax
        iretq

        .bss
ticks:  .skip   4
