"""Structures and numbers of KVM's interface on x86-64, under the names of ``linux/kvm.h``.

==================  ===========================================================================
``base``            how a C structure is written down; fixed-size integers
``capabilities``    KVM_CAP_*
``exits``           KVM_EXIT_* and the numbers inside an exit
``exit_details``    what each exit tells
``run``             ``struct kvm_run`` and offsets into it
``memory``          memory slots, dirty logs
``registers``       general, special, debug, FPU, XSAVE, XCR
``cpuid``           CPUID leaves and MSRs
``vcpu``            pending events, run state, debugging, signal mask, local APIC, sync regs
``interrupts``      interrupt controllers, timer, routing, MSI, irqfd, ioeventfd
``machine``         clock, capabilities to enable
==================  ===========================================================================
"""
