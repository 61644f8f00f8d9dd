# title: Spin
# what: Does nothing, for ever, without a single exit: only a limit of time ends it.
# expect: nothing, until the limit of time ends the run
#
# KVM_RUN does not return from this by itself; a signal to the VMM's thread makes it (pyvmm/kick.py).

        .code16
        .include "machine.inc"

        .globl  start
start:
        jmp     start
